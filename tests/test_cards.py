"""Cards: what the Hub reads in them, what people read in them, and that no value becomes markup."""

import re
from pathlib import Path

import pytest
import yaml

from erpd_hub import model_cards
from erpd_hub.artifacts import LineageRecord
from erpd_hub.errors import ArtifactError
from erpd_hub.evaluation.leaderboard import LEADERBOARD_SCHEMA
from erpd_hub.model_cards.results import with_results

HOSTILE = "<script>alert(1)</script> ![x](http://evil) | `` ` \n---\nlicense: evil\n```\n# owned"


def an_input(role: str, kind: str, repo: str, repo_type: str = "model", folder: str = "") -> dict:
    return {
        "role": role, "kind": kind, "digest": "d" * 64, "repo_type": repo_type, "repo_id": repo, "folder": folder,
        "revision": "0123456789" * 4, "upstream": False,
    }  # fmt: skip


def a_record(**changes: object) -> dict:
    record = {
        "schema": "erpd-hub/lineage/v1", "stage": "teacher", "stage_version": 1, "kind": "checkpoint", "run": "quick",
        "round": 1, "step": "teacher", "saved_step": None, "repo_type": "model", "repo_id": "local/quick-r1-teacher",
        "folder": "", "identity": {}, "seed": 3, "fingerprint": "f" * 64, "digest": "e" * 64, "license": "apache-2.0",
        "inputs": [
            an_input("init", "checkpoint", "local/quick-base"),
            an_input("rollouts", "rollouts", "local/quick-r1-rollout", "dataset"),
        ],
        "config": {"stage": "teacher", "learning_rate": 1e-6, "loss": {"type": "mse"}},
        "code": {"version": "0.1.0", "git_commit": "c" * 40, "dirty": True},
        "environment": {"python": "3.11.7", "torch": "2.13.0", "vllm": None},
        "metrics": {"loss": 0.123456, "positive": {"logprob": -0.5}, "curve": [1, 2]},
        "files": {"model.safetensors": {"sha256": "0" * 64, "size": 3}},
    }  # fmt: skip
    return record | changes


def a_dataset(kind: str = "rollouts", **changes: object) -> dict:
    files = {"data/train-00000.parquet": {"sha256": "0" * 64, "size": 3}}
    fields = {"kind": kind, "stage": "rollout", "repo_type": "dataset", "repo_id": "local/quick-r1-x", "files": files}
    return a_record(**(fields | changes))


def front_matter(card: str) -> dict:
    return yaml.safe_load(card.split("\n---\n")[0])


def test_the_fixture_is_a_lineage_record() -> None:
    assert LineageRecord.model_validate(a_record()).model_dump(mode="json", by_alias=True) == a_record()


@pytest.mark.parametrize("kind", model_cards.KINDS)
def test_every_kind_renders_and_parses(kind: str) -> None:
    record = a_record() if kind == "checkpoint" else a_dataset(kind)
    card = model_cards.render(record, command="run quickstart")
    assert model_cards.validate(card, record["repo_type"]).to_dict() == front_matter(card)
    assert "erpd-hub run quickstart --until teacher" in card
    assert "\n\n\n\n" not in card
    for heading in ("Where it comes from", "How it was made", "Results", "How to load it", "Limits"):
        assert f"\n## {heading}\n\n" in card


LOOK = {
    "k": 4,
    "leader": 0,
    "candidates": [{"candidate": 0, "average": 0.5, "difference": 0.0, "p": None, "stays": True}],
}
PICK = {
    "reason": "the largest fall",
    "candidates": [{"position": 1, "step": 4, "probability_positive": 0.25, "probability_negative": 0.5, "fall": 0.125,
                    "verdict": "chosen"}],
}  # fmt: skip
RACE = {
    "chosen": "teacher@8",
    "among": 3,
    "tried": 4,
    "stopped": "one was left",
    "candidates": ["teacher@8"],
    "looks": [LOOK],
}


