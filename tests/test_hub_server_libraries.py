"""datasets and transformers, unmodified, pointed at the embedded Hub by an endpoint and a token alone."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hub_process import TOKEN, running

DATASETS = """
import datasets
from datasets.hub import delete_from_hub
from huggingface_hub import HfApi

rows = datasets.Dataset.from_dict({"problem": ["1+1", "2+2"], "answer": [2, 4]})
rows.push_to_hub("local/sums", private=True)
rows.push_to_hub("local/sums", split="test")
rows.push_to_hub("local/sums", config_name="other")
assert datasets.load_dataset("local/sums", split="train")[:] == rows[:]
assert datasets.load_dataset("local/sums", split="test", streaming=True).take(1)
read = datasets.load_dataset("parquet", data_files="hf://datasets/local/sums/data/train-*.parquet", split="train")
assert read[:] == rows[:]
HfApi().merge_pull_request("local/sums", delete_from_hub("local/sums", "other").pr_num, repo_type="dataset")
assert datasets.get_dataset_config_names("local/sums") == ["default"]
"""
TRANSFORMERS = """
import torch
from transformers import AutoConfig, AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

torch.manual_seed(0)
config = LlamaConfig(vocab_size=64, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2)
model = LlamaForCausalLM(config)
model.push_to_hub("local/tiny", private=True)
again = AutoModelForCausalLM.from_pretrained("local/tiny")
assert all(torch.equal(left, right) for left, right in zip(model.parameters(), again.parameters(), strict=True))
assert AutoConfig.from_pretrained("local/tiny", revision="main").vocab_size == 64
"""


@pytest.mark.parametrize(("library", "program"), [("datasets", DATASETS), ("transformers", TRANSFORMERS)])
def test_a_library_pushes_and_loads(tmp_path: Path, library: str, program: str) -> None:
    pytest.importorskip(library)
    with running(tmp_path) as url:
        environment = {**os.environ, "HF_ENDPOINT": url, "HF_TOKEN": TOKEN, "HF_HOME": str(tmp_path / "home")}
        del environment["HF_HUB_DISABLE_XET"]  # which the tests' own process sets, and no user has to
        result = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
        assert result.returncode == 0, result.stderr[-3000:]
