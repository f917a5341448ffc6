import json
import struct
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tiny import FORMAT, context, make_policy, save_policy, write_rollouts

from erpd_hub.config import Decoding, ImportedRollouts, ScoreConfig
from erpd_hub.errors import ArtifactError, ConfigError, StageError
from erpd_hub.plan import make_plan
from erpd_hub.recipe import build_recipe, parse_step
from erpd_hub.samples import read_rows
from erpd_hub.stages import rollout, score
from erpd_hub.training.data import read_trajectories, sampled_exactly

TOKENIZER = make_policy()[1]


@pytest.fixture
def bring(tmp_path) -> Callable:
    """Imports a file or folder with the tiny policy; returns metrics, rows and the folder."""
    policy = save_policy(tmp_path / "policy")

    def run(source: Path, format: str = "jsonl", **changes):
        config = ImportedRollouts(
            type="import", source=str(source), format=format, **{"prompt_format": FORMAT, **changes}
        )
        out = tmp_path / f"out-{len(list(tmp_path.iterdir()))}"
        out.mkdir()
        metrics = rollout.run(config, out, context=context(tmp_path), source=source, policy=policy).metrics
        return metrics, list(read_rows(out)), out

    return run


def lines(path: Path, *rows) -> Path:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def ids(text: str) -> list[int]:
    return list(TOKENIZER(text, add_special_tokens=False)["input_ids"])


def test_our_own_rows_come_back_as_they_were(tmp_path, bring) -> None:
    old = list(read_rows(write_rollouts(tmp_path / "rollouts")))
    file = lines(tmp_path / "rows.jsonl", *old)
    metrics, rows, out = bring(file, prompt_format=FORMAT)
    same = ("problem_id", "k", "benchmark", "prompt_ids", "response_ids", "text", "gold", "label", "finish_reason")
    assert [[row[name] for name in same] for row in rows] == [[row[name] for name in same] for row in old]
    assert (metrics["samples"], metrics["regraded"], metrics["bad_rows"], metrics["k"]) == (18, 18, 0, 3)
    assert metrics["disagreements"] == 0 and metrics["retokenized"] == 0
    assert len(read_trajectories(out)) == 18
    drawn = json.loads((out / "rollout.json").read_text())
    assert drawn["decoding"] is None and len(drawn["source_sha256"][0]) == 64
    assert str(tmp_path) not in (out / "rollout.json").read_text()
    assert not sampled_exactly(out, 1.0)


def test_known_decoding_makes_log_probs_comparable(tmp_path, bring) -> None:
    row = {"prompt_ids": ids("1+1?"), "response_ids": ids("2"), "label": 1, "sampler_logprobs": [-1.0]}
    _, rows, out = bring(lines(tmp_path / "rows.jsonl", row), decoding=Decoding(max_new_tokens=8))
    assert rows[0]["sampler_logprobs"] == [-1.0] and sampled_exactly(out, 1.0)
    scored = score.run(
        ScoreConfig(rollouts="r", checkpoint="policy"), tmp_path / "scored", context=context(tmp_path / "scored"),
        rollouts=out, checkpoint=tmp_path / "policy",
    )  # fmt: skip
    assert "sampler_difference_mean" in scored.metrics
    told = json.loads((out / "rollout.json").read_text())
    (out / "rollout.json").write_text(json.dumps(told | {"decoding": told["decoding"] | {"presence_penalty": 1.5}}))
    assert not sampled_exactly(out, 1.0)


def test_rows_without_a_number_take_the_free_ones(tmp_path, bring) -> None:
    row = {"problem_id": "p", "prompt_ids": ids("1+1?"), "response_ids": ids("2"), "label": 1}
    metrics, rows, _ = bring(lines(tmp_path / "rows.jsonl", {**row, "k": 1}, row, {**row, "label": 0}))
    assert (metrics["bad_rows"], [row["k"] for row in rows]) == (0, [1, 2, 3])


