"""Measured beside reported, claims beside comparisons, and the whole command on a micro twin."""

import json
import re
import shutil
from collections import Counter
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
from conftest import cli

from erpd_hub.benchmarks.seeds import check_claims
from erpd_hub.comparing.claims import Measured, judge, judge_differences, judge_over_seeds
from erpd_hub.comparing.joining import join, plan_identity, renew
from erpd_hub.comparing.over_seeds import (
    METRICS,
    checkpoints_over_seeds,
    fingerprints_over_seeds,
    markdown,
    overview,
    page_name,
)
from erpd_hub.comparing.paper import NOT_THE_PAPERS, Claim, Experiment, experiments, get_experiment
from erpd_hub.comparing.reproduce import beside
from erpd_hub.comparing.reproduction import runs, seed_plans
from erpd_hub.comparing.result_pages import OVERVIEW, add_to_report, overview_page, read_report, renew_report
from erpd_hub.errors import ConfigError

MICRO_TWIN = Path(__file__).parent / "micro_twin.yaml"
EXPERIMENT = Experiment.model_validate(
    {
        "title": "t",
        "claim": "c",
        "models": {"m": "table1"},
        "tiny": "tiny-race",
        "columns": ["aime_2024", "hmmt_feb_2025", "kl_to_base"],
        "rows": {"m": {"Student": {"ref": "s@step-16 | s", "tiny": "s", "reported": [80.0, 60.0, 0.02]}}},
        "claims": [],
    }
)


def _checkpoint(ref: str, benchmark: str, avg: float, **more: object) -> dict[str, object]:
    return {"ref": ref, "benchmark": benchmark, "avg": avg, "kl_to_base": 0.024, "stderr_sampling": 0.01, **more}


def test_the_checkpoint_that_is_best_on_the_selection_benchmark_counts() -> None:
    rows = [
        _checkpoint("s", "aime_2024", 0.9),
        _checkpoint("s", "hmmt_feb_2025", 0.5),
        _checkpoint("s@step-16", "aime_2024", 0.84),
        _checkpoint("s@step-16", "hmmt_feb_2025", 0.61),
    ]
    (row,) = beside(EXPERIMENT, "m", rows)
    assert row.ref == "s@step-16"
    aime, hmmt, kl = row.cells
    assert (aime.measured, aime.tolerance, aime.agrees) == (84.0, 3.0, False)
    assert (hmmt.measured, hmmt.agrees, hmmt.selection) == (61.0, True, True)
    assert (kl.measured, kl.agrees) == (0.024, True)
    assert (row.reported_mean, row.measured_mean) == (80.0, 84.0), "without the benchmark selected on"


def test_lengths_that_are_reported_on_a_benchmark_are_compared_there_and_count_in_no_mean() -> None:
    about = EXPERIMENT.model_copy(update={"also": {"m": {"Student": {"aime_2024_length": 19800.0, "mean": 71.0}}}})
    rows = [_checkpoint("s", "aime_2024", 0.8, mean_length=17000.0), _checkpoint("s", "hmmt_feb_2025", 0.6)]
    (row,) = beside(about, "m", rows)
    length = row.cells[-1]
    assert (length.column, length.measured, length.tolerance, length.agrees) == ("aime_2024_length", 17000, 1980, False)
    assert (row.reported_mean, row.measured_mean) == (80.0, 80.0)
    assert beside(about, "m", [])[0].cells[-1] == ("aime_2024_length", 19800, None, None, None, False)


def test_a_judge_that_can_be_trusted_counts() -> None:
    rows = [_checkpoint("s", "aime_2024", 0.75, avg_judged=0.84), _checkpoint("s", "hmmt_feb_2025", 0.6)]
    assert beside(EXPERIMENT, "m", rows)[0].cells[0].measured == 84.0
    rows[0]["canaries_problem"] = "took a wrong answer for right"
    assert beside(EXPERIMENT, "m", rows)[0].cells[0].measured == 75.0


def test_a_larger_sampling_error_widens_the_tolerance() -> None:
    rows = [_checkpoint("s", "aime_2024", 0.84, stderr_sampling=0.02)]
    (row,) = beside(EXPERIMENT, "m", rows)
    assert row.cells[0].tolerance == pytest.approx(2 * 2 * 2**0.5)
    assert row.cells[0].agrees is True
    assert row.cells[1].agrees is None, "not measured"


