"""Selection by racing: the race on made-up candidates, the stage on tiny ones, and what a plan makes of it."""

import json
import random

import pytest
from tiny import context, folder_digest, save_policy

from erpd_hub import config as c
from erpd_hub.checkpoint_role import role_of
from erpd_hub.errors import ArtifactError, ConfigError, StageError
from erpd_hub.evaluation.leaderboard import leaderboard_row
from erpd_hub.model_cards import render
from erpd_hub.plan import make_plan
from erpd_hub.planning.draws import draw_of
from erpd_hub.recipe import build_recipe
from erpd_hub.samples import read_rows, sample_seed
from erpd_hub.selection import Drawn, Rules, race
from erpd_hub.stages import select
from erpd_hub.summary import Checkpoint, headline, selection_benchmarks

# ------------------------------------------------------------------------------------------- the race


def _drawing(chances, *, problems=20, seed=0, tokens=10):
    """Candidates that are right with these chances; a sample depends on its place alone."""
    asked = []

    def draw(index, k_from, k_to):
        asked.append((index, k_from, k_to))
        labels = {
            str(p): [
                int(random.Random(f"{seed} {index} {p} {k}").random() < chances[index]) for k in range(k_from, k_to)
            ]
            for p in range(problems)
        }
        return Drawn(labels, tokens * problems * (k_to - k_from))

    return draw, asked


def test_the_number_of_samples_doubles_up_to_the_most():
    assert Rules(4, 32, 0.05).schedule == (4, 8, 16, 32)
    assert Rules(4, 20, 0.05).schedule == (4, 8, 16, 20)
    assert Rules(4, 4, 0.05).schedule == (4,)


def test_a_clear_winner_ends_the_race_after_the_first_look():
    draw, asked = _drawing([0.1, 0.95, 0.2])
    found = race(3, draw, Rules(4, 32, 0.05))
    assert (found.winner, found.stopped, found.tried) == (1, "one candidate is left", 3)
    assert asked == [(0, 0, 4), (1, 0, 4), (2, 0, 4)]
    assert found.tokens == 3 * 4 * 20 * 10
    (look,) = found.looks
    assert look["level"] == pytest.approx(0.05 / (4 * 2))
    assert [row["stays"] for row in look["candidates"]] == [False, True, False]


def test_only_survivors_get_more_samples_and_none_twice():
    draw, asked = _drawing([0.05, 0.6, 0.6])
    found = race(3, draw, Rules(2, 8, 0.05))
    assert found.stopped == "k_max is reached"
    assert found.winner in (1, 2)
    assert asked == [(0, 0, 2), (1, 0, 2), (2, 0, 2), (1, 2, 4), (2, 2, 4), (1, 4, 8), (2, 4, 8)]
    assert [look["k"] for look in found.looks] == [2, 4, 8]


def test_the_budget_ends_the_race_before_it_is_exceeded():
    draw, _ = _drawing([0.5, 0.5])
    first = 2 * 4 * 20 * 10
    assert race(2, draw, Rules(4, 64, 0.05, token_budget=2 * first - 1)).tokens == first
    found = race(2, draw, Rules(4, 64, 0.05, token_budget=2 * first))
    assert (found.tokens, found.stopped) == (2 * first, "the token budget is used")


def test_patience_stops_when_performance_has_begun_to_degrade():
    draw, asked = _drawing([0.2, 0.5, 0.9, 0.5, 0.4, 1.0], problems=60)
    found = race(6, draw, Rules(4, 4, 0.05, patience=2))
    assert found.tried == 5
    assert [index for index, *_ in asked] == [0, 1, 2, 3, 4]
    assert found.winner == 2
    assert race(6, draw, Rules(4, 4, 0.05)).winner == 5


def test_of_equals_the_earliest_wins():
    draw, _ = _drawing([1.0, 1.0, 1.0])
    assert race(3, draw, Rules(1, 2, 0.05)).winner == 0


def test_a_benchmark_that_cannot_be_graded_is_an_error():
    with pytest.raises(StageError, match="expected graded samples, got none"):
        race(2, lambda *_: Drawn({"a": [None]}, 1), Rules(1, 1, 0.05))


