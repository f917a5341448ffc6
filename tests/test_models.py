import json
from pathlib import Path

import gguf
import pytest
import torch
from tiny import folder_digest, make_policy, save_policy

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
    tiny_policy,
)


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
