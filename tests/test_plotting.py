"""Figures: what is drawn is what was recorded, what is missing is named, and cards' pictures are no payload."""

import sys
from math import isfinite
from typing import Any

import numpy as np
import pytest

from erpd_hub.artifacts import InputRecord, LineageRecord, check_payload, read_lineage
from erpd_hub.cli.plot import plot
from erpd_hub.errors import ArtifactError, ConfigError, ErpdError
from erpd_hub.hub.connecting import connect
from erpd_hub.lineage_views import Above
from erpd_hub.model_cards.pictures import DISTANCES, POSITIONS, SCORES, SIGNAL, TRAINING, pictures_in
from erpd_hub.plotting import curves, efficiency, phases, tokens
from erpd_hub.plotting.card_charts import distances, recorded, scores, signal_counts
from erpd_hub.plotting.cards import draw_pictures, repository_pictures, write_card
from erpd_hub.plotting.drawing import Drawn, Skipped
from erpd_hub.plotting.figures import FIGURES, chosen, formats, write_figures
from erpd_hub.plotting.over_seeds import gains, plot_over_seeds
from erpd_hub.plotting.reading import Made, RunData, interval, read_run
from erpd_hub.plotting.style import plain, styled
from erpd_hub.publish import publish_repository_card
from erpd_hub.signal_statistics import SignalBlock, describe_signal

SHA = "0123456789" * 4


def an_input(role: str, digest: str, repo: str = "") -> InputRecord:
    at = {"repo_type": "model", "repo_id": f"me/r-{repo}", "revision": SHA} if repo else {}
    return InputRecord.model_validate({"role": role, "kind": "checkpoint", "digest": digest, **at})


def made(name: str, stage: str, *inputs: InputRecord, digest: str = "", curve: Any = (), **fields: Any) -> Made:
    """An artifact whose record says just this."""
    empty: dict[str, Any] = {"code": {}, "environment": {}, "files": {}, "identity": {}, "seed": 0, "round": 1}
    settings = {"config": {}, "metrics": {}, "saved_step": None, **fields}
    record = LineageRecord(
        stage=stage, stage_version=1, kind="checkpoint", run="r", step=name, repo_type="model", repo_id=f"me/r-{name}",
        inputs=inputs, fingerprint="f" * 64, digest=digest or f"digest of {name}", **empty, **settings,
    )  # fmt: skip
    return Made(name, f"me/r-{name}@{SHA[:10]}", record, tuple(curve))


def a_row(ref: str, role: str, avg: float, kl: float | None, **fields: Any) -> dict[str, Any]:
    name, _, step = ref.partition("@step-")
    return {
        "ref": ref, "role": role, "step": int(step) if step else None, "benchmark": "sums", "avg": avg, "stderr": 0.02,
        "interval": [avg - 0.05, avg + 0.04], "k": 4, "kl_to_base": kl, "kl_stderr": 0.001, "repo": f"me/r-{name}",
        "revision": SHA, "digest": f"digest of {ref}", "selection": False,
    } | fields  # fmt: skip


def a_run(rows: list[dict[str, Any]], *items: Made) -> RunData:
    return RunData("r", 7, "sums", (), tuple(rows), items)


def points(axes: Any, label: str) -> list[tuple[float, float]]:
    """What is drawn under a label: of scores the marks between the bars."""
    for handle, name in zip(*axes.get_legend_handles_labels(), strict=True):
        if name == label:
            line = handle[0] if isinstance(handle, tuple) else handle
            return [(float(x), float(y)) for x, y in zip(*line.get_data(), strict=True)]
    raise AssertionError(f"{label} is not in the legend")


BASE = a_row("base", "base", 0.4, 0.0)
CURVE = [
    {"step": step, "logprob_positive": -0.1 * step, "logprob_negative": -0.2 * step, "entropy": 1 / step, "loss": 0.5,
     "probability_positive": 0.9, "probability_negative": 0.3, "explained_variance": 0.1 * step}
    for step in (1, 2, 3)
]  # fmt: skip


