"""The controls of a distillation: what the same compute gives without the thing that is claimed to matter.

`controls: [no-teacher, single-stage, ...]` on a `distill` step becomes steps of their own, made from the step itself,
so that nobody can forget one or give it other settings; each is evaluated and probed wherever the step is.

* `no-teacher` sends the bare outcome through the same objective.
* `single-stage` is the teacher's loss at the student's learning rate, steps and prompts.
* `tuned` is the same on as many prompts as teacher and student had together, once for each of several learning rates.
* `restart` is the first half of an ensemble twice: where the second step has a signal of its own, the first's again.
"""

from collections.abc import Iterator, Mapping, Sequence
from math import ceil, sqrt

from erpd_hub import config as c
from erpd_hub.errors import ConfigError
from erpd_hub.names import value_name
from erpd_hub.references import StepRef, parse_reference

Steps = Mapping[str, c.StepConfig]

_SIGNAL_USE = ("signal", "keep_on_right", "keep_on_wrong", "whiten", "whiten_order", "shift_mean", "denominator")
"""What a restart takes over from the first of the two steps."""


def with_controls(rounds: Sequence[Steps], origin: str) -> list[dict[str, c.StepConfig]]:
    """The steps of each round with the controls that they ask for behind them.

    Raises:
        ConfigError: a control that has no meaning for its step, or whose name is taken.
    """
    found = [dict(steps) for steps in rounds]
    for number, steps in enumerate(rounds, 1):
        for name, config in steps.items():
            if not isinstance(config, c.DistillConfig) or not config.controls:
                continue
            made = dict(_Expansion(rounds, number, name, config, origin).controls())
            if taken := next((control for control in made if control in steps), None):
                raise ConfigError(f"{origin}: {name}.controls: the name {taken} is taken by a step of the recipe")
            found[number - 1] = _after(found[number - 1], name, made)
            found = [_measured(steps, at, number, name, made) for at, steps in enumerate(found, 1)]
    return found


