"""The paper's experiments as data, and the shipped recipes that measure them."""

from functools import cache
from itertools import combinations

import pytest
from conftest import cli

from erpd_hub import config as c
from erpd_hub.comparing.claims import RECORDED
from erpd_hub.comparing.paper import SELECTION_BENCHMARK, Row, experiments, get_experiment, recipe_of, recipes_of
from erpd_hub.comparing.paper_rows import of_rows, paper_rows, print_paper_rows
from erpd_hub.comparing.reproduce import PROBED
from erpd_hub.errors import ConfigError
from erpd_hub.nodes import Edge, Node, Plan
from erpd_hub.plan import make_plan
from erpd_hub.planning.bill import base_facts
from erpd_hub.recipe import load_recipe
from erpd_hub.recipe_files import shipped_recipes
from erpd_hub.summary import reference_of

RECORDERS = {
    "explained_variance": {"teacher", "critic", "score"},
    "mean_squared_error": {"score"},
    "gap": {"score"},
    "low_tail": {"signal", "critic"},
    "credit": {"signal"},
}
"""The stages whose records have such a metric; not every teacher sees the wrong responses that a gap needs."""
PUBLISHED = {"nemotron-4b": 4.5, "acereason-7b": 7.6, "justrl-1.5b": 1.5}
"""Billions of parameters of Minitron-4B-Width, Qwen2.5-Math-7B and Qwen2.5-Math-1.5B."""
LONG = [("cross-section", "+long-shallow"), ("cross-rounds", "+long"), ("table10", "+long-shallow")]
"""Twins that are measured on a thousand tokens too."""
OVERLAYS = sorted({name for item in experiments().values() for name in item.models.values() if "+" in name})


@cache
def plan_of(recipe: str) -> Plan:
    return make_plan(load_recipe(recipe))


@cache
def measured(recipe: str) -> tuple[set[tuple[str, str]], set[str]]:
    """Checkpoint and benchmark of every evaluation, and the checkpoints that are probed."""
    plan = plan_of(recipe)
    evaluated = {
        (reference_of(plan, node), node.config.benchmarks[0])
        for node in plan.nodes
        if isinstance(node.config, c.EvaluateConfig)
    }
    return evaluated, {reference_of(plan, n) for n in plan.nodes if isinstance(n.config, c.ProbeConfig)}


def test_every_table_and_figure_with_numbers_is_there() -> None:
    tables = {f"table{number}" for number in range(1, 13)}
    figures = {"fig2b", "fig4", "fig5", "fig6", "fig7", "fig8", "fig9", "fig10"}
    ours = {"table1-others", "table7-picker", "table11-code", "fig5-settings", "fig5-shortcut", "fig10-credit"}
    cross = {"cross-section", "cross-rounds"}
    assert set(experiments()) == tables | figures | ours | cross
    assert list(experiments())[:3] == ["table1", "table1-others", "table2"]


@pytest.mark.parametrize("name", experiments())
def test_every_row_is_measured_by_its_recipe(name: str) -> None:
    item = get_experiment(name)
    assert set(item.rows) <= set(item.models)
    for model, rows in item.rows.items():
        evaluated, probed = measured(item.models[model])
        for label, row in rows.items():
            assert len(row.reported) == len(item.columns), label
            needed = [column for column, value in zip(item.columns, row.reported, strict=True) if value is not None]
            for ref in row.ref:
                for column in needed:
                    found = ref in probed if column in PROBED else (ref, column) in evaluated
                    assert found or (ref == "base" and column in PROBED), f"{model} {label}: {ref} {column}"


def test_a_row_that_stands_in_several_tables_is_measured_by_the_same_checkpoints() -> None:
    """Two measured numbers beside one reported would contradict each other; rows of three equal scores are one row."""
    rows = [
        (model.partition(" ")[0], name, label, row)
        for name, item in experiments().items()
        for model, found in item.rows.items()
        for label, row in found.items()
    ]

    def scores(name: str, row: Row) -> dict[str, float | None]:
        columns = zip(get_experiment(name).columns, row.reported, strict=True)
        return {column: value for column, value in columns if column not in PROBED}

    def checkpoints(row: Row) -> set[str]:
        return {ref.removeprefix("r1/") for ref in row.ref}

    same = 0
    for (model, name, label, row), (other_model, other_name, other_label, other) in combinations(rows, 2):
        ours, theirs = scores(name, row), scores(other_name, other)
        shared = ours.keys() & theirs.keys()
        if model == other_model and len(shared) > 2 and all(ours[column] == theirs[column] for column in shared):
            assert checkpoints(row) == checkpoints(other), f"{model}: {name} {label}, {other_name} {other_label}"
            same += 1
    assert same > 20
    offline = get_experiment("fig8").rows["NBG4-3B"]["Offline-1"]
    assert checkpoints(offline) == checkpoints(get_experiment("table1").rows["NBG4-3B"]["SAPO+Distillation"])