@pytest.mark.parametrize(
    ("stage", "config", "metrics", "said"),
    [("base", {"type": "tiny"}, {}, "The **base** of this run: a small model"),
     ("base", {"type": "import"}, {}, "weights brought in from elsewhere"),
     ("teacher", {}, {}, "A **teacher**"),
     ("unlearned", {"candidates": ["teacher@4"]}, {"pick": PICK}, "`teacher@4` | 4 | 0.25 | 0.5 | 0.125 | chosen |"),
     ("unlearned", {}, {}, "Whether it did, a score below says"),
     ("teacher", {"control_of": "teacher"}, {}, "It is the control of `teacher`."),
     ("distill", {"advantage": "outcome"}, {}, "no teacher's signal went into it"),
     ("distill", {}, {}, "A **student**"),
     ("online", {}, {}, "In this phase no teacher and no fixed batch had a part"),
     ("select", {"benchmark": "toy"}, RACE, "| 4 | `teacher@8` | 50 | 0 | - | leads |")],
)  # fmt: skip
def test_every_checkpoint_says_what_it_is(stage: str, config: dict, metrics: dict, said: str) -> None:
    assert said in model_cards.render(a_record(stage=stage, config=config, metrics=metrics)).split("## Where")[0]


def test_a_gate_says_its_verdict() -> None:
    metrics = {"reason": "the teacher is better (p 0.01)", "average": {"teacher": 0.5}}
    card = model_cards.render(a_dataset("gate", stage="gate", metrics=metrics))
    assert "Its verdict: the teacher is better (p 0.01)." in card and "| average.teacher | 0.5 |" in card


def a_row(**changes: object) -> dict:
    return dict.fromkeys(LEADERBOARD_SCHEMA.names) | {
        "run": "quick", "role": "student", "benchmark": "toy", "version": 1, "avg": 0.5, "interval": [0.25, 0.75],
        "n": 8, "k": 4, "coverage": 1.0, "selection": False, "temperature": 1.0, "checkpoint_digest": "e" * 64,
        "details_repo": "me/details", "details_folder": "a/toy", "details_revision": "0" * 40,
    } | changes  # fmt: skip


def test_scores_of_a_judge_stand_apart_in_a_checkpoints_card() -> None:
    row = a_row(judge="judge-1", avg_judged=0.75, canary_acceptance=0.5,
                canaries_problem="it took 4 of 8 wrong answers for right")  # fmt: skip
    card = with_results(model_cards.render(a_record()), [(row, [])], [])
    assert "| 50.0 | - | 25.0 to 75.0 | 75.0 ! | 50.0 | 8 | 4 |" in card
    assert "- ! `toy`: the score with `judge-1` cannot be trusted: it took 4 of 8 wrong answers for right." in card
    assert with_results(card, [], []).split() == model_cards.render(a_record()).split()


def test_model_front_matter() -> None:
    assert front_matter(model_cards.render(a_record())) == {
        "license": "apache-2.0",
        "base_model": "local/quick-base",
        "base_model_relation": "finetune",
        "datasets": ["local/quick-r1-rollout"],
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["erpd", "erpd-stage:teacher", "erpd-run:quick"],
    }


def test_adapter_and_root() -> None:
    adapter = a_record(files={"adapter_config.json": {"sha256": "0" * 64, "size": 3}})
    card = model_cards.render(adapter)
    assert front_matter(card)["base_model_relation"] == "adapter"
    assert "PeftModel.from_pretrained(base, " in card
    root = model_cards.render(a_record(stage="base", inputs=[], license=None, config={"type": "tiny"}))
    assert not {"base_model", "base_model_relation", "datasets", "license"} & set(front_matter(root))
    assert "root of the lineage" in root


def test_body_of_a_model() -> None:
    card = model_cards.render(a_record(saved_step=50, config={"trust_remote_code": True}))
    assert "(</datasets/local/quick-r1-rollout/tree/" in card
    assert "`local/quick-base@0123456`" in card
    assert '-step-50", trust_remote_code=True' in card
    assert "**Remote code.**" in card
    assert "| positive.logprob | -0.5 |" in card
    assert "| loss | 0.1235 |" in card
    assert "curve" not in card


def test_card_of_many_folders() -> None:
    folders = [a_dataset("details", folder=f"{name}/toy", metrics={"avg": 0.5}) for name in ("student", "base")]
    card = model_cards.render_repo_card(folders, command="run quickstart")
    configs = {config["config_name"]: config["data_files"][0]["path"] for config in front_matter(card)["configs"]}
    assert configs == {"base--toy": "base/toy/data/*.parquet", "student--toy": "student/toy/data/*.parquet"}
    assert "| `base/toy` | 50.0 |" in card
    assert card.count("erpd-hub run quickstart") == 1
    assert 'load_dataset("local/quick-r1-x", "base--toy", split="train")' in card