def test_the_best_candidate_rarely_leaves_however_often_one_looks():
    """The chance is bounded by alpha over all looks and rivals: 120 races of six nearly equal candidates."""
    lost = 0
    for seed in range(120):
        draw, _ = _drawing([0.5, 0.5, 0.52, 0.5, 0.5, 0.5], problems=12, seed=seed)
        looks = race(6, draw, Rules(2, 8, 0.1)).looks
        lost += any(row["candidate"] == 2 and not row["stays"] for look in looks for row in look["candidates"])
    assert lost / 120 <= 0.1


# ------------------------------------------------------------------------------------------- the stage

SETTINGS = {"candidates": ("a", "b"), "benchmark": "addition-1digit", "limit": 3, "k_start": 1, "k_max": 2,
            "final_k": 2, "decoding": {"max_new_tokens": 4},
            "engine": {"dtype": "float32", "batch_tokens": 64}}  # fmt: skip


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoints")
    return tuple(save_policy(folder / name, seed) for name, seed in (("a", 0), ("b", 1)))


def _select(folder, checkpoints, **changes):
    config = c.SelectConfig(**SETTINGS | changes)
    return select.run(config, folder / "out", context=context(folder), candidates=checkpoints)


@pytest.fixture(scope="module")
def selected(tmp_path_factory, checkpoints):
    folder = tmp_path_factory.mktemp("selected")
    return folder / "out", _select(folder, checkpoints).metrics


def test_the_winner_is_copied_with_the_record_of_its_race(selected, checkpoints):
    out, metrics = selected
    weights = folder_digest(checkpoints[metrics["winner"]])
    there = folder_digest(out)
    assert weights.items() <= there.items()
    report = json.loads((out / "selection.json").read_text())
    assert report["format"] == "erpd-hub/selection/v1"
    assert [look["k"] for look in report["looks"]] == [1, 2]
    assert (report["among"], report["tried"], metrics["chosen"]) == (2, 2, "a")
    assert (metrics["role"], metrics["winner_step"]) == ("base", None)


def test_every_sample_is_kept_and_only_fresh_ones_count(selected):
    out, metrics = selected
    final = list(read_rows(out / "samples" / "final"))
    raced = [row for look in ("k-0-to-0", "k-1-to-1") for row in read_rows(out / "samples" / "candidate-0" / look)]
    assert [len(raced), len(final)] == [6, 6]
    assert {row["k"] for row in raced} == {0, 1}
    assert all(row["seed"] == sample_seed(0, "addition-1digit", row["problem_id"], row["k"]) for row in raced)
    assert not {row["seed"] for row in final} & {row["seed"] for row in raced}
    assert metrics["avg"] == sum(row["label"] for row in final) / 6
    assert (metrics["k"], metrics["n"]) == (2, 3)
    assert metrics["response_tokens"] == metrics["race_tokens"] + sum(len(row["response_ids"]) for row in final)


def test_a_race_that_was_killed_ends_in_the_same_bytes(selected, tmp_path, checkpoints, monkeypatch):
    from erpd_hub.sampling import sampler

    write, calls = sampler.write_rows, 0

    def killed(*arguments):
        nonlocal calls
        calls += 1
        if calls in (3, 6):
            raise KeyboardInterrupt
        write(*arguments)

    monkeypatch.setattr(sampler, "write_rows", killed)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            _select(tmp_path, checkpoints)
    again = _select(tmp_path, checkpoints)
    assert folder_digest(tmp_path / "out") == folder_digest(selected[0])
    assert again.metrics == selected[1]
    drawn = calls
    _select(tmp_path, checkpoints)
    assert calls == drawn, "what is there is not drawn again"


def test_a_candidate_without_weights_is_refused(tmp_path, checkpoints):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ArtifactError, match="got no weights in empty"):
        _select(tmp_path, (checkpoints[0], tmp_path / "empty"))


# -------------------------------------------------------------------------------------- plan and card

STEPS = {
    "base": {"type": "tiny"},
    "prompts": {"type": "generator", "generator": "addition", "decontaminate": []},
    "rollouts": {"stage": "rollout", "prompts": "prompts"},
    "teacher": {"rollouts": "rollouts", "loss": {"type": "ce"}, "steps": 10, "save_steps": [5, 8]},
}


def _plan(**select):
    step = {"benchmark": "addition", **select}
    return make_plan(build_recipe({"run": "t", "steps": {**STEPS, "select": step}}, "test"))


