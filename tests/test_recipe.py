"""Recipes: what is accepted, what is refused, and how the refusal reads."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from erpd_hub import config as c
from erpd_hub.cli.stages import single_step
from erpd_hub.errors import ConfigError
from erpd_hub.fields import identity, roles
from erpd_hub.implicit import with_own_signal
from erpd_hub.plan import make_plan
from erpd_hub.planning.cautions import cautions
from erpd_hub.recipe import load_recipe
from erpd_hub.recipe_files import shipped_recipes
from erpd_hub.references import PathRef, RepoRef, ReservedRef, StepRef, parse_reference

HERE = Path(__file__).parent
TAG = re.compile(r"\[(?:P|S2?|D|I|U)\b")
NUMBER = re.compile(r"[\d.]+(?:e[-+]?\d+)?")
UNTAGGED = ("seed", "strategy", "checkpoint_every", "micro_batch_tokens")
"""Of no evidence: names of a draw and of a preset (Fig. 3), and how a stage runs, which is no part of what it makes."""


@pytest.mark.parametrize("name", sorted(shipped_recipes()))
def test_every_shipped_recipe_parses_and_plans(name):
    plan = make_plan(load_recipe(name))
    assert plan.nodes and not cautions(plan)


def _untagged(text: str) -> Iterator[str]:
    """Numbers of a recipe without an evidence tag on their line, on a key's above them within the step, or in the
    comment right over one of these."""
    lines = text.splitlines()
    seen: set[int] = set()

    def tagged(line: int) -> bool:
        first = line
        while first and lines[first - 1].lstrip().startswith("#"):
            first -= 1
        return any(TAG.search(lines[number]) for number in range(first, line + 1))

    def walk(node: yaml.Node, key: str, keys: tuple[int, ...]) -> Iterator[str]:
        if id(node) in seen:  # an alias
            return
        seen.add(id(node))
        line = node.start_mark.line
        if isinstance(node, yaml.MappingNode):
            for name, value in node.value:
                section = name.value in ("steps", "defaults", "rounds")
                yield from walk(value, name.value, () if section else (*keys, name.start_mark.line))
        elif isinstance(node, yaml.SequenceNode):
            for value in node.value:
                yield from walk(value, key, keys)
        elif NUMBER.fullmatch(node.value) and key not in UNTAGGED and not any(map(tagged, (*keys, line))):
            yield f"line {line + 1}: {key} {node.value}"

    return walk(yaml.compose(text), "", ())


def test_numbers_without_a_tag_are_found() -> None:
    text = "steps:\n  # [P]\n  a: {b: 1,\n    c: 2}\n  d:\n    e: 3  # [S]\n    f: [4]\n  g: {strategy: 1, h: 1e-6}\n"
    assert list(_untagged(text)) == ["line 7: f 4", "line 8: h 1e-6"]


def test_every_number_of_a_recipe_for_gpus_has_its_evidence() -> None:
    engines = {name: load_recipe(name).rounds[0].steps["rollouts"].engine for name in shipped_recipes()}
    on_gpus = [name for name, engine in engines.items() if isinstance(engine, c.VLLMEngine)]
    assert len(on_gpus) > 20
    assert {name: found for name in on_gpus if (found := list(_untagged(shipped_recipes()[name])))} == {}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("teacher.los=3", "steps.teacher.los: unknown key; did you mean 'loss'?"),
        ("teacher.loss.betta=3", "steps.teacher.loss.betta: unknown key; did you mean 'beta'?"),
        ("teacher.loss.type=dpo", "'custom', got 'dpo'"),
        ("teacher.learning_rate=1e-6x", "steps.teacher.learning_rate: expected a number, got '1e-6x'"),
        ("teacher.steps=1.5", "steps.teacher.steps: expected a whole number, got 1.5"),
        ("evaluate.checkpoints=[]", "steps.evaluate.checkpoints: expected at least 1 value, got []"),
        ("signal.strategy=4", "steps.signal.strategy: expected 1, 2, 3 or 'auto', got 4"),
        ("rollouts.max_tokens=9", "rollouts.max_tokens: unknown key; did you mean 'decoding.max_new_tokens'?"),
        ("mse.reference=base", "reference: expected nothing with the mse loss"),
        ("techer.steps=3", "'techer' is neither a key of the recipe nor a step; did you mean 'teacher'?"),
        ("teacher.stage=teachr", "did you mean 'teacher'?"),
        ("teacher.rollouts=a b", "'a b': expected a reference"),
        ("student.old=base", "student: old: expected nothing with a signal, which brings its own, got base"),
        ("student.anchor=base", "student: anchor: expected nothing without an exact KL"),
        ("student.control_learning_rates=[1e-5]", "expected nothing without the control tuned"),
        ("teacher.save_steps=[40]", "save_steps: expected steps up to 32, got 40"),
        ("signal.strategy=3", "strategy 3 expects an earlier, weaker student, got 'policy'"),
        ("student.signal=null", "signal: expected a signal step"),
        ("hub.endpint=x", "hub.endpint: unknown key; did you mean 'endpoint'?"),
        ("teacher.push_steps=no", "expected 'referenced', 'all' or 'none', got 'no'"),
        ("teacher", "expected key=value"),
    ],
)
def test_a_mistake_is_named_with_its_place_and_a_remedy(override, message):
    with pytest.raises(ConfigError) as error:
        load_recipe("quickstart", [override])
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("teacher.rollouts=rolouts", "teacher.rollouts: rolouts: no such step in round 1; did you mean 'rollouts'?"),
        ("teacher.rollouts=prompts", "expected rollouts, got prompts, which makes prompts"),
        ("unlearned.teacher=mse@step-7", "mse saves 12; add it to its save_steps"),
        ("teacher.init=student", "in a circle"),
        ("mse.push_steps=none", "push_steps: none, but step 12 is used"),
        ("evaluate.benchmarks=[additon]", "did you mean 'addition'"),
        ("rollouts.policy=none", "expected a checkpoint, got none"),
    ],
)
def test_a_reference_that_leads_nowhere_is_refused_by_the_plan(override, message):
    with pytest.raises(ConfigError) as error:
        make_plan(load_recipe("quickstart", [override]))
    assert message in str(error.value)


def test_numbers_and_words_mean_what_their_author_meant():
    recipe = load_recipe("quickstart", ["teacher.learning_rate=1e-6", "run=no", "seed=7"])
    teacher = recipe.rounds[0].steps["teacher"]
    assert isinstance(teacher, c.TeacherConfig)
    assert teacher.learning_rate == 1e-6  # PyYAML alone reads the text '1e-6'
    assert recipe.run == "no"  # and False
    assert recipe.seed == 7


def test_no_key_of_another_loss_is_suggested():
    with pytest.raises(ConfigError) as error:
        load_recipe("quickstart", ["teacher.loss={type: ce, clip_low: 0.1}"])
    assert str(error.value) == "quickstart: steps.teacher.loss.clip_low: unknown key"
    with pytest.raises(ConfigError, match=r"loss.clip_low: expected less than or equal to 1, got 2"):
        load_recipe("quickstart", ["teacher.loss={type: cispo, clip_low: 2}"])


def test_files_that_are_not_recipes(tmp_path):
    for content, message in (
        ("a: [", "not valid YAML"),
        ("- 1", "expected a mapping"),
        ("run: x", "'steps' or 'rounds'"),
    ):
        path = tmp_path / "r.yaml"
        path.write_text(content)
        with pytest.raises(ConfigError, match=message):
            load_recipe(str(path))
    with pytest.raises(ConfigError, match="did you mean 'quickstart'"):
        load_recipe("quikstart")
    with pytest.raises(ConfigError, match="No such file"):
        load_recipe(str(tmp_path / "absent.yaml"))
    with pytest.raises(ConfigError, match=r"tiny-lengths\+long-shalow: expected .*; did you mean 'long-shallow'\?"):
        load_recipe("tiny-lengths+long-shalow")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("policy", ReservedRef("policy")),
        ("teacher", StepRef("teacher")),
        ("teacher@step-50", StepRef("teacher", step=50)),
        ("r2/student", StepRef("student", round=2)),
        ("me/model", RepoRef("me/model")),
        ("me/model@fp-0123456789abcdef", RepoRef("me/model", "fp-0123456789abcdef")),
        ("./weights", PathRef("./weights")),
    ],
)
def test_the_reference_grammar(text, expected):
    assert parse_reference(text) == expected
    assert str(expected) == text


@pytest.mark.parametrize("text", ["", "Teacher", "a b", "me/", "teacher@50", "a/b/c"])
def test_what_is_no_reference(text):
    with pytest.raises(ConfigError):
        parse_reference(text)


def test_roles_and_operational_fields_are_no_part_of_the_identity():
    fields = {"rollouts": "rollouts", "steps": 3, "loss": {"type": "ce"}}
    plain = c.TeacherConfig(**fields)
    other = c.TeacherConfig(**fields, init="unlearned", checkpoint_every=1, push_steps="all", seed=4)
    assert identity(plain) == identity(other)
    assert identity(plain) != identity(c.TeacherConfig(**fields | {"steps": 4}))
    assert set(roles(plain)) == {"rollouts", "init", "reference", "old", "critic"}


def test_a_type_that_is_the_default_keeps_what_the_defaults_say(tmp_path):
    steps = {
        "prompts": {"type": "generator", "generator": "addition", "max_digits": 2, "count": 4},
        "base": {"type": "tiny"},
        "rollouts": {"stage": "rollout", "type": "sample", "prompts": "prompts", "engine": {"type": "transformers"}},
        "served": {"stage": "rollout", "prompts": "prompts", "engine": {"type": "server", "urls": ["http://x"]}},
    }
    defaults = {"rollout": {"k": 3, "engine": {"dtype": "float32", "batch_tokens": 19000}}}
    path = tmp_path / "r.yaml"
    path.write_text(json.dumps({"run": "x", "defaults": defaults, "steps": steps}))
    found = load_recipe(str(path)).rounds[0].steps
    assert (found["rollouts"].k, found["rollouts"].engine.batch_tokens) == (3, 19000)
    assert found["served"].engine.type == "server", "another type starts from its own defaults"


def test_an_override_does_not_reach_a_step_that_was_merged_from_it(tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text(
        "run: t\nsteps:\n"
        "  a: &a {stage: teacher, rollouts: x/y, steps: 1, loss: {type: ce, beta: 1}}\n"
        "  b: {<<: *a, steps: 2}\n"
    )
    steps = load_recipe(str(path), ["a.loss.beta=9"]).rounds[0].steps
    assert (steps["a"].loss.beta, steps["b"].loss.beta, steps["b"].steps) == (9, 1, 2)


def test_a_key_that_stands_twice_is_refused(tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text("run: t\nsteps:\n  a: {stage: base, type: tiny}\n  a: {stage: base, type: tiny}\n")
    with pytest.raises(ConfigError, match="the key 'a' stands twice"):
        load_recipe(str(path))


def test_what_a_distillation_uses_is_accepted_and_its_controls_take_it_over() -> None:
    given = ["controls=[tuned,no-teacher]", "control_learning_rates=[1e-5]"]
    given += ["kl_weight=0.1", "kl_estimator=exact", "anchor=base"]
    steps = load_recipe("quickstart", [f"student.{word}" for word in given]).rounds[0].steps
    assert steps["student-tuned-1e-5"].learning_rate == 1e-5
    assert steps["student-no-teacher"].control_learning_rates == (1e-5,)


@pytest.mark.parametrize(("value", "expected"), [("abc", "a whole number"), ("0", "greater than 0")])
def test_a_distillation_without_a_recipe_is_checked_before_its_rollouts_are_looked_up(value, expected) -> None:
    words = ["rollouts=a/b", "numerator=a/c", "save_steps=[2]"]
    with pytest.raises(ConfigError, match=f"^erpd-hub distill: mine.prompts_per_step: expected {expected}, got"):
        with_own_signal(single_step("distill", "mine", [*words, f"prompts_per_step={value}"]), "mine")


@pytest.mark.parametrize("override", ["base.heads=5", "base.min_digits=9", "teacher.learning_rate=.inf"])
def test_impossible_combinations_are_refused_before_anything_runs(override):
    with pytest.raises(ConfigError):
        load_recipe("quickstart", [override])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("teacher.context_parallel=2", r"context_parallel: expected 1, got 2: .*; use parallel: fsdp2"),
        ("teacher.dtype=bfloat16", r"teacher.dtype: expected float32 as in scoring, got bfloat16"),
        ("student.logprob_temperature=0.6", r"student.logprob_temperature: expected 1.0 as in scoring, got 0.6"),
    ],
)
def test_what_cannot_be_trained_is_refused_before_anything_runs(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_plan(load_recipe("quickstart", [override]))


def test_steps_that_would_vanish_beside_rounds_are_refused(tmp_path) -> None:
    assert len(load_recipe("tiny-rounds+long").rounds) == 6, "the steps of what both extend give way"
    refused = r"steps: expected none beside rounds, which it or what it is merged over has; put them into a round, or"
    with pytest.raises(ConfigError, match=rf"long-shallow: {refused}"):
        load_recipe("tiny-rounds+long-shallow")
    for name, text in (
        ("both", "extends: tiny\nsteps: {base: {}}\nrounds: [{steps: {base: {}}}]\n"),
        ("over", "extends: tiny-rounds\nsteps: 5\n"),
    ):
        path = tmp_path / f"{name}.yaml"
        path.write_text(text)
        with pytest.raises(ConfigError, match=rf"{name}.yaml: {refused}"):
            load_recipe(str(path))


def test_defaults_hold_for_a_type_that_only_the_step_says(tmp_path) -> None:
    bare = tmp_path / "bare.yaml"
    bare.write_text(
        "run: bare\ndefaults: {teacher: {loss: {beta: 0.5}, steps: 2}, rollout: {k: 4, engine: {dtype: float32}}}\n"
        "steps:\n  base: {type: tiny}\n  prompts: {type: generator, generator: addition}\n"
        "  rollouts: {stage: rollout, prompts: prompts, engine: {type: vllm}}\n"
        "  teacher: {rollouts: rollouts, loss: {type: ce}}\n"
    )
    steps = load_recipe(str(bare)).rounds[0].steps
    assert steps["teacher"].loss.beta == 0.5
    assert steps["rollouts"].engine.dtype == "auto", "the default's is that of the transformers engine"
    with pytest.raises(ConfigError, match=r"teacher.loss.beta: unknown key"):
        load_recipe(str(bare), ["teacher.loss={type: grpo}"])


def test_a_file_may_have_a_plus_in_its_name(tmp_path) -> None:
    path = tmp_path / "c++.yaml"
    path.write_text("extends: quickstart\nrun: plus\n")
    assert load_recipe(str(path)).run == "plus"


@pytest.mark.parametrize(
    ("text", "override", "said"),
    [
        ("rounds: [{policy: base}]", "r1/teacher.steps=1", "round 1: expected steps, by name, got None"),
        ("rounds: [1]", "teacher.steps=1", "round 1: expected steps, by name, got 1"),
        ("steps: [1]", "teacher.steps=1", r"the recipe: expected steps, by name, got \[1\]"),
    ],
)
def test_an_override_of_what_has_no_steps_is_refused(tmp_path, text: str, override: str, said: str) -> None:
    path = tmp_path / "odd.yaml"
    path.write_text(f"run: odd\n{text}\n")
    with pytest.raises(ConfigError, match=said):
        load_recipe(str(path), [override])


def test_a_recipe_extends_another(tmp_path) -> None:
    parent = tmp_path / "parent.yaml"
    parent.write_text((Path(__file__).parent / "micro.yaml").read_text())
    child = tmp_path / "child.yaml"
    child.write_text(
        "extends: ./parent.yaml\nrun: child\nsteps:\n  control: null\n  student-weak: {learning_rate: 5e-4}\n"
        "  evaluate: {checkpoints: [base]}\n  mse: {loss: {type: ce, beta: 0.5}}\n"
    )
    above, below = (load_recipe(str(path)).rounds[0].steps for path in (parent, child))
    assert above.keys() - below.keys() == {"control"}
    assert below["student-weak"] == above["student-weak"].model_copy(update={"learning_rate": 5e-4})
    assert below["evaluate"].checkpoints == ("base",) and below["evaluate"].k == above["evaluate"].k
    assert below["mse"].loss.beta == 0.5
    assert load_recipe(str(child)).run == "child"
    parent.write_text("extends: ./child.yaml\nrun: x\n")
    with pytest.raises(ConfigError, match=r"extends: expected another recipe, got '\./child\.yaml'"):
        load_recipe(str(child))


def test_a_file_extends_two_shipped_recipes_by_one_name_as_the_command_line_takes_them(tmp_path) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text("extends: table1+nbg4-3b\nrun: mine\n")
    found, merged = load_recipe(str(mine)), load_recipe("table1+nbg4-3b")
    assert found.run == "mine" and found.rounds == merged.rounds


@pytest.mark.parametrize("value", ["[[quickstart]]", "{quickstart: 1}", "[3]"])
def test_what_names_no_recipe_is_not_extended(tmp_path, value: str) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text(f"extends: {value}\nrun: mine\n")
    with pytest.raises(ConfigError, match=r"mine\.yaml: extends: expected another recipe, got"):
        load_recipe(str(mine))