def test_a_curve_stands_at_the_steps_that_had_been_taken_and_a_score_has_its_interval() -> None:
    teacher = made("ce", "teacher", config={"loss": {"type": "ce"}}, curve=CURVE)
    unscored = made("grpo", "teacher", config={"loss": {"type": "grpo"}}, curve=CURVE)
    rows = [BASE, a_row("ce@step-3", "teacher", 0.7, 0.02), a_row("ce@step-1", "teacher", 0.5, 0.01)]
    with styled():
        found = curves.teachers(a_run(rows, teacher, unscored))
    assert isinstance(found, Drawn)
    score, logprobs, entropy = found.figure.axes
    assert points(score, "ce") == [(1, 50), (3, pytest.approx(70))]
    (bars,) = next(bars for bars in score.containers if bars.get_label() == "ce").lines[2]
    assert [list(segment[:, 1]) for segment in bars.get_segments()] == [
        pytest.approx([45, 54]),
        pytest.approx([65, 74]),
    ]
    assert points(entropy, "ce") == [(0, 1.0), (1, 0.5), (2, pytest.approx(1 / 3))]
    drawn = [list(line.get_ydata()) for line in logprobs.get_lines() if len(line.get_ydata())]
    assert drawn[:2] == [pytest.approx([-0.1, -0.2, -0.3]), pytest.approx([-0.2, -0.4, -0.6])]
    assert (score.get_title("left"), entropy.get_xlabel()) == ("(a) AVG@4 on sums, %", "optimizer steps taken")
    assert found.missing == ("grpo has no score: it was not evaluated",)
    assert found.artifacts[:2] == (teacher.place, unscored.place)


def test_an_mse_teacher_is_in_figure_5_alone_with_where_it_had_unlearned() -> None:
    teacher = made("mse", "teacher", config={"loss": {"type": "mse"}}, curve=CURVE)
    unlearned = made("low", "unlearned", an_input("teacher", "digest of mse@step-2", "mse"), metrics={"step": 2})
    critic = made("critic", "critic", curve=[{"step": step, "explained_variance": 0.2 * step} for step in (1, 2)])
    run = a_run([BASE, a_row("mse@step-3", "teacher", 0.6, None)], teacher, unlearned, critic)
    with styled():
        found = curves.unlearning(run)
        assert isinstance(curves.teachers(run), Skipped)
    assert isinstance(found, Drawn)
    probability, loss, explained, score = found.figure.axes
    assert points(loss, "mse") == [(0, 0.5), (1, 0.5), (2, 0.5)]
    assert list(explained.get_lines()[0].get_ydata()) == pytest.approx([0.1, 0.2, 0.3])
    assert points(explained, "critic (linear head)") == [(0, 0.2), (1, 0.4)]
    assert critic.place in found.artifacts and not found.missing
    assert "low (step 2)" in probability.get_legend_handles_labels()[1]
    assert points(score, "mse") == [(3, 60)]
    assert isinstance(curves.unlearning(a_run([BASE])), Skipped)
    with styled():
        unscored = curves.unlearning(a_run([BASE], teacher))
    assert isinstance(unscored, Drawn) and "AVG@K" in found.caption
    assert unscored.missing[-1] == "the run has no `critic` to hold the teacher against"
    assert "AVG@K" not in unscored.caption and "intervals" not in unscored.caption, (
        "nothing of a panel that is not there"
    )


def a_student(name: str, signal: str = "signal", start: str = "base", **config: Any) -> Made:
    inputs = an_input("signal", f"digest of {signal}"), an_input("init", f"digest of {start}", start.partition("@")[0])
    return made(name, "distill", *inputs, config={"advantage": "signal", **config}, saved_step=4)


SIGNAL_OF_CE = (
    made("signal", "signal", an_input("numerator", "digest of score")),
    made("score", "score", an_input("checkpoint", "digest of best")),
    made("best", "select", an_input("candidates:1", "digest of ce@step-8"), metrics={"winner": 1}),
)