def test_claims_about_what_a_step_records() -> None:
    table = {"0.01": -4.0, "0.5": 0.5}
    steps = {
        "mse": Measured(record={"explained_variance": 0.93}),
        "sft": Measured(record={"logprob_positive": -0.1, "logprob_negative": -0.15}),
        "ce": Measured(record={"logprob_positive": -0.1, "logprob_negative": -0.6}),
        "signal": Measured(record={"quantiles_positive": table, "std": 0.5}),
        "critic": Measured(record={"values": {"quantiles_positive": {"0.01": 0.1, "0.5": 0.6}, "std": 0.2}}),
    }

    def verdict(**claim: object) -> tuple[str, float | None]:
        found = judge(Claim.model_validate({"says": "x", **claim}), steps)
        return found.verdict, found.difference

    unjudged = "not measured"  # one seed of a number that is of one training has no error
    assert verdict(more="mse", less=0.9, metric="explained_variance") == (unjudged, pytest.approx(0.03))
    assert verdict(more="ce", less="sft", metric="gap") == (unjudged, pytest.approx(0.45))
    assert verdict(more="signal", less="critic", metric="low_tail") == (unjudged, pytest.approx(9.0 - 2.5))
    seeds = [{"mse": Measured(record={"explained_variance": value})} for value in (0.93, 0.94, 0.95)]
    claim = {"says": "x", "more": "mse", "metric": "explained_variance"}
    verdicts = [judge_over_seeds(Claim.model_validate(claim | {"less": less}), seeds).verdict for less in (0.9, 0.99)]
    assert verdicts == ["shown", "opposite"]
    no_more = Claim(says="x", more="a", less=0.05, metric="mean_squared_error", expect="no_gain")
    assert judge_differences(no_more, (0.046, 0.05), [-0.003, -0.005, -0.004]).verdict == "shown"
    assert judge_differences(no_more, (0.051, 0.05), [-0.0005, 0.001, 0.0025]).verdict == "not shown", (
        "points are AVG@K's"
    )
    assert verdict(more="ce", less=0.9, metric="explained_variance") == ("not measured", None)
    assert verdict(more="ce", less="sft") == ("not measured", None), "neither was evaluated"


def _measured(right: int, *, kl: float = 0.01, length: int = 10) -> Measured:
    labels = {f"p{index}": [1 if index < right else 0] * 4 for index in range(20)}
    probe = {"kl_checkpoint_to_base": kl, "kl_checkpoint_to_base_stderr": 0.001}
    return Measured(labels, {problem: [length] * 4 for problem in labels}, probe)


@pytest.mark.parametrize(
    ("claim", "verdict"),
    [
        ({"more": "good", "less": "bad"}, "shown"),
        ({"more": "bad", "less": "good"}, "opposite"),
        ({"more": "good", "less": "same"}, "not shown"),
        ({"more": "good", "less": "absent"}, "not measured"),
        ({"more": "good", "less": "bad", "expect": "no_gain"}, "opposite"),
        ({"more": "bad", "less": "good", "expect": "no_gain"}, "shown"),
        ({"more": "bad", "less": "good", "metric": "kl_to_base"}, "shown"),
        ({"more": "good", "less": "same", "metric": "kl_to_base"}, "not shown"),
        ({"more": "good", "less": "bad", "metric": "entropy"}, "not measured"),
        ({"more": "bad", "less": "good", "metric": "mean_length"}, "shown"),
    ],
)
def test_verdicts(claim: dict[str, str], verdict: str) -> None:
    measured = {"good": _measured(18), "same": _measured(18), "bad": _measured(4, kl=0.05, length=30)}
    assert judge(Claim(says="x", **claim), measured).verdict == verdict


@pytest.mark.parametrize("metric", ["kl_to_base", "entropy"])
def test_a_probe_of_one_prompt_has_no_error_and_shows_nothing(metric: str) -> None:
    key = {"kl_to_base": "kl_checkpoint_to_base", "entropy": "entropy"}[metric]
    labels = {"p": [1, 0]}
    sure, unsure = ({key: value, f"{key}_stderr": error} for value, error in ((0.5, 0.001), (0.1, None)))
    claim = Claim.model_validate({"says": "x", "more": "a", "less": "b", "metric": metric})
    measured = {"a": Measured(labels, probe=sure), "b": Measured(labels, probe=unsure)}
    found = judge(claim, measured)
    assert (found.verdict, found.interval, found.difference) == ("not measured", None, pytest.approx(0.4))
    assert judge_over_seeds(claim, [measured, measured]).difference == pytest.approx(0.4), "over seeds none is needed"


def test_lengths_that_nobody_counted_are_not_zero() -> None:
    claim = Claim.model_validate({"says": "x", "more": "a", "less": "b", "metric": "mean_length"})
    labels = {"p": [1], "q": [1]}
    counted, silent, one = {"p": [5], "q": [7]}, {"p": [], "q": []}, {"p": [9]}

    def verdict(more: dict[str, list[int]], less: dict[str, list[int]]) -> tuple[str, float | None]:
        found = judge(claim, {"a": Measured(labels, more), "b": Measured(labels, less)})
        return found.verdict, found.difference

    assert verdict(counted, silent) == ("not measured", None)
    assert verdict({}, {}) == ("not measured", None)
    assert verdict(one, {"p": [4]}) == ("not measured", 5), "a single problem has no error"
    assert verdict(counted, {"p": [1], "q": [2]})[0] == "shown"


