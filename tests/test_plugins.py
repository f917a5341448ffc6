import json
import re
import sys

import pytest
from tiny import context, save_policy, write_prompts

from erpd_hub import plugins
from erpd_hub.config import Decoding, PromptFormat, RolloutConfig, TransformersEngine
from erpd_hub.config.data import REWARD_KEYWORDS
from erpd_hub.errors import ConfigError, StageError
from erpd_hub.plan import make_plan
from erpd_hub.prompts import Problem
from erpd_hub.recipe import build_recipe
from erpd_hub.rewards import RewardFunction
from erpd_hub.samples import read_rows
from erpd_hub.sampling.engine import Completion
from erpd_hub.sampling.plan import Draw, Prompt
from erpd_hub.stages import rollout

SOURCE = """
import os, time
raise_at_import = 0
def longest(prompts, completions, completion_ids, answer, **columns):
    print("to stdout, which is not the channel's")
    return [len(ids) > 3 for ids in completion_ids]
def half(completions, **_): return [0.5] * len(completions)
def short(completions, **_): return [1]
def broken(completions, **_): raise KeyError("gold_answer")
def keys(completions, **_): raise ValueError(sorted(name for name in os.environ if os.environ[name] == "secret"))
def names(**columns): raise ValueError(sorted(columns))
def metres(completions, unit, answer, **_): return [(u, a) == ("m", "2") for u, a in zip(unit, answer)]
def nothing(completions, **_): return [None, float("nan")][: len(completions)]
def stalls(completions, **_):
    if any("stall" in text for text in completions): time.sleep(60)
    if any("die" in text for text in completions): os._exit(3)
    return [text == "right" for text in completions]
async def chat(prompts, completions, **_):
    return [p[0]["role"] == "system" and c[0] == {"role": "assistant", "content": "x"}
            for p, c in zip(prompts, completions)]
value = 3
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    """A module in the current folder, which is not on the path."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    plugins.source_hash.cache_clear()
    name = f"own_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(SOURCE)
    yield name
    sys.modules.pop(name, None)
    plugins.source_hash.cache_clear()


def draws(*texts, extra=None):
    prompt = Prompt(Problem("p", "s", "1+1", "2", extra), (1, 2), False)
    return [
        (Draw(prompt, k, k), Completion(list(range(len(text))), None, "stop", text)) for k, text in enumerate(texts)
    ]


def graded(path, *texts, seconds=30.0, format=PromptFormat(chat=False), extra=None):
    function = RewardFunction(path, seconds=seconds)
    try:
        return [(grade.verdict, grade.label) for grade in function.grade(draws(*texts, extra=extra), format)]
    finally:
        function.close()


def test_a_file_is_hashed_without_being_run(module, tmp_path) -> None:
    (tmp_path / "pack").mkdir()
    (tmp_path / "pack" / "__init__.py").write_text("raise SystemExit")
    (tmp_path / "pack" / "part.py").write_text("raise SystemExit")
    assert plugins.source_file("pack.part:f") == tmp_path / "pack" / "part.py"
    assert len(plugins.source_hash("pack.part:f")) == 64
    assert not {"pack", "pack.part"} & set(sys.modules)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("nowhere_at_all.part:f", "expected a module nowhere_at_all, found none"),
        ("json.decoder.deep:f", "expected a package json.decoder"),
        ("sys:exit", "expected a module with a file"),
        ("os.path.join", "expected package.module:function"),
        ("../x:f", "expected package.module:function"),
        ("{module}:missing", "expected missing in"),
        ("{module}:value", "expected a function, got int"),
        ("broken_import:f", "importing broken_import failed: ZeroDivisionError"),
    ],
)
def test_what_cannot_be_loaded_says_why(module, tmp_path, path, message) -> None:
    (tmp_path / "broken_import.py").write_text("1 / 0")
    with pytest.raises(ConfigError, match=message):
        plugins.load(path.format(module=module))


def test_a_file_that_changes_under_a_run_is_refused(module, tmp_path) -> None:
    before = plugins.source_hash(f"{module}:longest")
    (tmp_path / f"{module}.py").write_text(SOURCE + "\n")
    assert plugins.source_hash(f"{module}:longest") == before
    with pytest.raises(ConfigError, match="changed while the run"):
        plugins.load(f"{module}:longest")


def test_a_worker_loads_no_other_code_than_the_run_recorded(module, monkeypatch) -> None:
    monkeypatch.setattr(plugins, "_recorded", {})
    path = f"{module}:longest"
    plugins.expect({path: "0" * 64})
    with pytest.raises(ConfigError, match="or this environment has another one"):
        plugins.load(path)


def test_the_hash_is_part_of_the_identity_and_the_path_of_the_file_is_not(module, tmp_path) -> None:
    def identity():
        plugins.source_hash.cache_clear()
        steps = {
            "base": {"type": "tiny"},
            "prompts": {"type": "generator", "generator": "addition"},
            "rollout": {"prompts": "prompts", "reward": f"{module}:longest"},
            "teacher": {"rollouts": "rollout", "steps": 1, "loss": {"type": "custom", "function": f"{module}:half"}},
        }
        plan = make_plan(build_recipe({"run": "t", "steps": steps}, "t"))
        return [plan.node(f"r1/{step}").identity for step in ("rollout", "teacher", "prompts")]

    sampled, taught, prompts = identity()
    assert sampled["user_code"] == {f"{module}:longest": plugins.source_hash(f"{module}:longest")}
    assert list(taught["user_code"]) == [f"{module}:half"] and "user_code" not in prompts
    assert str(tmp_path) not in json.dumps([sampled, taught])
    (tmp_path / f"{module}.py").write_text(SOURCE + "\n# another\n")
    assert identity()[0]["user_code"] != sampled["user_code"]