def test_a_student_is_led_to_from_the_teacher_in_its_numerator_through_a_selection() -> None:
    rows = [BASE, a_row("ce@step-8", "teacher", 0.7, 0.03), a_row("other", "teacher", 0.8, 0.05),
            a_row("student@step-2", "student", 0.6, 0.005), a_row("student@step-4", "student", 0.65, 0.01)]  # fmt: skip
    with styled():
        found = efficiency.pairs(a_run(rows, a_student("student"), *SIGNAL_OF_CE))
        nothing = efficiency.pairs(a_run(rows[:1]))
    assert isinstance(found, Drawn)
    (axes,) = found.figure.axes
    assert points(axes, "ce@step-8") == [(0.03, 70)]
    assert points(axes, "student@step-4") == [(0.01, 65)]
    assert set(axes.get_legend_handles_labels()[1]) == {"base", "ce@step-8", "student@step-4"}
    unprobed = [BASE, rows[1] | {"kl_to_base": None}, rows[4]]
    halfway = efficiency.pairs(a_run(unprobed, a_student("student"), *SIGNAL_OF_CE))
    assert isinstance(nothing, Skipped)
    assert isinstance(halfway, Skipped) and "no KL was measured of ce@step-8" in halfway.why


def test_paths_go_over_saved_steps_and_say_what_has_no_kl() -> None:
    rows = [BASE, a_row("ce@step-8", "teacher", 0.7, 0.3), a_row("ce@step-2", "teacher", 0.5, 0.01),
            a_row("ce@step-4", "teacher", 0.6, None)]  # fmt: skip
    with styled():
        found = efficiency.paths(a_run(rows))
        few = efficiency.paths(a_run(rows[:2]))
    assert isinstance(found, Drawn) and isinstance(few, Drawn)
    assert ["the grey line" in one.caption for one in (found, few)] == [True, False]
    (axes,) = found.figure.axes
    assert points(axes, "ce (teacher)") == [(0.01, 50), (0.3, 70)]
    assert points(axes, "base") == [(0, 40)]
    assert axes.get_xscale() == "symlog"
    assert found.missing == ("no KL was measured of ce@step-4; list them under the recipe's probe",)
    assert efficiency.frontier([(0, 1), (2, 3), (1, 0), (3, 2), (2, 1)]) == [(0, 1), (2, 3)]


def test_fixed_and_evolving_students_of_one_signal_stand_side_by_side() -> None:
    students = a_student("fixed"), a_student("evolving", denominator="evolving"), a_student("else", "other-signal")
    rows = [BASE, a_row("ce@step-8", "teacher", 0.7, 0.03), a_row("fixed@step-4", "student", 0.6, 0.01),
            a_row("evolving@step-4", "student", 0.5, 0.02), a_row("else@step-4", "student", 0.5, 0.02)]  # fmt: skip
    with styled():
        found = phases.denominators(a_run(rows, *students, *SIGNAL_OF_CE))
        alone = phases.denominators(a_run(rows, students[1], *SIGNAL_OF_CE))
        none = phases.denominators(a_run(rows, students[0]))
    assert isinstance(found, Drawn) and isinstance(alone, Drawn)
    score, distance = found.figure.axes
    labels = score.get_legend_handles_labels()[1]
    assert set(labels) == {"base", "ce@step-8 (teacher)", "fixed (fixed)", "evolving (evolving)"}
    assert all(tick == round(tick) for tick in score.get_xticks()), "of one step too"
    assert [list(bars.lines[0].get_ydata()) for bars in distance.containers] == [[0.01], [0.02]]
    (kl,) = distance.containers[0].lines[2][0].get_segments()
    assert list(kl[:, 1]) == pytest.approx([0.01 - 0.00196, 0.01 + 0.00196])
    assert "over the full vocabulary" in found.caption
    assert alone.missing == ("evolving: no student of its signal with a fixed denominator has a score",)
    assert isinstance(none, Skipped) and "denominator: evolving" in none.why