def test_a_wrong_response_that_ended_by_length_counts_as_truncated(tmp_path, bring) -> None:
    row = {"prompt_ids": ids("1+1?"), "response_ids": ids("2"), "label": 0}
    metrics, rows, _ = bring(lines(tmp_path / "rows.jsonl", row, {**row, "k": 1, "finish_reason": "length"}))
    assert [(row["verdict"], row["label"]) for row in rows] == [("wrong", 0), ("truncated", 0)]
    assert metrics["truncated"] == 0.5


def test_bad_rows_are_named_and_counted_or_refused(tmp_path, bring, caplog) -> None:
    good = {"prompt_ids": ids("1+1?"), "response_ids": ids("2"), "label": 1, "problem_id": "p"}
    bad = [
        ("{not json", "no JSON object"),
        ({**good, "response_ids": [10**6]}, "expected token ids below"),
        ({**good, "response_ids": ["a"]}, "response_ids: expected a list of token ids"),
        ({**good, "label": None}, "neither a gold answer nor a reward"),
        ({**good, "response_ids": []}, "response: expected at least one token, got none"),
        ({**good, "k": 0}, "sample 0 of problem p is there already"),
        ({**good, "sampler_logprobs": [0.0, 1.0]}, "sampler_logprobs: expected a number for each"),
        ({**good, "finish_reason": "eos"}, "finish_reason: expected stop or length"),
        ({**good, "text": "\ud800"}, "completion: expected text that is UTF-8"),
        ({**good, "prompt": "\ud800"}, "prompt: expected text that is UTF-8"),
        ({**good, "prompt": [{"role": "user", "content": "\ud800"}]}, "prompt: expected text that is UTF-8"),
        ({**good, "problem_id": "\ud800"}, "problem_id: expected text that is UTF-8"),
        ({**good, "benchmark": "\ud800"}, "benchmark: expected text that is UTF-8"),
        ({**good, "gold": "\ud800"}, "gold: expected text that is UTF-8"),
        ({**good, "label": 10**400}, "reward: expected a number that a float can hold"),
        ({**good, "sampler_logprobs": [-(10**400)]}, "sampler_logprobs: expected a number for each"),
        ({**good, "sampler_logprobs": [-1e39]}, "sampler_logprobs: expected a number for each"),
    ]
    file = lines(tmp_path / "rows.jsonl", good, *(row for row, _ in bad), good)
    metrics, rows, out = bring(file)
    rejected = [json.loads(line) for line in (out / "rejected.jsonl").read_text().splitlines()]
    assert metrics["bad_rows"] == len(bad) and [row["k"] for row in rows] == [0, 1]
    for number, (found, (_, reason)) in enumerate(zip(rejected, bad, strict=True), 2):
        assert found["row"] == str(number) and found["reason"].startswith(reason)
    assert f"{len(bad)} of {len(bad) + 2} rows are no samples and were left out, the first row 2:" in caplog.text
    with pytest.raises(StageError, match="row 2: no JSON object; correct it"):
        bring(file, on_bad_row="refuse")
    with pytest.raises(StageError, match="expected samples, got none; 1 bad rows, the first: no JSON"):
        bring(lines(tmp_path / "none.jsonl", "{"))


def test_messages_that_the_chat_template_does_not_take_are_a_bad_row(tmp_path, bring) -> None:
    policy = tmp_path / "policy"
    file = lines(
        tmp_path / "rows.jsonl",
        *(
            {"prompt": [{"role": role, "content": "1+1?"}], "completion": "2", "reward": 1}
            for role in ("user", "\ud800")
        ),
    )
    assert bring(file, "trl", retokenize=True)[0]["bad_rows"] == 0, "this template does not show roles it does not know"
    template = "{% for m in messages %}{{ m.role }}{{ m.content }}{% endfor %}"
    for strict in (template, "{{ raise_exception('no') if messages[0].role != 'user' }}" + template):
        (policy / "chat_template.jinja").write_text(strict)
        metrics, _, out = bring(file, "trl", retokenize=True)
        assert metrics["bad_rows"] == 1
        assert "prompt: expected messages that the chat template takes" in (out / "rejected.jsonl").read_text()