@pytest.mark.parametrize("step", ["rollout", "teacher"])
def test_a_function_that_is_not_in_its_module_is_refused_by_the_plan(module, tmp_path, step) -> None:
    own = {"rollout": f"{module}:longest", "teacher": f"{module}:half"} | {step: f"{module}:nosuch"}
    steps = {
        "rollout": {"prompts": "a/b", "policy": "c/d", "reward": own["rollout"]},
        "teacher": {"rollouts": "rollout", "init": "c/d", "steps": 1,
                    "loss": {"type": "custom", "function": own["teacher"]}},
    }  # fmt: skip
    recipe = build_recipe({"run": "t", "steps": steps}, "t")
    with pytest.raises(ConfigError, match=r"nosuch: expected nosuch in own_.*, found none"):
        make_plan(recipe)
    (tmp_path / f"{module}.py").write_text(SOURCE + "\nif value:\n    from json import loads as nosuch\n")
    make_plan(recipe)


def test_math_keeps_the_identity_it_had() -> None:
    assert (
        "reward_seconds"
        not in make_plan(build_recipe({"run": "t", "steps": {"rollout": {"prompts": "a/b", "policy": "c/d"}}}, "t"))
        .node("r1/rollout")
        .identity
    )


def test_other_rewards_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"expected math, unit_tests or package\.module:function"):
        build_recipe({"run": "t", "steps": {"rollout": {"prompts": "a/b", "reward": "maths"}}}, "t")


def test_rewards_are_called_as_trl_calls_them(module) -> None:
    assert graded(f"{module}:longest", "abcd", "abc") == [("correct", 1), ("wrong", 0)]
    assert graded(f"{module}:nothing", "a", "b") == [("ungradable", None)] * 2
    chat = PromptFormat(system_prompt="be brief")
    assert graded(f"{module}:chat", "x", "y", format=chat) == [("correct", 1), ("wrong", 0)]


def test_columns_of_the_users_dataset_are_keywords_beside_ours(module) -> None:
    extra = '{"unit": "m", "answer": "none of ours gives way"}'
    assert graded(f"{module}:metres", "a", "b", extra=extra) == [("correct", 1)] * 2
    with pytest.raises(StageError, match=re.escape(f"ValueError: {sorted([*REWARD_KEYWORDS, 'unit'])}")):
        graded(f"{module}:names", "a", extra='{"unit": "m"}')


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("half", "expected a reward of 0, 1 or None, got 0.5 for sample p#0"),
        ("short", "expected 2 rewards, got 1"),
        ("broken", r"KeyError: 'gold_answer' \(in broken, line"),
    ],
)
def test_a_function_that_is_wrong_stops_the_stage(module, name, message) -> None:
    with pytest.raises(StageError, match=message):
        graded(f"{module}:{name}", "a", "b")


def test_an_answer_that_stalls_or_kills_the_function_is_wrong_and_the_others_are_graded(module) -> None:
    found = graded(f"{module}:stalls", "right", "stall", "wrong", "die", "right", seconds=1.0)
    assert found == [("correct", 1), ("timeout", 0), ("wrong", 0), ("timeout", 0), ("correct", 1)]


def test_a_function_sees_no_key_of_ours(module, monkeypatch) -> None:
    for name in (
        "HF_TOKEN",
        "ERPD_HUB_TOKEN_HUB_EXAMPLE_443",
        "ERPD_SERVER_KEY",
        "ERPD_JUDGE_KEY",
        "MY_API_KEY",
        "MINE",
    ):
        monkeypatch.setenv(name, "secret")
    with pytest.raises(StageError, match=r"ValueError: \['MINE'\]"):
        graded(f"{module}:keys", "a")


def test_a_function_that_never_answers_stops_the_stage(module) -> None:
    with pytest.raises(StageError, match="no answer for 8 samples in a row, the last p#7"):
        graded(f"{module}:stalls", *["die"] * 9, seconds=1.0)


def test_a_function_that_cannot_be_imported_is_refused_before_sampling(module) -> None:
    with pytest.raises(ConfigError, match="expected missing in"):
        RewardFunction(f"{module}:missing", seconds=1.0)


def test_a_rollout_is_graded_by_the_function(module, tmp_path) -> None:
    policy, prompts = save_policy(tmp_path / "policy"), write_prompts(tmp_path / "prompts")
    config = RolloutConfig(
        prompts="p", k=2, limit=2, decoding=Decoding(max_new_tokens=8), reward=f"{module}:longest",
        engine=TransformersEngine(dtype="float32", batch_tokens=96),
    )  # fmt: skip
    result = rollout.run(config, tmp_path / "out", context=context(tmp_path), prompts=prompts, policy=policy)
    rows = list(read_rows(tmp_path / "out"))
    assert [row["label"] for row in rows] == [int(len(row["response_ids"]) > 3) for row in rows]
    assert result.metrics["samples"] == len(rows) == 4