def test_a_phase_goes_on_from_where_the_policy_it_started_from_had_come_to() -> None:
    online = made("online", "online", an_input("init", "digest of student@step-4", "student"), saved_step=6)
    rows = [BASE, a_row("student@step-4", "student", 0.6, None), a_row("online@step-3", "online", 0.55, None),
            a_row("online@step-6", "online", 0.58, None)]  # fmt: skip
    items = (a_student("student"), online, made("base", "base"))
    with styled():
        found = phases.switching(a_run(rows, *items))
        none = phases.switching(a_run(rows, items[0]))
    assert isinstance(found, Drawn)
    (axes,) = found.figure.axes
    assert points(axes, "student (offline)") == [(4, 60)]
    assert points(axes, "online (online)") == [(7, pytest.approx(55)), (10, pytest.approx(58))]
    joints = [list(line.get_xydata().flatten()) for line in axes.get_lines() if line.get_linewidth() == 1.0]
    assert joints == [pytest.approx([0, 40, 4, 60]), pytest.approx([4, 60, 7, 55])]
    assert isinstance(none, Skipped)


def a_table(scale: float) -> dict[str, Any]:
    quantiles = {"quantile_0.01": -2, "quantile_0.05": -1, "quantile_0.5": 0, "quantile_0.95": 1, "quantile_0.99": 2}
    values = {name: scale * value for name, value in {**quantiles, "min": -9, "max": 8}.items()}
    rows = [{"label": label, "position": position, **values} for label in (None, "positive", "negative")
            for position in (None, "first", "0-10 %", "10-20 %", "last")]  # fmt: skip
    outlier = {"label": 1, "position": 3, "length": 20, "value": -9 * scale}
    return {"std": scale, "by_label_and_position": rows, "outliers": [outlier]}


def test_outliers_stand_by_outcome_and_position_beside_a_critic() -> None:
    signal = made("signal", "signal", metrics=a_table(1.0) | {"noise_floor": 0.5})
    critic = made("critic", "critic", metrics={"errors": a_table(0.1)})
    with styled():
        found = tokens.outliers(a_run([], signal, critic))
        alone = tokens.outliers(a_run([], signal))
    assert isinstance(found, Drawn) and isinstance(alone, Drawn)
    right, wrong, errors, _ = found.figure.axes
    assert points(right, "median") == [(0, 0), (10, 0), (10, 0), (20, 0)], "over the whole of each tenth"
    assert points(right, "the ten furthest of all") == [(17.5, -9)]
    assert points(wrong, "the ten furthest of all") == []
    assert points(errors, "the ten furthest of all") == [(17.5, pytest.approx(-0.9))]
    assert "noise floor" in right.get_legend_handles_labels()[1]
    with styled():
        silent = tokens.outliers(a_run([], made("signal", "signal", metrics=a_table(1.0) | {"noise_floor": 0.0})))
    assert isinstance(silent, Drawn) and "noise floor" not in silent.figure.axes[0].get_legend_handles_labels()[1]
    assert wrong.get_title("left") == "wrong responses; noise floor 0.5 nats"
    assert found.missing == () and "no `critic`" in alone.missing[0]


def test_without_an_interval_a_standard_error_gives_one() -> None:
    assert interval(a_row("a", "base", 0.5, None)) == (0.45, 0.54)
    assert interval(a_row("a", "base", 0.5, None, interval=None)) == pytest.approx((0.5 - 0.0392, 0.5 + 0.0392))
    assert interval(a_row("a", "base", 0.5, None, interval=None, stderr=None)) is None
    assert plain("a$b$\n") == r"a\$b\$?"


# ------------------------------------------------------------------------------------------------- a run


@pytest.fixture(scope="module")
def drawn(finished_micro, tmp_path_factory):
    """The figures of the micro run, its data and its folder of figures."""
    patch = pytest.MonkeyPatch()
    with patch.context() as environment:
        environment.setenv("ERPD_HOME", str(finished_micro.home))
        run = read_run(connect("local"), "micro")
    folder = tmp_path_factory.mktemp("figures")
    return write_figures(run, folder), run, folder