def test_verdicts_over_seeds_are_students_interval_of_paired_differences() -> None:
    claim = Claim(says="x", more="student", less="control")

    def seed(student: int, control: int) -> dict[str, Measured]:
        return {"student": _measured(student), "control": _measured(control)}

    clear = judge_over_seeds(claim, [seed(14, 10), seed(15, 10), seed(16, 10)])
    assert clear.by_seed == pytest.approx((0.2, 0.25, 0.3))
    assert clear.verdict == "shown" and clear.difference == pytest.approx(0.25)
    assert clear.interval == pytest.approx((0.25 - 4.30265 * 0.05 / 3**0.5, 0.25 + 4.30265 * 0.05 / 3**0.5), abs=1e-5)
    assert judge_over_seeds(claim, [seed(14, 10), seed(8, 10), seed(16, 10)]).verdict == "not shown"
    assert judge_over_seeds(claim, [seed(5, 10), seed(4, 10), seed(5, 10)]).verdict == "opposite"
    two = judge_over_seeds(claim, [seed(14, 10), seed(14, 10)])
    assert two.verdict == "not measured" and two.interval == pytest.approx((0.2, 0.2)), "two may agree by chance"
    single = judge_over_seeds(claim, [seed(14, 10), {"student": _measured(3)}])
    assert (single.verdict, single.interval, single.by_seed) == ("not measured", None, (pytest.approx(0.2), None))


def _summary(avg: float, fingerprint: str, *more: dict[str, object]) -> dict[str, object]:
    row = {"ref": "student", "role": "student", "benchmark": "addition", "k": 8, "n": 200, "avg": avg}
    row |= {"kl_to_base": 0.01, "entropy": None, "mean_length": 30.0}
    return {"checkpoints": [row, *more], "artifacts": [{"step": "r1/student", "fingerprint": fingerprint}]}


def test_several_seeds_as_tables_for_a_document() -> None:
    other = {**_summary(0.5, "")["checkpoints"][0], "ref": "base", "role": "base"}
    summaries = [_summary(0.6, "a" * 64), _summary(0.7, "b" * 64, other)]
    rows = checkpoints_over_seeds(summaries)
    assert [(row["ref"], row["avg"]) for row in rows] == [("student", [0.6, 0.7]), ("base", [None, 0.5])]
    assert fingerprints_over_seeds(summaries) == {"r1/student": ["a" * 16, "b" * 16]}
    claim = Claim(says="better", more="student", less="base")
    seeds = [{"student": _measured(12), "base": _measured(10)}, {"student": _measured(14), "base": _measured(10)}]
    judged = judge_over_seeds(claim, seeds)._asdict()
    about = {"title": "T", "experiment": "table1", "model": "tiny", "seeds": [10, 11], "claim": "C."}
    about |= {"runs": ["t-10", "t-11"], "fingerprints": fingerprints_over_seeds(summaries)}
    about |= {"overrides": ["a.b=[1, 2]"], "notes": ["N."], "machines": ["CPU AVX2, 1 threads, torch 2", None]}
    text = markdown(about | {"claims": [judged], "checkpoints": rows})
    assert "`erpd-hub reproduce table1 'a.b=[1, 2]' --tiny --seeds 10,11`: C." in text
    assert "\n* N.\n" in text and "| made on | CPU AVX2, 1 threads, torch 2 | - |" in text
    assert (
        "| better | `student` - `base` | 65.0 / 50.0 | +15.0 (-48.5 to +78.5) | +10.0, +20.0 | **not measured** |"
        in text
    )
    assert "| `student` | student | 65.0 (7.1) | 0.0100 | - | 30.0 |" in text
    assert "| `base` | base | 50.0 | 0.0100 | - | 30.0 |" in text
    assert f"| `r1/student` | `fp-{'a' * 16}` | `fp-{'b' * 16}` |" in text


def test_a_single_seed_has_a_difference_and_no_interval() -> None:
    claim = Claim(says="better", more="student", less="base")
    judged = judge_over_seeds(claim, [{"student": _measured(12), "base": _measured(10)}])._asdict()
    report = {"experiment": "table1", "model": "tiny", "claims": [judged]}
    assert "| [table1](table1.md) | better | 1 | +10.0 (one seed) | **not measured** |" in overview([report])
    ours = report | {"claims": [report["claims"][0] | {"says": "ours: better"}]}
    assert overview([report, ours]).startswith(
        "1 claims of the paper: 0 shown, 0 not shown, 0 opposite, 1 not measured; "
        "1 others: 0 shown, 0 not shown, 0 opposite, 1 not measured.\n"
    )


def _report(seeds: dict[int, dict[str, Measured]], summaries: list[dict[str, Any]]) -> dict[str, Any]:
    """As `report_over_seeds` makes it, of what was measured at each seed."""
    claims = [Claim(says="better", more="student", less="base"), Claim(says="late", more="late", less="base")]
    return {
        **{"schema": "s", "experiment": "table1", "title": "T", "claim": "C.", "model": "tiny", "recipe": "r"},
        **{"overrides": [], "plan": "p", "notes": [], "rows": []},
        "seeds": list(seeds),
        "runs": [f"t-{seed}" for seed in seeds],
        "machines": [f"CPU {seed}" for seed in seeds],
        "claims": [judge_over_seeds(claim, list(seeds.values()))._asdict() for claim in claims],
        "checkpoints": checkpoints_over_seeds(summaries),
        "fingerprints": fingerprints_over_seeds(summaries),
    }