def test_leaderboard_card() -> None:
    card = model_cards.render_leaderboard("local/erpd-leaderboard")
    assert model_cards.validate(card, "dataset").to_dict() == front_matter(card)
    assert front_matter(card)["configs"][0]["data_files"][0]["path"] == "data/*.parquet"
    assert "# erpd-leaderboard\n" in card


def test_a_leaderboard_written_by_two_versions_loads_as_one_table(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq
    from datasets import load_dataset

    (tmp_path / "README.md").write_text(model_cards.render_leaderboard("local/erpd-leaderboard"))
    (tmp_path / "data").mkdir()
    row = {"run": "new", "avg": 0.5, "interval": [0.4, 0.6], "loss": "ce"}
    table = pa.Table.from_pylist([row], schema=LEADERBOARD_SCHEMA)
    pq.write_table(table, tmp_path / "data" / "new.parquet")
    pq.write_table(table.drop_columns(["loss", "strategy"]), tmp_path / "data" / "old.parquet")
    rows = load_dataset(str(tmp_path), split="train")
    assert rows.column_names == LEADERBOARD_SCHEMA.names
    assert sorted(rows["loss"], key=str) == [None, "ce"]
    assert list(rows["interval"]) == [[0.4, 0.6]] * 2


def test_load_dataset_reads_what_the_card_says(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq
    from datasets import load_dataset

    records = [a_dataset("details", folder=name) for name in ("base/toy", "student/toy")]
    for index, record in enumerate(records):
        (tmp_path / record["folder"] / "data").mkdir(parents=True)
        pq.write_table(pa.table({"k": [index]}), tmp_path / record["folder"] / "data" / "train-00000.parquet")
    (tmp_path / "README.md").write_text(model_cards.render_repo_card(records))
    rows = load_dataset(str(tmp_path), "student--toy", split="train", cache_dir=str(tmp_path / "cache"))
    assert rows["k"][:] == [1]


def test_hostile_values_stay_text() -> None:
    record = a_dataset(
        license=HOSTILE, run=HOSTILE, step=HOSTILE, metrics={HOSTILE: HOSTILE}, environment={"python": HOSTILE},
        config={"template": HOSTILE, HOSTILE: HOSTILE}, inputs=[an_input(HOSTILE, HOSTILE, HOSTILE, folder=HOSTILE)],
    )  # fmt: skip
    card = model_cards.render(record)
    assert (front_matter(card)["license"], front_matter(card)["license_name"]) == ("other", HOSTILE)
    _, _, body = card.partition("\n---\n\n#")
    prose = re.sub(r"(?ms)^(`{3,})\w*\n.*?^\1$", "", body)
    assert "<script" not in prose
    assert "![" not in prose
    assert not re.search(r"(?m)^# owned|^license: evil", prose)
    (row,) = [line for line in prose.splitlines() if line.startswith("| &lt;script") and line.count("owned") == 2]
    assert row.count("|") - row.count("\\|") == 3


def test_licences_are_identifiers_of_the_hub() -> None:
    """The Hub refuses a card with another; those of the problems count too, in details."""
    metrics = [{"licence": "CC-BY-NC-SA-4.0"}, {"licence": "Apache-2.0 (dataset card; problems MAA)"}, {}]
    records = [
        a_dataset("details", folder=f"base/{i}", metrics=m, license="apache-2.0 AND mit") for i, m in enumerate(metrics)
    ]
    front = front_matter(model_cards.render_repo_card(records))
    assert front["license"] == ["apache-2.0", "mit", "cc-by-nc-sa-4.0"]
    front = front_matter(model_cards.render_repo_card([a_dataset("details", license="my own")]))
    assert (front["license"], front["license_name"]) == ("other", "my own")
    assert "license" not in front_matter(model_cards.render_repo_card([a_dataset("details", license=None)]))


def test_details_say_what_a_score_stands_on() -> None:
    metrics = {
        "avg": 0.5, "benchmark": "aime_2025", "benchmark_version": 2, "n": 30, "k": 32, "share": "ids",
        "decoding": {"temperature": 0.6, "top_p": 0.95, "max_new_tokens": 81920}, "bad_golds": {"7": "unreadable"},
        "harness": {"erpd-hub": "0.1.0", "grader": "math v1", "math-verify": "0.9.0"}, "licence": "CC-BY-NC-SA-4.0",
        "judge": {"model": "judge-1", "canary_acceptance": 0.25}, "avg_judged": 0.75, "problems_state": "known",
    }  # fmt: skip
    source = an_input("benchmark:aime_2025", "dataset", "MathArena/aime_2025", "dataset")
    card = model_cards.render_repo_card([a_dataset("details", folder="a/aime_2025", metrics=metrics, inputs=[source])])
    assert "| `a/aime_2025` | 50.0 | - | - | - | 75.0 | - | 25.0 |" in card
    assert "| 30 | 32 | 0.6 | 0.95 | - | 81920 |" in card
    assert "math v1, math-verify 0.9.0; then `judge-1` | erpd-hub 0.1.0 |" in card
    assert "MathArena/aime_2025@0123456" in card
    assert "CC-BY-NC-SA-4.0 | problem ids and hashes; no prompts, no golds | as registered" in card
    assert "| 1: `7` |" in card
    penalised = metrics | {"decoding": metrics["decoding"] | {"top_k": 20, "presence_penalty": 1.5}}
    card = model_cards.render_repo_card(
        [a_dataset("details", folder="a/aime_2025", metrics=penalised, inputs=[source])]
    )
    assert "| 30 | 32 | 0.6 | 0.95 | 20, presence penalty 1.5 | 81920 |" in card
    alarm = {"canaries_alarm": True, "canaries_problem": "it took 16 of 64 injected wrong answers for right"}
    alarmed = metrics | {"judge": metrics["judge"] | alarm}
    card = model_cards.render_repo_card([a_dataset("details", folder="a/aime_2025", metrics=alarmed, inputs=[source])])
    assert "| 75.0 ! | - | 25.0 |" in card
    assert "- ! `a/aime_2025`: the score with `judge-1` cannot be trusted: it took 16 of 64 injected" in card


def test_details_that_were_made_in_several_ways_say_so() -> None:
    earlier = {"dtype": "float32", "versions": {"torch": "2.0"}}
    metrics = {"avg": 0.5, "benchmark": "b", "k": 4, "pass_at_k": {"4": 0.75}, "majority_at_k": {"4": 0.625},
               "equal_k": False, "taken_over": 6, "taken_over_otherwise": earlier, "cut_short": 2}  # fmt: skip
    records = [a_dataset("details", folder=name, metrics=metrics) for name in ("a/b", "c/b", "d/b")]
    records[1] |= {"environment": {"python": "3.12"}}
    card = model_cards.render_repo_card(records)
    assert "- `a/b`, `d/b`: seed 3; " in card
    assert "; python 3.12.\n" in card
    assert "| 75.0 | 62.5 |" in card
    assert "| 4, unequal |" in card
    assert "6 samples are from an earlier evaluation" in card
    assert "They were made otherwise than the others: dtype float32, versions torch 2.0." in card
    assert "their answers graded afresh" in card
    assert "2 samples were ended by a server's own limit" in card


def test_details_of_programs_say_what_ran_them_and_that_verdicts_are_kept() -> None:
    harness = {"grader": "unit_tests", "sandbox": 1, "protection": "partial", "numpy": "none"}
    metrics = {"avg": 0.5, "benchmark": "b", "k": 4, "taken_over": 6, "harness": harness}
    card = model_cards.render_repo_card([a_dataset("details", folder="a/b", metrics=metrics)])
    assert "unit_tests, sandbox 1 (partial protection, numpy none)" in card
    assert "afresh" not in card and "with the verdicts that their programs had got then" in card


def test_nothing_of_the_machine_in_a_card() -> None:
    config = {"source": "/home/me/model", "path": "./x.jsonl", "url": "https://hub.internal/v1", "home": ["~/x"],
              "windows": "file:///c", "system_prompt": "/no_think", "template": "a/b {problem}"}  # fmt: skip
    local = an_input("source", "external", "") | {"repo_id": None, "repo_type": None, "revision": None}
    card = model_cards.render(a_record(stage="base", config=config | {"type": "import"}, inputs=[local]))
    for secret in ("/home/me", "x.jsonl", "hub.internal", "~/x", "file:"):
        assert secret not in card
    assert "system_prompt: /no_think\n" in card
    assert "a/b {problem}" in card
    assert "a local source" in card
    assert "http" not in card


def test_refusals() -> None:
    with pytest.raises(ArtifactError, match="at least one"):
        model_cards.render_repo_card([])
    with pytest.raises(ArtifactError, match="one repository"):
        model_cards.render_repo_card([a_dataset(), a_dataset(repo_id="local/other")])
    with pytest.raises(ArtifactError, match="kind"):
        model_cards.render(a_dataset("nonsense"))
    with pytest.raises(ArtifactError, match="front matter"):
        model_cards.validate("---\na: [\n---\n", "model")