def test_a_run_gets_the_figures_it_has_data_for_and_the_others_are_named(drawn, finished_micro) -> None:
    report, run, folder = drawn
    assert [item["figure"] for item in report["figures"]] == ["4", "5", "6", "10"]
    assert [item["figure"] for item in report["skipped"]] == ["2b", "7", "8"]
    captions = (folder / "captions.md").read_text()
    assert "# Figures of the run micro, seed 0" in captions and "- Fig. 8: the run has no online phase" in captions
    by_step = {item["step"]: item for item in finished_micro.summary["artifacts"]}
    for item in report["figures"]:
        assert sorted(item["files"]) == [f"fig{item['figure']}.png", f"fig{item['figure']}.svg"]
        assert all((folder / name).stat().st_size > 5000 for name in item["files"])
    assert f"- local/micro-r1-signal@{by_step['r1/signal']['revision'][:10]}" in captions
    assert run.benchmark == "addition-1digit" and {row["ref"] for row in run.rows} >= {"base", "teacher@step-3"}


def test_the_same_data_give_the_same_bytes_and_a_drawing_asks_for_no_font(drawn, tmp_path) -> None:
    _, run, folder = drawn
    write_figures(run, tmp_path, names=["6"])
    for name in ("fig6.png", "fig6.svg"):
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes()
    svg = (folder / "fig6.svg").read_text()
    assert "<text" not in svg and "font-family" not in svg and "<image" not in svg and "url(http" not in svg
    assert "Fig. 6: score against KL; run micro, seed 0" in svg and "local/micro-r1-student@" in svg


def test_options_are_refused_before_anything_is_read(micro) -> None:
    assert chosen("10, fig4") == ["4", "10"] and chosen(None) == list(FIGURES) and formats("svg") == ["svg"]
    for call in (lambda: chosen("3"), lambda: formats("pdf"), lambda: chosen("")):
        with pytest.raises(ConfigError, match="expected some of"):
            call()
    with pytest.raises(ConfigError, match="--benchmark: expected one that micro"):
        read_run(connect("local"), "micro", benchmark="aime")
    with pytest.raises(ArtifactError, match=r"micra: expected a finished run.*did you mean 'micro'"):
        read_run(connect("local"), "micra")


@pytest.mark.usefixtures("micro")
def test_the_command_says_what_it_wrote_and_what_it_left_out(tmp_path, capsys) -> None:
    plot("micro", tmp_path, format="png", figures="7,10")
    said = capsys.readouterr().out
    assert f"Fig. 10: outliers by position; run micro, seed 0: {tmp_path / 'fig10.png'}\n" in said
    assert "  missing: the run has no `critic`" in said and "Fig. 7: skipped, no student" in said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["captions.md", "fig10.png"]


# ------------------------------------------------------------------------------------------------- cards


def test_cards_carry_pictures_that_are_no_payload(micro, tmp_path) -> None:
    hub = connect("local")
    by_step = {item["step"]: item for item in micro.summary["artifacts"]}
    for step, names in (
        ("r1/teacher", [TRAINING]),
        ("r1/unlearned", []),
        ("r1/signal", [SIGNAL, "plots/positions.png"]),
    ):
        item = by_step[step]
        folder = hub.pull(item["repo_type"], item["repo"], item["revision"])
        record = read_lineage(folder / "lineage.json")
        assert pictures_in(folder) == names
        assert check_payload(folder, record) == [] and not any(name.startswith("plots") for name in record.files)
        card = (folder / "README.md").read_text()
        assert [f"]({name})" in card for name in names] == [True] * len(names) and ("![" in card) == bool(names)
    details = hub.pull("dataset", "local/micro-details", str(hub.resolve("dataset", "local/micro-details")))
    assert (details / SCORES).read_bytes()[:4] == b"\x89PNG" and f"]({SCORES})" in (details / "README.md").read_text()