def test_seeds_measured_apart_make_the_report_that_they_make_together() -> None:
    base = _measured(10)
    seeds = {seed: {"student": _measured(10 + seed), "base": base} for seed in (1, 2, 3, 4, 5)}
    for late in (2, 4, 5):
        seeds[late]["late"] = _measured(5)
    other = {**_summary(0.5, "")["checkpoints"][0], "ref": "late"}
    summaries = {
        seed: _summary(seed / 10, str(seed) * 64, *([other] if "late" in seeds[seed] else [])) for seed in seeds
    }

    def report(*of: int) -> dict[str, Any]:
        return _report({seed: seeds[seed] for seed in of}, [summaries[seed] for seed in of])

    whole = report(1, 2, 3, 4, 5)
    assert [claim["verdict"] for claim in whole["claims"]] == ["shown", "opposite"]
    late = pytest.approx(-0.25)
    assert whole["claims"][1]["by_seed"] == (None, late, None, late, late)
    for first, second in [((1, 3), (2, 4, 5)), ((3, 4, 2), (1, 5)), ((4,), (1, 2, 3, 5))]:
        joined = join(report(*first), report(*second))
        for claim, same in zip(joined.pop("claims"), whole["claims"], strict=True):
            assert claim == {name: _near(value) for name, value in same.items()}
        assert joined == {name: value for name, value in whole.items() if name != "claims"}


def test_seeds_that_two_have_measured_at_once_are_all_kept(tmp_path) -> None:
    def one(seed: int) -> dict[str, Any]:
        return _report({seed: {"student": _measured(12), "base": _measured(10)}}, [_summary(0.6, str(seed) * 64)])

    about = _asking(Claim(says="better", more="student", less="base"), Claim(says="late", more="late", less="base"))
    assert add_to_report(tmp_path, about, one(2))["seeds"] == [2]
    assert add_to_report(tmp_path, about, one(1))["seeds"] == [1, 2]
    kept = add_to_report(tmp_path, about, one(2))
    assert json.loads(json.dumps(kept)) == read_report(tmp_path, "table1", "tiny")
    page = tmp_path / "table1.md"
    page.write_text("of an earlier version")
    renew_report(tmp_path, about, one(1))
    assert page.read_text().startswith("# Teacher losses"), "pages follow the paper's file too"
    report = json.loads((tmp_path / "table1.json").read_text())
    checkpoint = report["checkpoints"][0]
    for damage, said in (
        ({"seeds": [1]}, r"runs: expected one entry for each of 1 seeds, got 2"),
        ({"seeds": 5}, r"seeds: expected a list, got 5"),
        ({"checkpoints": 5}, r"checkpoints: expected a list, got 5"),
        (
            {"checkpoints": [checkpoint | {"avg": [0.5]}]},
            r"checkpoints.avg: expected one entry for each of 2 seeds, got 1",
        ),
        ({"checkpoints": [checkpoint | {"avg": ["0.5", 0.6]}]}, r"checkpoints.0.avg.0: expected a number, got '0.5'"),
        ({"claims": [3]}, r"claims.0: expected a mapping of keys.*, got 3"),
        ({"fingerprints": []}, r"fingerprints: expected a mapping of keys, got \[\]"),
    ):
        (tmp_path / "table1.json").write_text(json.dumps(report | damage))
        with pytest.raises(ConfigError, match=rf"table1.json: {said}; remove it"):
            renew_report(tmp_path, about, one(1))
    (tmp_path / "table1.json").write_text(json.dumps(report))
    (tmp_path / "table10.json").write_text("{")
    with pytest.raises(ConfigError, match=r"table10.json: expected a report, got .*; remove it"):
        read_report(tmp_path, "table1", "tiny")


@pytest.mark.parametrize("name", experiments())
def test_the_report_of_every_experiment_is_found_again(name: str, tmp_path) -> None:
    about = get_experiment(name).model_copy(update={"claims": (Claim(says="better", more="student", less="base"),)})
    one = _report({1: {"student": _measured(12), "base": _measured(10)}}, [_summary(0.6, "1" * 64)])
    one |= {"experiment": name, "model": "long", "claims": one["claims"][:1]}
    add_to_report(tmp_path, about, one)
    assert add_to_report(tmp_path, about, one | {"seeds": [2]})["seeds"] == [1, 2]
    assert "| better |" in (tmp_path / OVERVIEW).read_text()


def _near(value: object) -> object:
    if isinstance(value, list | tuple):
        return tuple(map(_near, value))
    return pytest.approx(value, abs=1e-9) if isinstance(value, float) else value


def _asking(*claims: Claim) -> Experiment:
    return get_experiment("table1").model_copy(update={"claims": claims})


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"plan": "other"}, "the same plan"),
        ({"schema": "older", "experiment": "table2"}, "the same schema and experiment"),
        ({"claims": [], "checkpoints": []}, "this version: it cannot answer 'better'"),
        ({"claims": [{"says": "a claim of another version"}], "checkpoints": []}, "this version: it cannot answer"),
    ],
)
def test_a_report_of_another_plan_or_that_cannot_answer_is_not_added_to(changed: dict[str, Any], named: str) -> None:
    report = _report({7: {"student": _measured(10), "base": _measured(10)}}, [_summary(0.5, "a" * 64)])
    about = _asking(Claim(says="better", more="student", less="base"), Claim(says="late", more="late", less="base"))
    renew(report, about, report)
    renew(report | {"model": "./elsewhere/twin.yaml"}, about, report)
    with pytest.raises(ConfigError, match=f"not of {named}.*, so its seeds 7 cannot be pooled"):
        renew(report | changed, about, report)


