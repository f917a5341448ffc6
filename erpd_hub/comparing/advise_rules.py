"""What to try next after a run, and why: a few rules over its page (`advise`), each with what it rests on.

The evidence is the paper's, or what the tiny setting showed; where the two differ, a run's own control decides.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Literal, NamedTuple

from erpd_hub.comparing.advise import Line, Page, loss_type, place, place_in
from erpd_hub.comparing.advise_pairs import Pair, best_pair, strategy_of, was_trained_on
from erpd_hub.noise_floor import drowned

EXPLAINED = 0.9
"""[P Sec. 3.4] An MSE teacher that recovered explains more of the outcome's variance."""
TRUNCATED, TRUNCATED_RISE = 0.10, 0.05
"""[I] Share of samples that end by length, and its rise over the base, from which a score says less."""
ENTROPY_FALL, LENGTH_RISE = 0.25, 0.20
"""[I] Shares of the base's."""
MORE_STEPS = "strategy 1 with more distillation steps"
MORE_STEPS_EVIDENCE = "Table 5: 68.3 at 16 steps, 73.3 at 32; in the tiny setting bad teachers ruin the student past 16"


class Advice(NamedTuple):
    kind: Literal["first", "next", "beside"]
    """Before anything else; the strategy to try; settings to go with it."""
    what: str
    why: str
    evidence: str


def advise(page: Page) -> list[Advice]:
    """What to do first, which strategy to try next, and what to set beside it."""
    return [*_first(page), _next(page), *_beside(page)]


# ------------------------------------------------------------------------------------------------- first


def _first(page: Page) -> Iterator[Advice]:
    if weak := [signal for signal in page.signals if _is_drowned(signal)]:
        ratios = " or ".join(f"{ratio:g}" for ratio in sorted({signal["noise_ratio"] for signal in weak}))
        steps = _names([signal["step"] for signal in weak])
        yield Advice(
            "first",
            "score in float32 and one layout, or train the teacher further",
            f"{steps}: the signal stands less than {ratios} times above its noise floor",
            "scoring noise is of the size of a weak signal (signal's noise_ratio)",
        )
    if cut := [line.ref for line in page.lines if _is_cut(line)]:
        yield Advice(
            "first",
            "give responses more room (max_new_tokens, extend_to) before comparing scores",
            f"{_names(cut)}: many samples end by length, and count as wrong",
            "Sec. 4.1: the response length is extended where the model can use it",
        )
    if unfit := [item["step"] for item in page.mse if _unfit(item["explained_variance"])]:
        used = [step for step in unfit if _is_numerator(step, page)]
        if used:
            yield Advice(
                "first",
                "recover by CE, with the unlearned checkpoint as init and reference",
                f"{_names(used)}: explained variance below {EXPLAINED:g}, so it has not recovered",
                "Sec. 3.4 has above 0.9; Table 8: CE recovery is no worse, and in the tiny setting it is what works",
            )
    if (pair := best_pair(page)) and pair.gain(pair.teacher).lost and _is_ce_of_the_policy(pair.teacher, page):
        yield Advice(
            "first",
            "a larger beta for the teacher, ten times or more",
            f"{pair.gain(pair.teacher)}: it has pushed right responses away with the wrong ones",
            "tiny setting, a thousand tokens: of 53.1 and 52.0 % beta 0.03 leaves 46.5 and 12.5, 1 has 95.3 and 84.0",
        )


def _is_ce_of_the_policy(teacher: Line, page: Page) -> bool:
    """Trained by CE from what sampled; one that recovers starts below."""
    made = (item for item in page.made if item.step == place(teacher.ref))
    return any(loss_type(item) == "ce" and item.config.get("init", "policy") == "policy" for item in made)


def _unfit(explained_variance: float | None) -> bool:
    return explained_variance is not None and explained_variance < EXPLAINED


def _is_drowned(signal: Mapping[str, Any]) -> bool:
    """Where the noise of its scoring was measured, as 0 too."""
    floor = signal["noise_floor"]
    return floor is not None and drowned(signal["std"], floor, signal["noise_ratio"])


def _is_cut(line: Line) -> bool:
    return (line.truncated or 0) > TRUNCATED or (line.truncated_rise or 0) > TRUNCATED_RISE


def _is_numerator(step: str, page: Page) -> bool:
    """Whether a signal of strategy 2 takes a teacher's last step for a recovered one."""
    signals = (item for item in page.made if item.stage == "signal" and strategy_of(item, page.made) == 2)
    return any(
        place_in(str(item.config.get("numerator")), item.step) == step and "@" not in str(item.config.get("numerator"))
        for item in signals
    )