def test_a_signals_histogram_counts_every_graded_token(micro) -> None:
    import pyarrow.parquet as pq

    item = next(item for item in micro.summary["artifacts"] if item["step"] == "r1/signal")
    folder = connect("local").pull("dataset", item["repo"], item["revision"])
    counts = signal_counts(folder, 1.0)
    rows = pq.read_table(folder / "data").to_pylist()
    for label in (0, 1):
        values = [value for row in rows if row["label"] == label for value in row["signal"]]
        assert sum(counts[label]) == len(values)
        assert counts[label][0] == sum(value < -1 + 1 / 30 for value in values)
        assert counts[label][-1] == sum(value >= 1 - 1 / 30 for value in values)


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan")])
@pytest.mark.filterwarnings("ignore:invalid value")
def test_a_picture_that_cannot_be_drawn_is_left_out_and_said(value: float, tmp_path) -> None:
    """The work is done: what is not finite must not keep it from being pushed."""
    values, labels = np.array([value, -3, 0.1, 0.2], np.float32), np.array([1.0, 0.0])
    metrics = describe_signal([SignalBlock(values, np.array([2, 2]), labels, ["a", "b"], [0, 0])])
    like = {"kind": "signal", "environment": {}, "code": {"version": "1", "git_commit": None, "dirty": False}}
    record = made("signal", "signal", metrics=metrics | {"strategy": 1}).record.model_copy(update=like)
    (tmp_path / "lineage.json").write_text(record.to_json())
    write_card(tmp_path, read_lineage(tmp_path / "lineage.json"), command="run quickstart", above=Above())
    card = (tmp_path / "README.md").read_text()
    assert pictures_in(tmp_path) == [] and "![" not in card
    assert [f"`{name}` could not be drawn" in card for name in (SIGNAL, POSITIONS)] == [True, True]
    figure = tokens.outliers(a_run([], made("signal", "signal", metrics=metrics)))
    assert isinstance(figure, Skipped) and "finite" in figure.why


def test_what_a_repository_did_not_measure_is_not_drawn() -> None:
    """A missing entropy is no 0, and a score without an interval has no bar."""
    with styled():
        rows = [("a", {"kl_checkpoint_to_base": 0.0, "entropy": None}), ("b", {"kl_checkpoint_to_base": 0.2})]
        kl, entropy = distances(rows).axes
        (score,) = scores([("a", {"avg": 0.5})]).axes
    assert [list(axes.containers[0].lines[0].get_xdata()) for axes in (kl, score)] == [[0.0, 0.2], [50.0]]
    assert not any(map(isfinite, entropy.containers[0].lines[0].get_xdata()))
    assert not any(segment.size for segment in score.containers[0].lines[2][0].get_segments())


def test_a_picture_of_the_same_values_stays_as_another_machine_drew_it() -> None:
    records = [{"folder": "a/b", "metrics": {"avg": 0.5, "interval": [0.25, 0.75]}}]
    drawn = repository_pictures(records)[SCORES]
    assert drawn is not None and repository_pictures(records) == {SCORES: drawn, DISTANCES: None}
    theirs = drawn + b"as another matplotlib has it"
    assert repository_pictures(records, {SCORES: theirs})[SCORES] == theirs
    records[0]["metrics"] |= {"avg": 0.625}
    assert repository_pictures(records, {SCORES: theirs})[SCORES] not in (theirs, drawn)


def test_a_run_without_matplotlib_leaves_the_pictures_that_are_there(micro_copy, monkeypatch) -> None:
    hub = connect("local")
    before = str(hub.resolve("dataset", "local/micro-details"))
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    publish_repository_card(hub, "dataset", "local/micro-details")
    after = str(hub.resolve("dataset", "local/micro-details"))
    there = [hub.pull("dataset", "local/micro-details", sha) for sha in (before, after)]
    assert (there[1] / SCORES).is_file()
    assert (there[0] / "README.md").read_text() == (there[1] / "README.md").read_text()
    assert before == after