@pytest.mark.parametrize("name", experiments())
def test_every_row_has_a_counterpart_that_the_twin_evaluates(name: str) -> None:
    item = get_experiment(name)
    assert {row.tiny for rows in item.rows.values() for row in rows.values()} <= {
        ref for ref, _ in measured(item.tiny)[0]
    }


@pytest.mark.parametrize("name", [name for name, item in experiments().items() if item.rows])
def test_a_row_alone_is_its_checkpoints_and_what_they_need(name: str) -> None:
    item = get_experiment(name)
    twins: dict[str, set[str]] = {}
    for model, rows in item.rows.items():
        whole = plan_of(item.models[model])
        for label, row in rows.items():
            part = of_rows(whole, item, model, [label])
            made = [node.name for node in part.nodes]
            measuring = [n for n in part.nodes if isinstance(n.config, c.EvaluateConfig | c.ProbeConfig)]
            assert {reference_of(part, node) for node in measuring} == set(row.ref), f"{model} {label}"
            assert all(edge.source in made[:at] for at, n in enumerate(part.nodes) for edge in edges_within(n))
            used = {edge.source for n in part.nodes for edge in edges_within(n)}
            assert set(made) == used | {node.name for node in measuring}, "nothing that no other needs"
            twins.setdefault(label, set()).add(row.tiny)
    for label, refs in twins.items():
        part = of_rows(plan_of(item.tiny), item, "tiny", [label])
        measuring = [n for n in part.nodes if isinstance(n.config, c.EvaluateConfig)]
        assert {reference_of(part, node) for node in measuring} == refs


def edges_within(node: Node) -> list[Edge]:
    return [edge for edge in node.inputs if isinstance(edge.source, str)]


def test_rows_that_are_not_there_are_refused_with_those_that_are() -> None:
    with pytest.raises(ConfigError, match=r"--row: expected a row of the paper \(Base, PPO, .*got 'CE\+Distil'.*CE\+D"):
        of_rows(plan_of("table1"), get_experiment("table1"), "Qwen3-4B", ["Base", "CE+Distil"])
    with pytest.raises(
        ConfigError, match="expected none, since the paper gives no rows of it, got 'Base'; leave --row out"
    ):
        of_rows(plan_of("tiny-race"), get_experiment("fig4"), "tiny", ["Base"])
    with pytest.raises(ConfigError, match="--row: 'Distill, step 32' is a row of --model 'NBG4-3B distillation'"):
        of_rows(plan_of("table3-online+nbg4-3b"), get_experiment("table4"), "NBG4-3B", ["Distill, step 32"])
    both = of_rows(plan_of("table1"), get_experiment("table1"), "Qwen3-4B", ["Base", "CE+Distillation"])
    assert {"r1/evaluate/base/aime_2024", "r1/evaluate/ce-student/aime_2024"} <= {node.name for node in both.nodes}


def test_a_row_brings_its_judge_and_its_probe_along() -> None:
    judge = "{model: m, url: 'http://localhost:1/v1'}"
    rounds = [f"r{number}/evaluate.judge={judge}" for number in (1, 2, 3)]
    whole = make_plan(load_recipe("table11-rounds", rounds))
    part = of_rows(whole, get_experiment("table11"), "Qwen3.5-9B", ["CE"])
    kinds = {type(node.config).__name__ for node in part.nodes}
    assert {"EvaluateConfig", "JudgeConfig"} <= kinds
    with pytest.raises(ConfigError, match=r"evaluate is a step of rounds; say of which: r1/evaluate, r2/evaluate"):
        load_recipe("table11-rounds", [f"evaluate.judge={judge}"])
    probed = of_rows(plan_of("table1"), get_experiment("table1"), "Qwen3-4B", ["CE+Distillation"])
    assert "r1/probe/ce-student" in {node.name for node in probed.nodes}