class _Expansion:
    """The controls of one step."""

    def __init__(self, rounds: Sequence[Steps], number: int, name: str, config: c.DistillConfig, origin: str) -> None:
        self.rounds, self.number, self.name, self.config = rounds, number, name, config
        self.place = f"{origin}: {name}.controls"

    def controls(self) -> Iterator[tuple[str, c.TrainingConfig]]:
        for control in self.config.controls:
            if control == "no-teacher":
                yield f"{self.name}-no-teacher", self._no_teacher()
            elif control == "restart":
                yield f"{self.name}-restart", self._restart()
            elif control == "single-stage":
                yield f"{self.name}-single-stage", self._single_stage(*self._teacher())
            else:
                yield from self._tuned()

    def _no_teacher(self) -> c.DistillConfig:
        # A mask by the signal's sign, on an outcome, would drop all right or all wrong responses.
        everything = {"keep_on_right": "all", "keep_on_wrong": "all", "denominator": "fixed"}
        reference = parse_reference(self.config.signal) if self.config.signal else None
        number, signal = self._find(self.number, reference) if isinstance(reference, StepRef) else (0, None)
        old = self._seen_here(number, signal.old) if isinstance(signal, c.SignalConfig) else self.config.old
        return self._like_student(advantage="outcome", signal=None, old=old, anchor=old, **everything)

    def _restart(self) -> c.DistillConfig:
        reference = parse_reference(self.config.init)
        first = self._find(self.number, reference)[1] if isinstance(reference, StepRef) else None
        if not isinstance(first, c.DistillConfig) or first.signal is None:
            raise ConfigError(
                f"{self.place}: restart: expected an init that is a distillation by a signal, as in an ensemble, "
                f"got {self.config.init}"
            )
        return self._like_student(**{key: getattr(first, key) for key in _SIGNAL_USE})

    def _like_student(self, **changes: object) -> c.DistillConfig:
        fields = self.config.model_dump() | {"controls": (), "control_of": self.name} | changes
        return c.DistillConfig.model_validate(fields)

    # ----------------------------------------------------------------------------------------- one stage

    def _single_stage(self, number: int, teacher: c.TeacherConfig, **changes: object) -> c.TeacherConfig:
        shared = {key: getattr(self.config, key) for key in c.TrainingConfig.model_fields if key != "stage"}
        # A recovered teacher is held to the unlearned checkpoint it starts from; the control starts from the policy.
        reference = "policy" if teacher.reference == teacher.init else self._seen_here(number, teacher.reference)
        return c.TeacherConfig.model_validate(
            shared
            | {
                "control_of": self.name,
                "rollouts": self.config.rollouts,
                "loss": teacher.loss,
                "truncated": teacher.truncated,
                "reference": reference,
                "old": self._seen_here(number, teacher.old),
                "critic": teacher.critic and self._seen_here(number, teacher.critic),
            }
            | changes
        )

    def _tuned(self) -> Iterator[tuple[str, c.TeacherConfig]]:
        number, teacher = self._teacher()
        steps = self.config.steps + ceil(self._prompts_behind(*self._numerator()) / self.config.prompts_per_step)
        rates = self.config.control_learning_rates or _rates(self.config.learning_rate, teacher.learning_rate)
        for rate in rates:
            control = self._single_stage(number, teacher, learning_rate=rate, steps=steps)
            yield f"{self.name}-tuned-{value_name(rate)}", control

    def _prompts_behind(self, number: int, text: str) -> int:
        """Prompts that a checkpoint of the recipe was trained on, each as often as it was, since the policy it started
        from: what its training cost."""
        if not isinstance(reference := parse_reference(text), StepRef):
            return 0
        at, config = self._find(number, reference)
        if isinstance(config, c.SelectConfig | c.UnlearnedConfig):  # which one wins is not known yet: the dearest
            among = config.candidates or ((config.teacher,) if isinstance(config, c.UnlearnedConfig) else ())
            return max((self._prompts_behind(at, one) for one in among if one), default=0)
        if not isinstance(config, c.TeacherConfig):
            return 0
        return (reference.step or config.steps) * config.prompts_per_step + self._prompts_behind(at, config.init)

    def _signal(self) -> tuple[int, c.SignalConfig]:
        reference = parse_reference(self.config.signal) if self.config.signal else None
        number, config = self._find(self.number, reference) if isinstance(reference, StepRef) else (0, None)
        if not isinstance(config, c.SignalConfig):
            raise ConfigError(f"{self.place}: expected a signal that is a step of the recipe, got {self.config.signal}")
        return number, config

    def _numerator(self) -> tuple[int, str]:
        """The signal's numerator; under a gate that of strategy 1, whose loss has a policy to start from."""
        number, signal = self._signal()
        text = signal.numerator or (signal.choices[1].numerator if 1 in signal.choices else None)
        return number, text or "none"

    def _teacher(self) -> tuple[int, c.TeacherConfig]:
        """The step that trains the teacher, which is the signal's numerator, and its round."""
        at, numerator = self._numerator()
        reference = parse_reference(numerator)
        number, config = self._find(at, reference) if isinstance(reference, StepRef) else (0, None)
        if isinstance(config, c.SelectConfig):  # all candidates of a race are steps of one training, or of its kin
            reference = parse_reference(config.candidates[0])
            number, config = self._find(number, reference) if isinstance(reference, StepRef) else (0, None)
        if not isinstance(config, c.TeacherConfig):
            raise ConfigError(
                f"{self.place}: single-stage and tuned take the teacher's loss: expected a numerator of "
                f"{self.config.signal} that is a teacher step of the recipe, got {numerator}"
            )
        return number, config

    def _find(self, number: int, reference: StepRef) -> tuple[int, c.StepConfig | None]:
        """A step by its reference from round `number`; None where there is none, which the plan says better."""
        at = reference.round or number
        return at, (self.rounds[at - 1].get(reference.name) if at <= len(self.rounds) else None)

    def _seen_here(self, number: int, text: str) -> str:
        """A reference that stands in another round, as this round has to write it."""
        reference = parse_reference(text)
        if number == self.number or not isinstance(reference, StepRef) or reference.round:
            return text
        return str(StepRef(reference.name, number, reference.step))


# ------------------------------------------------------------------------------------------- where they go


def _after(steps: Steps, name: str, made: Mapping[str, c.StepConfig]) -> dict[str, c.StepConfig]:
    placed: dict[str, c.StepConfig] = {}
    for step, config in steps.items():
        placed[step] = config
        if step == name:
            placed |= made
    return placed


def _measured(
    steps: Steps, at: int, number: int, name: str, made: Mapping[str, c.TrainingConfig]
) -> dict[str, c.StepConfig]:
    """The steps of round `at`, in which the controls are measured wherever the step of round `number` is."""
    found = dict(steps)
    for step, config in steps.items():
        if isinstance(config, c.EvaluateConfig | c.ProbeConfig):
            checkpoints = dict.fromkeys(
                text for one in config.checkpoints for text in (one, *_controls_beside(one, at, number, name, made))
            )
            found[step] = config.model_copy(update={"checkpoints": tuple(checkpoints)})
    return found


def _controls_beside(text: str, at: int, number: int, name: str, made: Mapping[str, c.TrainingConfig]) -> Iterator[str]:
    """The controls at the saved step of a reference to the step that they are controls of."""
    reference = parse_reference(text)
    if not isinstance(reference, StepRef) or reference.name != name or (reference.round or at) != number:
        return
    for control, config in made.items():
        if reference.step is None or reference.step in config.kept_steps:
            yield str(StepRef(control, reference.round, reference.step))


def _rates(student: float, teacher: float) -> tuple[float, ...]:
    """Learning rates to tune over: both and the one between, or a third and three times of one that they share."""
    if student == teacher:
        return tuple(float(f"{rate:.2g}") for rate in (student / 3, student, student * 3))
    return tuple(sorted({student, float(f"{sqrt(student * teacher):.2g}"), teacher}))
