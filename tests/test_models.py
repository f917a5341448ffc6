import json
from pathlib import Path

import gguf
import pytest
import torch
from architectures import multimodal_qwen3_5
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from tiny import folder_digest, make_policy, save_policy
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

from erpd_hub.carry import tensor_files
from erpd_hub.config import TinyBase
from erpd_hub.errors import ArtifactError
from erpd_hub.models import (
    chat_template_hash,
    context_length,
    import_checkpoint,
    load_model,
    load_tokenizer,
    save_checkpoint,
    stop_ids,
)
from erpd_hub.tiny_policies import tiny_policy


def test_tiny_policy_has_the_measured_size() -> None:
    model, tokenizer = tiny_policy(TinyBase(type="tiny"), 0)
    assert model.num_parameters() == 242_208
    assert len(tokenizer) == model.config.vocab_size == 22
    assert model.dtype == torch.float32


def test_tiny_policy_depends_on_the_seed_alone() -> None:
    torch.manual_seed(1)
    first = make_policy(3)[0].state_dict()
    again, other = make_policy(3)[0].state_dict(), make_policy(4)[0].state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["model.embed_tokens.weight"], other["model.embed_tokens.weight"])


def test_tokenizer_is_character_level_with_one_token_for_the_box() -> None:
    tokenizer = make_policy()[1]
    ids = tokenizer("6+0=06;\\boxed{1406}")["input_ids"]
    assert tokenizer.convert_ids_to_tokens(ids)[-6:] == ["\\boxed{", "1", "4", "0", "6", "}"]
    assert tokenizer.decode([*ids, tokenizer.eos_token_id], skip_special_tokens=True) == "6+0=06;\\boxed{1406}"


def test_chat_template_renders_user_and_assistant() -> None:
    tokenizer = make_policy()[1]
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": "876+530?"}], add_generation_prompt=True, tokenize=False
    )
    assert text == "<|user|>876+530?<|assistant|>"


def test_saved_bytes_do_not_depend_on_where_a_model_was_loaded_from(tmp_path) -> None:
    first = save_policy(tmp_path / "first")
    save_checkpoint(load_model(first), load_tokenizer(first), tmp_path / "second")
    assert folder_digest(first) == folder_digest(tmp_path / "second")


def test_facts_of_a_checkpoint_survive_the_disk(tmp_path) -> None:
    model, tokenizer = make_policy()
    folder = save_policy(tmp_path / "policy")
    loaded, loaded_tokenizer = load_model(folder), load_tokenizer(folder)
    assert stop_ids(loaded, loaded_tokenizer) == stop_ids(model, tokenizer) == {tokenizer.eos_token_id}
    assert chat_template_hash(loaded_tokenizer) == chat_template_hash(tokenizer) != "none"
    assert context_length(loaded) == 512
    assert not loaded.training


def test_pickled_weights_are_refused(tmp_path) -> None:
    folder = save_policy(tmp_path / "policy")
    torch.save(load_model(folder).state_dict(), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(ArtifactError, match="safetensors"):
        import_checkpoint(folder, tmp_path / "out")


def test_code_of_a_model_is_refused_unless_asked_for(tmp_path) -> None:
    folder = save_policy(tmp_path / "policy")
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "homemade", "auto_map": {"AutoConfig": "code.Config"}}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ArtifactError, match="trust_remote_code"):
        load_model(folder)


def test_import_of_a_folder_is_float32(tmp_path) -> None:
    model, tokenizer = make_policy()
    save_checkpoint(model.to(torch.bfloat16), tokenizer, tmp_path / "half")
    imported, _ = import_checkpoint(tmp_path / "half", tmp_path / "out")
    assert imported.dtype == load_model(tmp_path / "out").dtype == torch.float32


def test_stored_weights_keep_their_dtype(tmp_path) -> None:
    model, tokenizer = make_policy()
    save_checkpoint(model, tokenizer, tmp_path / "half", dtype="bfloat16")
    assert json.loads((tmp_path / "half" / "config.json").read_text())["dtype"] == "bfloat16"
    assert load_model(tmp_path / "half", "stored").dtype == torch.bfloat16
    assert load_model(tmp_path / "half").dtype == torch.float32
    assert model.dtype == torch.float32
    weights = load_file(tmp_path / "half" / "model.safetensors")
    assert "lm_head.weight" not in weights
    for name, value in model.state_dict().items():
        assert name == "lm_head.weight" or torch.equal(weights[name], value.bfloat16())


def test_gathered_weights_give_the_bytes_of_the_models_own(tmp_path) -> None:
    model, tokenizer = make_policy()
    gathered = {name: value.clone() for name, value in model.named_parameters()}
    other, _ = make_policy(1)
    save_checkpoint(model, tokenizer, tmp_path / "own", dtype="float32", source=save_policy(tmp_path / "start", 1))
    save_checkpoint(other, tokenizer, tmp_path / "gathered", state_dict=gathered)
    assert folder_digest(tmp_path / "own") == folder_digest(tmp_path / "gathered")