def test_a_json_file_has_json_lines_or_an_array(tmp_path, bring) -> None:
    row = {"prompt_ids": ids("1+1?"), "response_ids": ids("2"), "label": 1}
    assert len(bring(lines(tmp_path / "lines.json", row, {**row, "k": 1}))[1]) == 2
    file = tmp_path / "array.json"
    file.write_text(json.dumps([row, "no row", {**row, "label": 0}], indent=2))
    metrics, rows, out = bring(file)
    assert [found["label"] for found in rows] == [1, 0] and metrics["bad_rows"] == 1
    assert json.loads((out / "rejected.jsonl").read_text())["row"] == "2"
    file.write_text(json.dumps([row, row])[:-1])
    with pytest.raises(ArtifactError, match="source: expected JSON lines or an array, got neither"):
        bring(file)


def test_a_parquet_file_with_text_that_is_none_is_refused(tmp_path, bring) -> None:
    offsets = pa.py_buffer(struct.pack("<2i", 0, 1))
    text = pa.Array.from_buffers(pa.string(), 1, [None, offsets, pa.py_buffer(b"\xff")])
    pq.write_table(pa.table({"text": text}), tmp_path / "rows.parquet")
    with pytest.raises(ArtifactError, match="source: expected a parquet file, got one that cannot be read"):
        bring(tmp_path / "rows.parquet")


def test_rewards_that_are_no_outcomes_are_refused_and_not_chosen_among(tmp_path, bring) -> None:
    """Rows with 1 kept and those with -0.5 left out would be a batch of right responses."""
    row = {"prompt_ids": ids("1+1?"), "response_ids": ids("2")}
    file = lines(tmp_path / "rows.jsonl", *({**row, "reward": reward} for reward in (1.0, -0.5, 0.0)))
    with pytest.raises(StageError, match=r"row 2: reward: expected 0 or 1, got -0\.5; say with reward_above=NUMBER"):
        bring(file)
    assert [row["label"] for row in bring(file, reward_above=0)[1]] == [1, 0, 0]
    metrics, rows, _ = bring(lines(tmp_path / "graded.jsonl", {**row, "reward": 1.5, "gold": "2"}))
    assert (rows[0]["label"], metrics["disagreements"]) == (0, 0), "such a score contradicts no grade"


def test_text_alone_is_refused_unless_asked_for(tmp_path, bring) -> None:
    file = lines(tmp_path / "rows.jsonl", {"prompt": "1+1?", "text": "2", "label": 1})
    with pytest.raises(StageError, match="row 1: expected token ids of the prompt, got none; text makes other tokens"):
        bring(file)
    metrics, rows, _ = bring(file, retokenize=True)
    assert metrics["retokenized"] == 1
    assert rows[0]["response_ids"] == [*ids("2"), TOKENIZER.eos_token_id]
    assert rows[0]["prompt_ids"] == list(TOKENIZER("1+1?")["input_ids"])


def test_a_gold_answer_outweighs_the_files_reward(tmp_path, bring) -> None:
    row = {"prompt_ids": ids("1+1?"), "response_ids": ids("3"), "text": "\\boxed{3}", "gold": "2", "label": 1}
    file = lines(tmp_path / "rows.jsonl", row)
    metrics, rows, _ = bring(file)
    assert rows[0]["label"] == 0 and metrics["disagreements"] == 1
    metrics, rows, _ = bring(file, regrade=False)
    assert (rows[0]["label"], rows[0]["verdict"], metrics["regraded"]) == (1, "correct", 0)