def test_a_report_answers_new_claims_from_what_it_has_measured() -> None:
    summaries = [_summary(0.5, "a" * 64), _summary(0.6, "b" * 64), _summary(0.8, "c" * 64)]
    report = _report({seed: {"student": _measured(10), "base": _measured(10)} for seed in (7, 8, 9)}, summaries)
    base = report["checkpoints"][0]
    report["checkpoints"].append(base | {"ref": "other", "avg": [0.4, None, 0.6], "kl_to_base": [0.25, 0.5, 0.25]})
    avg = Claim(says="new", more=base["ref"], less="other")
    kl = Claim(says="dearer", more="other", less="other", metric="kl_to_base", expect="no_gain")
    renewed = renew(report, _asking(avg, kl), report)
    one, two = renewed["claims"]
    assert one["by_seed"] == (pytest.approx(0.1), None, pytest.approx(0.2)) and one["verdict"] == "not measured"
    assert (one["value_more"], one["value_less"]) == (pytest.approx(0.65), pytest.approx(0.5)), "of the seeds with both"
    assert two["by_seed"] == (0, 0, 0) and two["verdict"] == "shown"
    assert renewed["title"] == get_experiment("table1").title and renewed["seeds"] == report["seeds"]
    twice = report | {"checkpoints": [*report["checkpoints"], base | {"benchmark": "another"}]}
    with pytest.raises(ConfigError, match="cannot answer 'new'"):
        renew(twice, _asking(avg), report)


def test_a_plan_is_the_same_at_every_seed_and_another_with_another_config() -> None:
    _, plans = seed_plans("fig7", None, [1, 2], [])
    _, (other,) = seed_plans("fig7", None, [1], ["defaults.teacher.learning_rate=1e-5"])
    assert plan_identity(plans[0]) == plan_identity(plans[1]) != plan_identity(other)
    _, (fixed,) = seed_plans("fig7", None, [1], ["base.seed=3"])
    assert plan_identity(fixed) != plan_identity(plans[0]), "one base for all seeds is another experiment"


def test_a_twin_on_two_benchmarks_is_refused_before_it_runs() -> None:
    two = ["evaluate.benchmarks=[addition,addition-lazy]"]
    with pytest.raises(ConfigError, match="claims are about one, got addition, addition-lazy; leave one"):
        seed_plans("fig7", None, [1], two)
    with pytest.raises(ConfigError, match="claims are about one"):
        runs("fig7", None, tiny=True, overrides=two)


RESULTS = Path(__file__).parent.parent / "docs" / "results"


def test_the_documented_results_are_what_was_reported() -> None:
    reports = [json.loads(path.read_text()) for path in RESULTS.glob("*.json")]
    assert reports
    for found in reports:
        assert found["claims"] == json.loads(json.dumps([_again(claim) for claim in found["claims"]]))
        about = _derived(get_experiment(found["experiment"]))
        kept = [claim for claim in found["claims"] if claim["metric"] in METRICS]
        for claim, same in zip(renew(found | {"claims": []}, about, found)["claims"], kept, strict=True):
            assert claim == {name: _near(value) for name, value in same.items()}
        page = RESULTS / f"{page_name(found)}.md"
        assert page.read_text() == markdown(found, page.with_suffix(".png").name)
        assert page.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    assert len(list(RESULTS.iterdir())) == 3 * len(reports) + 1
    assert (RESULTS / OVERVIEW).read_text() == overview_page(RESULTS)


def _derived(about: Experiment) -> Experiment:
    """With those claims that a report can answer from its checkpoints."""
    return about.model_copy(update={"claims": tuple(claim for claim in about.claims if claim.metric in METRICS)})


@pytest.mark.parametrize("path", sorted(RESULTS.glob("*.json")), ids=lambda path: path.stem)
def test_a_report_judges_the_claims_that_there_are(path: Path) -> None:
    report = json.loads(path.read_text())
    claims = [claim.model_dump() for claim in get_experiment(report["experiment"]).claims]
    assert [
        {name: item[name] for name in claim} for item, claim in zip(report["claims"], claims, strict=True)
    ] == claims


def test_the_readme_counts_the_verdicts_that_the_results_have() -> None:
    claims = [claim for path in RESULTS.glob("*.json") for claim in json.loads(path.read_text())["claims"]]
    paper, ours = (
        Counter(claim["verdict"] for claim in claims if claim["says"].startswith(NOT_THE_PAPERS) is other)
        for other in (False, True)
    )
    count = "Of the paper's {} claims {} show, {} come out opposite, {} are open; of {} others".format(
        paper.total(), paper["shown"], paper["opposite"], paper["not shown"] + paper["not measured"], ours.total()
    )
    text = " ".join((RESULTS.parent.parent / "README.md").read_text().split())
    shares = f"{ours['shown']}, {ours['opposite']} and {ours['not shown'] + ours['not measured']}"
    assert f"{count}, marked `control:` or `ours:`, {shares}." in text