def test_fig5s_recipe_has_every_checkpoint_that_its_claims_name() -> None:
    item = get_experiment("fig5")
    plan = plan_of(item.models["Qwen3-4B"])
    evaluated = {ref for ref, benchmark in measured(item.models["Qwen3-4B"])[0] if benchmark == SELECTION_BENCHMARK}
    steps = {node.name.removeprefix("r1/"): node.config for node in plan.nodes}
    sides = {side for claim in item.claims for side in (claim.more, claim.less) if isinstance(side, str)}
    assert sides <= evaluated | steps.keys()
    assert {f"mse@step-{step}" for step in steps["mse"].save_steps} | {"mse"} <= evaluated
    assert (steps["critic"].stage, steps["critic"].steps) == ("critic", steps["mse"].steps)


def test_the_bill_says_which_row_is_which_step_and_how_to_ask_for_the_other_models(capsys) -> None:
    found = paper_rows("table4", "NBG4-3B distillation")
    distilled = {row["row"]: (row["reported"], row["ref"], row["tiny"]) for row in found["rows"]}
    assert distilled["Distill, step 32"] == ([73.3], ["sapo-120-student"], "r1/round-student")
    assert {row["model"] for row in paper_rows("table4", "tiny")["rows"]} == {"NBG4-3B", "NBG4-3B distillation"}
    print_paper_rows(paper_rows("table4", "NBG4-3B"))
    shown = " ".join(capsys.readouterr().out.split())
    assert "NBG4-3B On-policy, step 50 67.2 r1/online-1@step-50 r1/online-1@step-16" in shown
    assert "note: the twin's teacher is CE where the paper has SAPO [I]; its rows are the saved steps" in shown
    assert "table5-kl+nbg4-3b: erpd-hub reproduce table4 --model 'NBG4-3B distillation'" in shown
    print_paper_rows(paper_rows("table4", "NBG4-3B distillation", ["Distill, step 32"]))
    assert "reproduce" not in capsys.readouterr().out, "the other model has no such row"


@pytest.mark.parametrize(("name", "overlay"), [*((name, "") for name in experiments()), *LONG])
def test_every_claim_is_measured_by_the_twin(name: str, overlay: str) -> None:
    item = get_experiment(name)
    assert item.claims
    twin = f"{item.tiny}{overlay}"
    evaluated, probed = measured(twin)
    checkpoints = {ref for ref, _ in evaluated}
    stages = {node.name.removeprefix("r1/"): node.config.stage for node in plan_of(twin).nodes}
    for claim in item.claims:
        sides = {side for side in (claim.more, claim.less) if isinstance(side, str)}
        if claim.metric in RECORDED:
            assert {stages.get(side) for side in sides} <= RECORDERS[claim.metric], claim.says
        else:
            assert sides <= checkpoints, claim.says
        if claim.metric in ("kl_to_base", "entropy"):
            assert sides <= probed, claim.says


def test_every_twin_has_a_control_and_the_rounds_of_its_table() -> None:
    for name, item in experiments().items():
        of_paper = [claim for claim in item.claims if not claim.says.startswith("ours: ")]
        assert not of_paper or any(claim.says.startswith("control: ") for claim in of_paper), name
    for name in ("table2", "table6", "table11"):
        item = get_experiment(name)
        named = {side for claim in item.claims for side in (claim.more, claim.less) if claim.metric == "avg"}
        assert {"r1", "r3"} <= {str(side).partition("/")[0] for side in named}, name
    rounds = load_recipe("tiny-weak-rounds").rounds
    strategies = [one.strategy for r in rounds for one in r.steps.values() if isinstance(one, c.SignalConfig)]
    assert strategies == [2, 2, 2]
    rounds = load_recipe("tiny-entropy").rounds
    weights = [(r.steps["round-student"].entropy_weight, r.steps["bonus-student"].entropy_weight) for r in rounds]
    assert weights == [(0.0, 0.1)] * 3