def test_what_trl_logs(tmp_path, bring) -> None:
    folder = tmp_path / "completions"
    folder.mkdir()
    for step in (1, 2):
        table = {
            "step": [step, step],
            "prompt": ["1+1?", "1+2?"],
            "completion": ["\\boxed{2}", "\\boxed{2}"],
            "accuracy_reward": [1.0, 0.0],
            "advantage": [0.7, -0.7],
        }
        pq.write_table(pa.table(table), folder / f"completions_{step:05d}.parquet")
    metrics, rows, _ = bring(folder, "trl", retokenize=True)
    assert [(row["k"], row["label"]) for row in rows] == [(0, 1), (0, 0), (1, 1), (1, 0)]
    assert (metrics["prompts"], metrics["k"], metrics["retokenized"]) == (2, 2, 4)
    pq.write_table(pa.table({**table, "length_reward": [0.0, 1.0]}), folder / "completions_00003.parquet")
    metrics, _, out = bring(folder, "trl", retokenize=True)
    assert metrics["bad_rows"] == 2 and "accuracy_reward, length_reward; set columns.reward" in (
        out / "rejected.jsonl"
    ).read_text()  # fmt: skip
    assert bring(folder, "trl", retokenize=True, columns={"reward": "accuracy_reward"})[0]["bad_rows"] == 0


def test_what_trl_logs_of_conversations(tmp_path, bring) -> None:
    row = {
        "prompt": [{"role": "user", "content": "1+1?"}], "completion": [{"role": "assistant", "content": "2"}],
        "completion_ids": ids("2"), "prompt_ids": ids("1+1?"), "reward": True,
    }  # fmt: skip
    _, rows, _ = bring(lines(tmp_path / "rows.jsonl", row), "trl")
    assert (rows[0]["text"], rows[0]["label"]) == ("2", 1)


def test_what_verl_dumps(tmp_path, bring) -> None:
    row = {"input": "1+1?", "output": "\\boxed{2}", "gts": "2", "score": -1.0, "step": 3, "acc": False}
    _, rows, _ = bring(lines(tmp_path / "3.jsonl", row), "verl", retokenize=True)
    assert (rows[0]["gold"], rows[0]["label"], rows[0]["benchmark"]) == ("2", 1, "verl")
    _, rows, _ = bring(lines(tmp_path / "4.jsonl", row), "verl", retokenize=True, regrade=False, reward_above=0.0)
    assert rows[0]["label"] == 0


def test_a_batch_of_verls_loses_its_padding(tmp_path, bring) -> None:
    row = {"prompts": [0, 0, 5], "responses": [6, 7, 0], "attention_mask": [0, 0, 1, 1, 1, 0], "score": 1.0}
    _, rows, _ = bring(lines(tmp_path / "rows.jsonl", row), "verl")
    assert (rows[0]["prompt_ids"], rows[0]["response_ids"]) == ([5], [6, 7])
    columns = {"sampler_logprobs": "rollout_log_probs"}
    for logprobs in ([-0.5, -0.25, -1.0], [-0.5, -0.25]):
        file = lines(tmp_path / "rows.jsonl", {**row, "rollout_log_probs": logprobs})
        assert bring(file, "verl", columns=columns)[1][0]["sampler_logprobs"] == [-0.5, -0.25]
    with pytest.raises(StageError, match="sampler_logprobs: expected a number for each response token"):
        bring(lines(tmp_path / "rows.jsonl", {**row, "rollout_log_probs": [-0.5]}), "verl", columns=columns)


def test_a_step_of_the_recipe() -> None:
    assert parse_step("rollout", {"prompts": "p"}, "t").type == "sample"
    with pytest.raises(ConfigError, match=r"rollout\.type: expected one of sample, import, got 'imprt'; did you mean"):
        parse_step("rollout", {"type": "imprt"}, "t")
    steps = {
        "base": {"type": "tiny"},
        "rollout": {"type": "import", "source": "./rows.jsonl", "format": "verl"},
        "signal": {"rollouts": "rollout", "numerator": "a/b"},
    }
    plan = make_plan(build_recipe({"run": "t", "steps": steps}, "t"))
    assert [edge.role for edge in plan.node("r1/rollout").inputs] == ["source", "policy"]
    assert {node.name for node in plan.nodes} >= {"r1/score-base", "r1/score-a-b"}