@pytest.mark.parametrize(
    ("page", "experiment", "more", "less"),
    [
        ("README.md", "fig5", "student", "base"),
        ("README.md", "fig5", "student-s1", "base"),
        ("README.md", "fig5", "student", "control"),
        ("docs/mse.md", "fig5", "settled", "mse@step-10"),
        ("docs/mse.md", "fig5", "settled", "base"),
        ("docs/mse.md", "fig5", "student", "base"),
        ("docs/mse.md", "fig5", "student-s1", "base"),
        ("docs/mse.md", "fig5", "student", "student-s1"),
        ("docs/mse.md", "fig5", "student", "control"),
        ("README.md", "table1", "ce-student@step-8", "ce-student-no-teacher@step-8"),
        ("README.md", "table1", "ce-student", "ce-student-tuned-1-7e-4"),
        ("README.md", "fig2b", "ce-student@step-16", "ce-student-single-stage@step-8"),
        ("README.md", "table10-long-loose", "recovered-student@step-16", "base"),
        ("docs/guides/paper.md", "table10-long-loose", "recovered-student@step-16", "base"),
        ("README.md", "table10-long-shallow", "recovered-student@step-16", "base"),
        ("README.md", "table10-long-shallow", "recovered-student@step-16", "ce-student-no-teacher@step-16"),
        ("docs/guides/paper.md", "table10-long-shallow", "recovered-student@step-16", "base"),
        ("docs/guides/paper.md", "table10-long-shallow", "curr-denominator@step-16", "base"),
        ("docs/guides/paper.md", "table10-long-shallow", "ce-student@step-16", "base"),
        ("README.md", "fig2b", "ce-student", "ce-student-single-stage@step-16"),
        ("README.md", "table7-picker", "picked-student@step-16", "base"),
        ("docs/mse.md", "table7-picker", "picked-student@step-16", "base"),
        ("docs/mse.md", "fig5-shortcut", "shortcut-student", "base"),
        ("README.md", "table7", "recovered-student@step-8", "base"),
        ("README.md", "table7", "recovered-student@step-16", "base"),
        ("README.md", "table7", "recovered-student", "base"),
        ("README.md", "table7", "recovered-student@step-16", "curr-denominator@step-16"),
        ("README.md", "table1", "mse-student@step-16", "base"),
        ("README.md", "table11", "r2/weak-student", "r1/weak-student"),
        ("README.md", "table11", "r3/weak-student", "r2/weak-student"),
        ("README.md", "table2", "r2/round-student", "r1/round-student"),
        ("README.md", "table2", "r6/round-student", "r3/round-student"),
        ("README.md", "table2", "r6/round-student", "base"),
        ("README.md", "table2", "r2/direct", "r1/ce"),
        ("README.md", "table2", "r2/early-direct", "r1/ce@step-16"),
        ("README.md", "table2", "r3/direct", "r3/round-student"),
        ("README.md", "table2", "r3/direct", "r6/round-student"),
        ("README.md", "table2", "r3/round-student", "r2/round-student"),
        ("docs/evaluation.md", "table11-code", "student", "base"),
        ("docs/evaluation.md", "table11-code", "student-fast", "base"),
        ("docs/evaluation.md", "table11-code", "student-slow", "base"),
        ("docs/evaluation.md", "table11-code", "ce", "base"),
    ],
)
def test_documented_differences_follow_from_the_results(page: str, experiment: str, more: str, less: str) -> None:
    rows = {row["ref"]: row["avg"] for row in json.loads((RESULTS / f"{experiment}.json").read_text())["checkpoints"]}
    by_seed = [one - other for one, other in zip(rows[more], rows[less], strict=True)]
    low, high = _again({"expect": "greater", "by_seed": by_seed})["interval"]
    difference = f"{100 * fmean(by_seed):+.1f} ({100 * low:+.1f} to {100 * high:+.1f})"
    assert difference in " ".join((RESULTS.parent.parent / page).read_text().split())


def test_no_control_without_a_teacher_is_clearly_behind_where_a_claim_asks() -> None:
    claims = [claim for path in RESULTS.glob("*.json") for claim in json.loads(path.read_text())["claims"]]
    asked = [item for item in claims if "bare outcome" in item["says"] and item["metric"] == "avg"]
    assert len(asked) > 10 and "shown" not in {item["verdict"] for item in asked}, "the README says so"


CHECKPOINTS = {
    "base": "base", "CE teacher, step 8": "teacher@step-8", "step 16": "teacher@step-16", "step 32": "teacher",
    "CE teacher, step 32": "teacher", "student (strategy 1), step 8": "student@step-8",
    "student (strategy 1), step 16": "student", "unlearned (MSE, step 12)": "unlearned",
    "recovered (CE against unlearned, step 32)": "recovered",
    "student of the recovered teacher, strategy 2": "student-weak", "the same teacher, strategy 1": "student-weak-s1",
    "control without a teacher, step 8": "control@step-8", "control, step 16": "control",
}  # fmt: skip
"""What the pages call the quick start's checkpoints."""