# -------------------------------------------------------------------------------------------------- next


def _next(page: Page) -> Advice:
    """By the last gate, else by the control, else by the teacher's and the student's gains."""
    weak = _weak_strategy(page)
    if page.gates and page.gates[-1]["teacher_better"] is False:
        evidence = "Table 2, rounds 4 to 6: a teacher that no longer gains"
        return Advice("next", weak, page.gates[-1]["reason"], evidence)
    pair = best_pair(page)
    if pair is None:
        why = "no student was evaluated together with its teacher"
        return Advice("next", "strategy 1 with a CE or SAPO teacher", why, "Sec. 4.3 recommends these two; Table 1")
    return _by_control(page, pair, weak) or _by_gains(page, pair, weak)


def _weak_strategy(page: Page) -> str:
    several = any(item.step.startswith("r2/") for item in page.made)
    return "strategy 3 against an earlier student, or strategy 2" if several else "strategy 2"


def _by_control(page: Page, pair: Pair, weak: str) -> Advice | None:
    for item in page.controls:
        if item.student == pair.student.ref and item.is_outcome and not item.better:
            bare = f"the bare outcome ({item.control})"
            verdict = f"{item.student} is {item.difference:+.1f} ± {item.error:.1f} points from its no-teacher control"
            if pair.strategy == 1 and pair.is_far_below and not was_trained_on(pair.student, page):
                why = f"{verdict}; {pair.below()}, and no later step of it was evaluated"
                return Advice("next", f"{bare}, or {MORE_STEPS}", why, MORE_STEPS_EVIDENCE)
            evidence = "tiny setting: weak teachers added nothing beyond this control; the paper has none"
            return Advice("next", f"{bare}, or another teacher: {weak}", verdict, evidence)
    return None


def _by_gains(page: Page, pair: Pair, weak: str) -> Advice:
    student, strategy = pair.student, pair.strategy
    gain, of_teacher = pair.gain(student), pair.gain(pair.teacher)
    if strategy == 1 and not of_teacher.shown:
        evidence = "Sec. 4.3 and Table 2: then weak-teacher strategies are preferable"
        return Advice("next", weak, f"{of_teacher}: no strong teacher", evidence)
    if strategy == 1 and pair.is_below and not was_trained_on(student, page):
        return Advice("next", MORE_STEPS, pair.below(), MORE_STEPS_EVIDENCE)
    if gain.shown:
        what = f"another round of {pair.signal} on fresh prompts, starting from {student.ref}"
        return Advice("next", what, str(gain), "Table 2, rounds 1 to 3 (strategy 1); Table 11 (strategy 2)")
    why = f"{gain}: no more than chance"
    if strategy == 1:
        return Advice("next", weak, why, "Table 2: the change of strategy in round 4")
    if strategy is None:
        return Advice("next", weak, why, "Table 7: the best of the grid, 64.3, is of strategy 2")
    return Advice(
        "next", "an on-policy phase, then strategy 1 from there", why, "Fig. 8: offline rounds gain again after one"
    )


# ------------------------------------------------------------------------------------------------ beside


def _beside(page: Page) -> Iterator[Advice]:
    students = [line for line in page.lines if line.role == "student"]
    if fallen := [
        line.ref for line in students if line.entropy_ratio is not None and line.entropy_ratio < 1 - ENTROPY_FALL
    ]:
        yield Advice(
            "beside",
            "an entropy_weight in distillation, a small one where entropy is small",
            f"{_names(fallen)}: entropy fell by more than {ENTROPY_FALL:.0%} of the base's",
            "Table 6(b): 0.5 held 0.20 nats, and scores rose; in the tiny setting 0.1 kept little, 0.5 cost points",
        )
    if longer := [line.ref for line in students if (line.length_ratio or 1) > 1 + LENGTH_RISE]:
        yield Advice(
            "beside",
            "compare at equal tokens",
            f"{_names(longer)}: responses are more than {LENGTH_RISE:.0%} longer than the base's",
            "Sec. 4.4: strategy 3 lengthens responses",
        )
    pair = best_pair(page)
    rates = (pair.student.gain_per_kl, pair.teacher.gain_per_kl) if pair else (None, None)
    if pair and rates[0] is not None and rates[1] is not None and rates[0] < rates[1]:
        yield Advice(
            "beside",
            "fewer steps, kl_weight 0.05 to 0.1, or a kl_target",
            f"{pair.student.ref} gains less per KL than {pair.teacher.ref}",
            "Table 5",
        )


def _names(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