@pytest.mark.parametrize("overlay", ["", "+long"])
def test_the_online_phase_has_the_tokens_of_the_offline_round(overlay: str) -> None:
    """Table 4's claim: responses sampled, scored or trained on, which have the same mean length on both sides."""
    steps = load_recipe(f"tiny-online{overlay}").rounds[0].steps
    rollouts, teacher, student, online = (steps[name] for name in ("rollouts", "ce", "round-student", "online-1"))
    drawn = steps["prompts"].count * rollouts.k
    scored = 2 * drawn  # teacher and policy
    trained = rollouts.k * sum(one.steps * one.prompts_per_step for one in (teacher, student))
    assert drawn + scored + trained == 2 * online.steps * online.prompts_per_step * online.k


def test_the_selection_benchmark_selects_in_the_recipes_too() -> None:
    select = [node.config for node in plan_of("table1").nodes if isinstance(node.config, c.SelectConfig)]
    assert {item.benchmark for item in select} == {SELECTION_BENCHMARK}


def test_an_experiment_that_is_asked_for_as_a_recipe_is_told_its_recipes(tmp_path) -> None:
    said = cli("plan", "table3", home=tmp_path, expect=2).stderr
    assert said.endswith("or a .yaml file; table3 is an experiment: its recipes are table3-online, tiny-online\n")
    assert "fig10 is an experiment: its recipes are table12-masks, tiny-masks" in recipes_of("fig10+nbg4-3b")
    assert recipes_of("tabel") == ""


def test_models_and_twins_by_name() -> None:
    assert recipe_of("table1", None, tiny=False) == ("Qwen3-4B", "table1")
    assert recipe_of("table1", "nbg4-3b", tiny=False) == ("NBG4-3B", "table1+nbg4-3b")
    assert recipe_of("table1", None, tiny=True) == ("tiny", "tiny-race")
    assert recipe_of("table1", "./micro.yaml", tiny=True)[1] == "tiny-race+./micro.yaml"
    with pytest.raises(ConfigError, match=r"--model: expected one of Qwen3-4B, NBG4-3B, got 'Qwen3-5B'; did you mean"):
        recipe_of("table1", "Qwen3-5B", tiny=False)
    with pytest.raises(
        ConfigError, match="--model nbg4-3b: the twin is one for all models; leave it out beside --tiny"
    ):
        recipe_of("table1", "nbg4-3b", tiny=True)
    with pytest.raises(ConfigError, match="cross-rounds: is ours and has a twin only; add --tiny"):
        recipe_of("cross-rounds", None, tiny=False)
    with pytest.raises(ConfigError, match=r"expected one of the paper's experiments .*did you mean 'table12'"):
        get_experiment("tabel12")


# ------------------------------------------------------------------------------------------- recipes


def _source(plan: Plan, edge: Edge) -> object:
    """Where an input comes from; log-probs by what they are of, since their own names differ between recipes."""
    if not isinstance(edge.source, str):
        return str(edge.source)
    node = plan.node(edge.source)
    if isinstance(node.config, c.ScoreConfig):
        return sorted((e.role, str(_source(plan, e)), e.saved_step) for e in node.inputs)
    return node.repo_id, node.folder


def _meaning(plan: Plan, node: Node) -> tuple[object, ...]:
    inputs = sorted((edge.role, str(_source(plan, edge)), edge.saved_step or 0) for edge in node.inputs)
    return node.config.stage, sorted(map(str, node.identity.items())), node.seed, inputs


def test_recipes_of_one_run_mean_the_same_by_the_same_name() -> None:
    """What they have in common is then made once, and nothing overwrites anything."""
    seen: dict[tuple[str, str], tuple[str, object]] = {}
    for name in [*sorted(shipped_recipes()), *OVERLAYS]:
        plan = plan_of(name)
        for node in plan.nodes:
            found = _meaning(plan, node)
            other, before = seen.setdefault((node.repo_id, node.folder), (name, found))
            assert found == before, f"{node.repo_id} {node.folder}: {other} and {name}"


def test_the_race_has_the_papers_settings() -> None:
    steps = load_recipe("table1").rounds[0].steps
    assert (steps["rollouts"].k, steps["prompts"].count, steps["rollouts"].decoding.temperature) == (16, 1000, 0.6)
    assert (steps["grpo"].loss.clip_low, steps["grpo"].loss.clip_high) == (0.2, 0.28)
    assert (steps["sapo"].loss.tau_positive, steps["sapo"].loss.tau_negative) == (1.0, 1.05)
    assert {steps[name].learning_rate for name in ("ce", "mse", "ppo", "ce-student")} == {1e-6}
    assert steps["mse-70-10-negative"].keep_on_right == "negative"
    rounds = load_recipe("table2-rounds").rounds
    assert [round_.steps["student"].steps for round_ in rounds] == [10] * 6
    strategies = [round_.steps[str(round_.steps["student"].signal)].strategy for round_ in rounds]
    assert strategies == [1, 1, 1, 3, 2, 2]