@pytest.mark.parametrize(("page", "rows"), [("README.md", 7), ("docs/quickstart.md", 12)])
def test_the_tables_of_the_quick_start_are_those_of_its_report(page: str, rows: int) -> None:
    report = json.loads((RESULTS.parent / "quickstart.json").read_text())
    text = (RESULTS.parent.parent / page).read_text()
    tables = re.findall(r"^\| ([^|]+) \| (\d[^|]* / .*) \|$", text, flags=re.M)
    measured = {row["checkpoint"]: row for row in report["rows"]}
    assert len(tables) == rows
    for name, numbers in tables:
        row = measured[CHECKPOINTS[name.strip("*")]]
        averages = " / ".join(f"{100 * item['avg']:.1f}" for item in row["seeds"])
        distances = " / ".join(f"{item['kl_to_base']:.4f}" for item in row["seeds"])
        assert numbers == f"{averages} | {100 * row['avg']:.1f} | {distances}", name
    assert [check["holds"] for check in check_claims(report)] == [check["holds"] for check in report["checks"]]
    failed = {2: "two", 5: "five"}[sum(not check["holds"] for check in report["checks"])]
    assert f"{failed} of seven expectations" in " ".join(text.split()) or f"{failed.title()} do not" in text


def test_the_table_of_the_sweep_is_that_of_its_report() -> None:
    report = json.loads((RESULTS.parent / "sweep.json").read_text())
    last = [row for row in report["rows"] if row["checkpoint"] in ("student", "control")]
    expected = []
    for row in last:
        averages = " / ".join(f"{100 * item['avg']:.1f}" for item in row["seeds"])
        to_first = "".join(
            " {:+.1f} ({:+.1f} to {:+.1f})".format(*(100 * item[name] for name in ("mean", "low", "high")))
            for item in row["differences"]
            if item["to"] == "first point"
        )
        expected.append(f"| {averages} | {100 * row['avg']:.1f} |{to_first} | {row['kl_to_base']:.4f} |")
    text = (RESULTS.parent / "sweeps.md").read_text()
    assert len(expected) == 4 and all(row in text for row in expected), expected
    assert f"of {len(report['artifacts'])} artifacts {report['made']} were made" in " ".join(text.split())


def _again(claim: dict[str, object]) -> dict[str, object]:
    """The claim with interval and verdict anew from the differences of its seeds."""
    asked = Claim(says="x", more="a", less="b", metric=claim.get("metric", "avg"), expect=claim["expect"])
    anew = judge_differences(asked, (0.0, 0.0), claim["by_seed"])._asdict()
    return claim | {name: anew[name] for name in ("interval", "verdict", "by_seed")}


def test_the_bill_comes_first_and_nothing_starts(tmp_path) -> None:
    shown = cli("reproduce", "table7", "hub.upstream=", "--gpus", 8, "--gpu", "h200", home=tmp_path).stdout
    assert "GPU-hours" in shown
    assert "nothing has started" in shown
    assert not (tmp_path / "runs").exists()
    found = json.loads(cli("reproduce", "--json", home=tmp_path).stdout)
    assert {"experiment", "title", "claim", "models", "tiny", "notes"} == set(found[0])


def test_a_twin_from_its_run_to_advice(tmp_path, micro_base) -> None:
    """Fig. 7's twin with what two of its claims need, small; then the page about the run."""
    left_out = ("relaxed-fixed", "relaxed-evolving", "conservative-evolving", "ce", "ce-signal")
    short = {"steps": 4, "save_steps": []}
    steps: dict[str, object] = {
        **dict.fromkeys(left_out),
        "ce-strong": short,
        "conservative-fixed": {**short, "controls": ["no-teacher"]},
        "probe": {"checkpoints": ["base", "conservative-fixed"]},
        "evaluate": {"checkpoints": ["base", "ce-strong", "conservative-fixed"]},
    }
    home = shutil.copytree(micro_base, tmp_path / "home")  # the twin has the same base
    small = tmp_path / "small.yaml"
    small.write_text(json.dumps({"extends": str(MICRO_TWIN), "run": "micro", "steps": steps}))
    found = json.loads(cli("reproduce", "fig7", "--tiny", "--model", small, "--json", home=home).stdout)
    verdicts = {claim["says"]: claim["verdict"] for claim in found["claims"]}
    assert verdicts["it is ahead of the evolving one"] == "not measured"
    assert verdicts["the fixed denominator passes the conservative teacher"] != "not measured"
    assert json.loads((home / "runs" / "micro" / "reproduce-fig7.json").read_text()) == found
    page = json.loads(cli("advise", "micro", "--json", home=home).stdout)
    assert [signal["step"] for signal in page["signals"]] == ["r1/ce-strong-signal"]
    pairs = [(item["student"], item["control"]) for item in page["controls"]]
    assert pairs == [("conservative-fixed", "conservative-fixed-no-teacher")]
    assert [advice["kind"] for advice in page["advice"]].count("next") == 1
    assert any(item["step"] == "r1/base" and item["reused"] for item in found["summary"]["artifacts"])


