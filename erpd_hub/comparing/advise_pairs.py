"""The student that a page's advice is about, its teacher, and which strategy its signal follows."""

from collections.abc import Iterable
from math import inf, sqrt
from typing import NamedTuple

from erpd_hub.comparing.advise import Line, Made, Page, checkpoint_in, loss_type, place, place_in
from erpd_hub.references import StepRef, parse_reference


class Pair(NamedTuple):
    """A student, the teacher it was distilled from, and how."""

    student: Line
    teacher: Line
    strategy: int | None
    """None: another signal than those of the three."""
    signal: str
    """`strategy 1`; numerator and denominator of another."""
    start: Line | None
    """The policy that both started from; None is the base, or one that was not evaluated."""

    @property
    def error(self) -> float:
        """Of the difference of the two gains."""
        return _error(self.student, self.teacher)

    @property
    def shortfall(self) -> float:
        """Points that the student stands below its teacher."""
        return self.teacher.gain - self.student.gain

    @property
    def is_below(self) -> bool:
        return self.shortfall > 2 * self.error

    @property
    def is_far_below(self) -> bool:
        """By more than the student gained, which is not worse than its start."""
        gain = self.gain(self.student)
        return self.is_below and self.shortfall > gain.points and not gain.lost

    def below(self) -> str:
        return f"{self.student.ref} is {self.shortfall:.1f} ± {self.error:.1f} points below {self.teacher.ref}"

    def gain(self, line: Line) -> "Gain":
        """What a line of the pair gains over its round's start."""
        if self.start is None:
            return Gain(line.ref, "the base", line.gain, line.error)
        return Gain(line.ref, self.start.ref, line.gain - self.start.gain, _error(line, self.start))


class Gain(NamedTuple):
    """What a checkpoint gains over another, in points of AVG@K, and its standard error."""

    ref: str
    over: str
    points: float
    error: float

    @property
    def shown(self) -> bool:
        return self.points > 2 * self.error

    @property
    def lost(self) -> bool:
        """More than chance, as `shown`."""
        return self.points < -2 * self.error

    def __str__(self) -> str:
        return f"{self.ref} gains {self.points:+.1f} ± {self.error:.1f} points over {self.over}"


def _error(one: Line, other: Line) -> float:
    """Of the difference of two checkpoints: the base's error cancels."""
    return sqrt(one.own_error**2 + other.own_error**2)


def best_pair(page: Page) -> Pair | None:
    """The best student of the last round that has one whose teacher was evaluated too."""
    made = {item.step: item for item in page.made}
    lines = {checkpoint_in(line.ref, "r1/"): line for line in page.lines}
    by_digest = {line.digest: line for line in page.lines if line.digest}
    pairs = []
    for student in (line for line in page.lines if line.role == "student"):
        at = place(student.ref)
        config = made[at].config if at in made else {}
        signal = made.get(place_in(str(config.get("signal") or "none"), at))
        if signal is None:
            continue
        numerator = str(signal.config.get("numerator") or "none")
        teacher = lines.get(checkpoint_in(numerator, signal.step))
        if teacher is not None:
            drawn = made.get(place_in(str(config.get("rollouts") or "none"), at))
            start = by_digest.get(drawn.inputs.get("policy", "")) if drawn else None
            strategy = 1 if config.get("denominator") == "evolving" else strategy_of(signal, page.made)
            name = f"strategy {strategy}" if strategy else f"{numerator} against {signal.config.get('denominator')}"
            pairs.append(Pair(student, teacher, strategy, name, start))
    return max(pairs, key=lambda pair: (_round(pair.student), pair.student.avg), default=None)


def _round(line: Line) -> int:
    return int(place(line.ref).partition("/")[0].removeprefix("r"))


def strategy_of(signal: Made, made: Iterable[Made]) -> int | None:
    """The strategy that is stated, else the one that the denominator makes it: 1 against the policy that sampled, 2
    against an unlearned checkpoint, 3 against an earlier student, None against anything else or nothing."""
    if stated := signal.config.get("strategy"):
        return int(stated)
    denominator = str(signal.config.get("denominator", "policy"))
    scores = signal.inputs.get("denominator")
    if denominator == "policy" or (scores is not None and scores == signal.inputs.get("old")):
        return 1
    source = next((item for item in made if item.step == place_in(denominator, signal.step)), None)
    if source is None:
        return None
    if source.stage == "distill":
        return 3
    return 2 if source.stage == "unlearned" or loss_type(source) == "mse" else None


def was_trained_on(student: Line, page: Page) -> bool:
    """Whether a later step of the same training was evaluated."""
    same = (line for line in page.lines if place(line.ref) == place(student.ref))
    return any(_saved_step(line) > _saved_step(student) for line in same)


def _saved_step(line: Line) -> float:
    """Infinity for the last."""
    reference = parse_reference(line.ref)
    return reference.step if isinstance(reference, StepRef) and reference.step is not None else inf