@pytest.fixture
def multimodal(tmp_path) -> Path:
    """A checkpoint with a vision tower and multi-token-prediction tensors beside the policy."""
    folder = tmp_path / "whole"
    multimodal_qwen3_5().to(torch.bfloat16).save_pretrained(folder)
    make_policy()[1].save_pretrained(folder)
    tensors = load_file(folder / "model.safetensors")
    tensors["mtp.fc.weight"] = torch.rand(4, 4, dtype=torch.bfloat16)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "preprocessor_config.json").write_text("{}")
    return folder


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_what_lies_beside_the_policy_survives(multimodal: Path, tmp_path, dtype: str) -> None:
    changed = "model.layers.1.mlp.up_proj.weight"
    model = load_model(multimodal)
    with torch.no_grad():
        model.get_parameter(changed).add_(1)
    folder = tmp_path / "trained"
    save_checkpoint(model, load_tokenizer(multimodal), folder, dtype=dtype, source=multimodal)

    before, after = read_tensors(multimodal), read_tensors(folder)
    assert before.keys() == after.keys()
    for name, value in before.items():
        if "visual" in name or name.startswith("mtp"):
            assert torch.equal(value, after[name]) and after[name].dtype == torch.bfloat16
    assert torch.equal(AutoModelForCausalLM.from_pretrained(folder, dtype="float32").get_parameter(changed),
                       model.get_parameter(changed).to(getattr(torch, dtype)).float())  # fmt: skip
    whole, unread = AutoModelForImageTextToText.from_pretrained(folder, dtype="float32", output_loading_info=True)
    assert not unread["missing_keys"] and not unread["unexpected_keys"]
    start = AutoModelForImageTextToText.from_pretrained(multimodal, dtype="float32")
    in_whole = changed.replace("model.", "model.language_model.")
    assert not torch.equal(whole.get_parameter(in_whole), start.get_parameter(in_whole))
    for name, value in start.model.visual.state_dict().items():
        assert torch.equal(value, whole.model.visual.state_dict()[name])
    configs = [json.loads((at / "config.json").read_text()) for at in (multimodal, folder)]
    assert configs[1]["architectures"] == configs[0]["architectures"] and configs[1]["dtype"] == dtype
    assert (folder / "preprocessor_config.json").is_file()


def test_a_saved_whole_is_a_source_like_the_first(multimodal: Path, tmp_path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    import_checkpoint(multimodal, first)
    save_checkpoint(load_model(first), load_tokenizer(first), second, source=first)
    assert len(tensor_files(second)) == len(tensor_files(multimodal))
    assert folder_digest(first) == folder_digest(second)


def test_an_adapter_loads_merged_with_its_base(tmp_path) -> None:
    base, tokenizer = make_policy()
    wrapped = get_peft_model(base, LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False))
    wrapped.save_pretrained(tmp_path / "adapter")
    with pytest.raises(ArtifactError, match="base"):
        load_model(tmp_path / "adapter")
    save_policy(tmp_path / "adapter" / "base")
    loaded = load_model(tmp_path / "adapter")
    expected = wrapped.merge_and_unload()
    ids = torch.tensor([[2, 5, 6, 3]])
    torch.testing.assert_close(loaded(ids).logits, expected(ids).logits)
    assert load_model(tmp_path / "adapter", "bfloat16").dtype == torch.bfloat16
    assert len(load_tokenizer(tmp_path / "adapter")) == len(tokenizer)
    save_checkpoint(loaded, tokenizer, tmp_path / "merged", source=tmp_path / "adapter")
    assert type(load_model(tmp_path / "merged")) is type(loaded)


def read_tensors(folder: Path) -> dict[str, torch.Tensor]:
    return {name: load_file(path)[name] for name, path in tensor_files(folder).items()}


def test_missing_gguf_is_named(tmp_path) -> None:
    with pytest.raises(ArtifactError, match=r"model\.gguf"):
        import_checkpoint(tmp_path, tmp_path / "out", "model.gguf")


def test_a_gguf_file_is_read_without_its_neighbours(tmp_path) -> None:
    source = write_gguf(tmp_path / "alone" / "model.gguf")
    import_checkpoint(source, tmp_path / "expected")
    save_policy(source.parent)
    import_checkpoint(source, tmp_path / "out")
    assert folder_digest(tmp_path / "out") == folder_digest(tmp_path / "expected")


def write_gguf(path: Path) -> Path:
    """A llama of one layer with random weights."""
    path.parent.mkdir()
    writer = gguf.GGUFWriter(path, "llama")
    width, vocabulary = 8, ["<unk>", "<s>", "</s>", *"abcd", "ab"]
    writer.add_block_count(1)
    writer.add_context_length(32)
    writer.add_embedding_length(width)
    writer.add_feed_forward_length(width)
    writer.add_head_count(2)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(vocabulary))
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(vocabulary)
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    shapes = {"token_embd": (len(vocabulary), width), "output_norm": (width,), "output": (len(vocabulary), width)}
    matrices = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")
    shapes |= {f"blk.0.{name}": (width, width) for name in matrices}
    shapes |= {f"blk.0.{name}": (width,) for name in ("attn_norm", "ffn_norm")}
    generator = torch.Generator().manual_seed(0)
    for name, shape in shapes.items():
        writer.add_tensor(f"{name}.weight", torch.randn(shape, generator=generator).numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