def test_a_row_of_the_twin_is_run_by_itself(tmp_path, micro_base) -> None:
    home = shutil.copytree(micro_base, tmp_path / "home")
    short = {name: {"steps": 2, "save_steps": []} for name in ("grpo", "grpo-student")}
    short["grpo-student"]["controls"] = ["single-stage"]
    small = tmp_path / "small.yaml"
    small.write_text(json.dumps({"extends": str(MICRO_TWIN), "run": "micro", "steps": short | {
        "probe": {"checkpoints": ["base", "grpo", "grpo-student"]},
        "evaluate": {"checkpoints": ["base", "ce", "grpo", "grpo-student"]},
    }}))  # fmt: skip
    asked = ("reproduce", "table1", "--tiny", "--model", small, "--row", "GRPO", "--row", "GRPO+Distillation", "--json")
    paper = json.loads(cli(*asked, "--dry-run", home=home).stdout)["paper"]
    assert {row["row"] for row in paper["rows"]} == {"GRPO", "GRPO+Distillation"}
    found = json.loads(cli(*asked, home=home).stdout)
    assert [claim["says"] for claim in found["claims"]] == ["GRPO's student is not better than GRPO"]
    assert {row["ref"] for row in found["summary"]["checkpoints"]} == {"grpo", "grpo-student"}
    assert [(row["row"], row["ref"]) for row in found["twin"]] == [
        ("GRPO", "grpo"), ("GRPO+Distillation", "grpo-student")
    ]  # fmt: skip
    assert all(row["avg"] is not None and row["kl_to_base"] is not None for row in found["twin"])
    alone = cli(*asked[:5], "--row", "GRPO", home=home).stdout
    assert "row of the paper" in alone and "GRPO" in alone and "gives no numbers" not in alone
    steps = {item["step"].split("/")[1] for item in found["summary"]["artifacts"]}
    assert not steps & {"ce", "mse", "grpo-student-single-stage"}


def test_what_is_wrong_with_seeds_and_folder_is_said_before_anything_runs(tmp_path) -> None:
    (tmp_path / "file").touch()
    for arguments, said in [
        (("--seeds", "1,1"), "--seeds: expected each seed once, got 1 twice"),
        (("--seeds", "1,2", "--row", "CE"), "--row: expected no --seeds beside it"),
        (("--seeds", "1,x"), "--seeds: expected whole numbers with commas"),
        (("--seeds", "1", "--output", tmp_path / "file"), "expected a folder, got File exists"),
        (("--output", tmp_path / "results"), "--output: expected --seeds beside it"),
    ]:
        refused = cli("reproduce", "fig7", "--tiny", *arguments, home=tmp_path / "home", expect=2)
        assert said in refused.stderr
    refused = cli("reproduce", "fig7", "--seeds", "1,2", home=tmp_path / "home", expect=2)
    assert "--seeds: expected --tiny beside it" in refused.stderr
    bill = json.loads(cli("reproduce", "fig7", "--tiny", "--seeds", "1,2", "--dry-run", "--json", home=tmp_path).stdout)
    assert bill["run"] == "tiny-seed-1"
    assert not (tmp_path / "runs").exists() and not (tmp_path / "home" / "runs").exists()


def test_seeds_are_added_to_the_report_that_a_folder_has(tmp_path, micro_base) -> None:
    twin = tmp_path / "twin.yaml"
    steps: dict[str, object] = dict.fromkeys(
        ("rollouts", "ce", "ce-signal", "ce-strong", "ce-strong-signal", "conservative-fixed", "conservative-evolving",
         "relaxed-fixed", "relaxed-evolving")
    )  # fmt: skip
    steps |= {
        "base": {"target_accuracy": 0.001},
        "probe": {"checkpoints": ["base"]},
        "evaluate": {"checkpoints": ["base"]},
    }
    twin.write_text(json.dumps({"extends": str(MICRO_TWIN), "run": "micro", "steps": steps}))
    home, folder = shutil.copytree(micro_base, tmp_path / "home"), tmp_path / "results"
    folder.mkdir()
    (folder / "package.json").write_text("[]")  # not ours, and no report
    asked = ("reproduce", "fig7", "--tiny", "--model", twin, "--output", folder)
    first = json.loads(cli(*asked, "--seeds", "1", "--json", home=home).stdout)
    both = json.loads(cli(*asked, "--seeds", "0,1", "--json", home=home).stdout)
    assert (first["seeds"], both["seeds"]) == ([1], [0, 1])
    [report] = folder.glob("fig7*.json")
    assert json.loads(report.read_text()) == both
    assert [row["avg"][1] for row in both["checkpoints"]] == [row["avg"][0] for row in first["checkpoints"]]
    refused = cli(*asked, "--seeds", "2", "defaults.evaluate.limit=4", home=home, expect=2)
    assert "seeds 0, 1 cannot be pooled" in refused.stderr
    (home / "runs" / "micro-seed-4").touch()
    cli(*asked, "--seeds", "3,4", home=home, expect=1)
    assert json.loads(report.read_text())["seeds"] == [0, 1, 3], "what was measured before a failure is kept"
    report.write_text(report.read_text()[:-9])
    broken = cli(*asked, "--seeds", "2", home=home, expect=2)
    assert f"{report.name}: expected a report, got" in broken.stderr.replace("\n", "")