def test_a_training_by_itself_stands_for_all_steps_it_keeps():
    plan = _plan(candidates="teacher")
    node = plan.node("r1/select")
    assert node.config.candidates == ("teacher@step-5", "teacher@step-8", "teacher@step-10")
    assert [(e.role, e.saved_step) for e in node.inputs] == [
        ("candidates:0", 5),
        ("candidates:1", 8),
        ("candidates:2", 10),
    ]
    assert plan.node("r1/teacher").pushed_steps == (5, 8, 10)
    assert (node.config.final_k, node.config.decoding.max_new_tokens) == (8, 64)
    picked = {"stage": "unlearned", "candidates": "teacher"}
    plan = make_plan(build_recipe({"run": "t", "steps": {**STEPS, "unlearned": picked}}, "test"))
    assert plan.node("r1/unlearned").config.candidates == node.config.candidates, "as a picker's"
    assert _plan(candidates=["teacher@step-5", "base"]).node("r1/select").inputs[1].source == "r1/base"


@pytest.mark.parametrize(
    ("select", "message"),
    [
        ({"candidates": "base"}, "expected at least two checkpoints, or a training with save_steps, got base"),
        ({"candidates": ["base", "base"]}, "candidates: expected each once"),
        ({"candidates": "teacher", "k_start": 8, "k_max": 4}, "k_max: expected at least k_start 8, got 4"),
        ({"candidates": "teacher@step-6"}, "expected at least two"),
        ({"candidates": "teacher", "engine": {"type": "server", "urls": ["http://a/v1"]}}, "got server"),
        ({"candidates": ["teacher@step-6", "base"]}, "teacher saves 5, 8, 10"),
    ],
)
def test_what_cannot_be_raced_is_refused(select, message):
    with pytest.raises(ConfigError, match=message):
        _plan(**select)


def test_the_order_of_candidates_is_part_of_what_goes_in():
    one, other = (
        _plan(candidates=names).node("r1/select").inputs for names in (["teacher", "base"], ["base", "teacher"])
    )
    assert {(e.role, e.source) for e in one} != {(e.role, e.source) for e in other}


def test_the_bill_expects_half_of_the_candidates_to_leave_at_each_look():
    plan = _plan(candidates="teacher", k_start=4, k_max=16, final_k=8, limit=10)
    draw = draw_of(plan, plan.node("r1/select"))
    assert (draw.samples, draw.most) == (10 * (3 * 4 * 2 + 8), 10 * (3 * 16 + 8))


def test_a_selected_checkpoint_says_among_how_many_it_was_chosen(finished_record, tmp_path, selected):
    _, metrics = selected
    record = finished_record(tmp_path, {"model.safetensors": b"x"}).model_copy(
        update={"stage": "select", "kind": "checkpoint", "repo_type": "model", "metrics": metrics,
                "config": {"benchmark": "addition-1digit"}, "code": {"version": "1", "git_commit": "", "dirty": False}}
    )  # fmt: skip
    card = render(record.model_dump(mode="json", by_alias=True))
    assert "the winner among 2 candidates (2 were tried)" in card
    assert "| 1 | `a` |" in card
    assert role_of(record) == "base"
    student = record.model_copy(update={"metrics": {**metrics, "role": "student"}})
    assert role_of(student) == "student"


# ------------------------------------------------------------------------------------------ the mark


def _row(benchmark, avg, *, selection, ref="student", coverage=1.0):
    given = dict.fromkeys(Checkpoint._fields)
    return Checkpoint(**given | {"ref": ref, "role": ref, "benchmark": benchmark, "avg": avg, "stderr": 0.03,
                                 "selection": selection, "digest": ref, "coverage": coverage, "equal_k": True,
                                 })  # fmt: skip


def test_the_mean_leaves_out_what_decided_something():
    rows = [_row("a", 0.9, selection=True), _row("b", 0.5, selection=False),
            _row("c", 0.3, selection=False, coverage=0.9)]  # fmt: skip
    (mean,) = headline(rows)
    assert mean["incomplete"] == ["c"]
    assert (mean["avg"], mean["benchmarks"], mean["left_out"]) == (0.4, ["b", "c"], ["a"])
    assert mean["stderr"] == pytest.approx((2 * 0.03**2) ** 0.5 / 2)
    assert selection_benchmarks(_plan(candidates="teacher")) == {"addition"}


def test_a_leaderboard_row_carries_the_mark():
    assert leaderboard_row({"selection": True}, [], {})["selection"] is True