def test_without_matplotlib_a_card_has_no_picture_and_plot_says_what_to_install(tmp_path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    record = made("ce", "teacher", config={"steps": 3}, saved_step=3).record
    (tmp_path / "dynamics.jsonl").write_text('{"step": 1, "loss": 1.0}\n{"step": 2, "loss": 0.5}\n')
    draw_pictures(tmp_path, record)
    assert pictures_in(tmp_path) == []
    assert repository_pictures([{"folder": "a/b", "metrics": {"avg": 0.5}}]) == {}
    with pytest.raises(ErpdError, match=r"pip install 'erpd-hub\[train\]'"):
        write_figures(a_run([BASE]), tmp_path)


def test_a_card_shows_at_most_four_panels_and_names_both_policies_of_a_kl() -> None:
    values = {"logprob_positive": -1.0, "entropy": 0.5, "kl_old_to_student_k3": 0.1, "loss": 1.0, "reward": 0.2}
    lines = [{"step": 1, "explained_variance": None, **values}]
    titles = [title for title, _ in recorded(lines)]
    assert titles == ["log-prob, nats per token", "entropy, nats per token", "KL(old || student), k3, nats per token",
                      "share of right answers while training"]  # fmt: skip
    assert recorded([{"step": 1}]) == []


def _over_seeds(ref: str, role: str, avg: list[float | None], kl: list[float | None]) -> dict[str, Any]:
    return {"ref": ref, "role": role, "benchmark": "addition", "k": 8, "avg": avg, "kl_to_base": kl}


def test_gains_over_seeds_are_taken_where_a_seed_has_base_and_kl() -> None:
    base = _over_seeds("base", "base", [0.5, 0.6, None], [0.0, 0.0, 0.0])
    student = _over_seeds("student@step-8", "student", [0.6, 0.9, 0.9], [0.01, 0.03, 0.5])
    unprobed = _over_seeds("teacher", "teacher", [0.9, 0.9, 0.9], [None, None, None])
    first, second = gains([base, student, unprobed])
    assert (first["avg"], first["kl_to_base"], first["step"]) == (0, 0, None)
    assert second["avg"] == pytest.approx(0.2) and second["kl_to_base"] == pytest.approx(0.02)
    assert second["interval"] == pytest.approx((0.2 - 12.706 * 0.1, 0.2 + 12.706 * 0.1), abs=1e-3)
    assert (second["step"], second["kl_stderr"]) == (8, pytest.approx(0.01))


def test_a_report_over_seeds_is_drawn_the_last_step_after_the_saved_ones(tmp_path, monkeypatch) -> None:
    base = _over_seeds("base", "base", [0.5, 0.5, 0.5], [0.0, 0.0, 0.0])
    rows = [base] + [
        _over_seeds(ref, role, [0.5 + gain, 0.5 + gain, 0.52 + gain], [kl, kl, 2 * kl])
        for ref, role, gain, kl in (
            ("student", "student", 0.3, 0.04), ("student@step-16", "student", 0.2, 0.02),
            ("student@step-8", "student", 0.1, 0.01), ("unlearned", "unlearned", -0.4, 0.5),
        )
    ]  # fmt: skip
    drawn: list[tuple[list[float], list[str]]] = []
    draw = efficiency._draw_points

    def watched(axes: Any, rows: Any, look: Any, label: str) -> None:
        drawn.append(([row["step"] for row in rows], label))
        draw(axes, rows, look, label)

    monkeypatch.setattr(efficiency, "_draw_points", watched)
    assert plot_over_seeds(rows, tmp_path / "a.png", title="T")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    panel = [([None], "base"), ([8, 16, None], "student")]
    assert drawn == [*panel, ([None], "unlearned"), *panel], "a second panel has what did not lose"
    assert not plot_over_seeds([base], tmp_path / "b.png", title="T") and not (tmp_path / "b.png").exists()