def test_online_training_starts_from_the_rounds_of_table_2_in_any_namespace() -> None:
    plan = make_plan(load_recipe("table3-online", ["namespace=you"]))
    assert all(node.repo_id.startswith("you/") for node in plan.nodes)
    sources = {str(edge.source) for node in plan.nodes for edge in node.inputs}
    assert not any(source.startswith("local/") for source in sources)
    rounds, shared = (load_recipe(name).rounds for name in ("table3-online", "table2-rounds"))
    for ours, theirs in zip(rounds[:4], shared, strict=False):
        assert {"student", "rollouts"} <= ours.steps.keys() and ours.policy == theirs.policy
        shared_steps = ours.steps.keys() & theirs.steps.keys() - {"evaluate", "probe", "online"}
        assert all(ours.steps[name] == theirs.steps[name] for name in shared_steps)
    assert (rounds[0].steps["online"].steps, rounds[4].steps["late"].steps) == (50, 60)
    assert "rollouts" not in rounds[4].steps, "an online phase samples by itself"


def test_every_model_has_a_bill_without_a_hub() -> None:
    shapes = {name: base_facts(plan_of(name)) for item in experiments().values() for name in item.models.values()}
    assert None not in shapes.values()
    billions = {name: round(shapes[f"table10-models+{name}"].params / 1e9, 1) for name in PUBLISHED}
    assert billions == PUBLISHED


def test_an_overlay_changes_the_model_and_nothing_of_the_experiment() -> None:
    plain, other = (load_recipe(name).rounds[0].steps for name in ("table5-kl", "table5-kl+nbg4-3b"))
    assert other["base"].source == "Nanbeige/Nanbeige4-3B-Thinking-2511"
    assert other["evaluate"].decoding.max_new_tokens == 65_536
    assert other["sapo-120-student"] == plain["sapo-120-student"]
    assert load_recipe("table5-kl+nbg4-3b").run == "nbg4-3b"


def test_evaluations_decode_as_the_model_does_by_default() -> None:
    """The paper says no more than temperature, top-p and length; top-k is then the model's own, as in the rollouts."""
    sampling = (c.RolloutConfig, c.OnlineConfig, c.EvaluateConfig, c.SelectConfig)
    kept = {
        name: {node.config.decoding.top_k for node in plan_of(name).nodes if isinstance(node.config, sampling)}
        for name in [*sorted(shipped_recipes()), *OVERLAYS]
    }
    assert {name for name, found in kept.items() if len(found) > 1} == set()
    assert (kept["table1"], kept["table1+nbg4-3b"], kept["table11-rounds"]) == ({20}, {0}, {20})
    for name in ("qwen3.5-9b-code", "table11-rounds", "table11-rounds+qwen3.5-27b"):
        drawn = [node.config for node in plan_of(name).nodes if isinstance(node.config, sampling)]
        penalties = {type(config): config.decoding.presence_penalty for config in drawn}
        assert penalties == {c.RolloutConfig: 0.0, c.EvaluateConfig: 1.5}, "[S] of the reported numbers"


def test_the_means_that_the_paper_prints_are_those_of_its_columns() -> None:
    """Every row with a `mean`: a slip of the pen in a column shows; one printed mean is a tenth off."""
    checked = 0
    for experiment in experiments().values():
        for model, rows in experiment.also.items():
            for label, also in rows.items():
                if "mean" not in also:
                    continue
                values = zip(experiment.columns, experiment.rows[model][label].reported, strict=True)
                scores = [value for column, value in values if value is not None and column not in PROBED]
                tolerance = 0.11 if (model, label) == ("Qwen3.5-27B", "Batch 2") else 0.07
                assert sum(scores) / len(scores) == pytest.approx(also["mean"], abs=tolerance), (model, label)
                checked += 1
    assert checked == 20 + 17 + 9
