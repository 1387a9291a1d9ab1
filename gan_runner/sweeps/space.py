"""What a search chooses from, as typed in Hydra's grammar: interval(…), range(…), choice(…) or a,b,c."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep, Sweep

from gan_runner.errors import UserError
from gan_runner.overrides import as_typed

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.trial import Trial

DIGITS = 4  # significant ones of a number from an interval


@dataclass(frozen=True)
class Numbers:
    """Numbers from `low` to `high`, both included: integers if both are."""

    typed: str
    low: float
    high: float
    step: float | None = None  # None: all between, which for integers is 1
    log: bool = False  # as many between 1 and 10 as between 10 and 100

    @property
    def values(self) -> list[float] | None:
        """All of them; None if they cannot be counted."""
        if self.step is None:
            return None
        count = round((self.high - self.low) / self.step) + 1
        return [_exact(self.low + number * self.step) for number in range(count)]

    def distribution(self) -> "BaseDistribution":
        """Optuna's name for it."""
        from optuna.distributions import FloatDistribution, IntDistribution

        if isinstance(self.low, int) and isinstance(self.high, int):
            return IntDistribution(self.low, self.high, log=self.log, step=int(self.step or 1))
        return FloatDistribution(self.low, self.high, log=self.log, step=self.step)

    def suggest(self, trial: "Trial", key: str) -> None:
        """Draws one, unless the trial has one."""
        if isinstance(self.low, int) and isinstance(self.high, int):
            trial.suggest_int(key, self.low, self.high, log=self.log, step=int(self.step or 1))
        else:
            trial.suggest_float(key, self.low, self.high, log=self.log, step=self.step)

    def word(self, drawn: float) -> str:
        """A drawn number as it is typed and used: rounded, so that a job's name says its value."""
        if isinstance(drawn, int):
            return str(drawn)
        rounded = float(f"{drawn:.{DIGITS}g}") if self.step is None else _exact(drawn)
        return repr(min(max(rounded, float(self.low)), float(self.high)))


@dataclass(frozen=True)
class Choices:
    """Any of these values, in no order."""

    typed: str
    values: list[str]

    def distribution(self) -> "BaseDistribution":
        """Optuna's name for it."""
        from optuna.distributions import CategoricalDistribution

        return CategoricalDistribution(self.values)

    def suggest(self, trial: "Trial", key: str) -> None:
        """Draws one, unless the trial has one."""
        trial.suggest_categorical(key, self.values)

    def word(self, drawn: str) -> str:
        """It is as it was typed."""
        return drawn


Space = Mapping[str, Numbers | Choices]


def dimension(override: Override) -> Numbers | Choices:
    """What `override` lets a search choose from; raises `UserError`."""
    sweep, key = override.value(), override.get_key_element()
    typed = str(override.input_line).removeprefix(f"{key}=")
    tags = sweep.tags if isinstance(sweep, Sweep) else set()
    is_log = tags == {"log"} and isinstance(sweep, IntervalSweep)
    if tags and not is_log:
        raise UserError(f"{key}: found {typed}; the one tag that means something is log, of an interval")
    match sweep:
        case IntervalSweep(start=low, end=high):
            assert low is not None
            assert high is not None
            if low >= high or (is_log and low <= 0):
                above = ", above 0 for tag(log,…)" if is_log else ""
                raise UserError(f"{key}: found {typed}; an interval goes from a lower to a higher number{above}")
            return Numbers(typed, low, high, log=is_log)
        case RangeSweep(step=step):
            numbers = sorted(_exact(number) for number in sweep.range())
            if not numbers:
                raise UserError(f"{key}={typed}: stands for nothing")
            return Numbers(typed, numbers[0], numbers[-1], step=abs(step))
    choices = list(dict.fromkeys(as_typed(key, value) for value in override.sweep_string_iterator()))
    if not choices:
        raise UserError(f"{key}={typed}: stands for nothing")
    return Choices(typed, choices)


def _exact(number: float) -> float:
    """0.3 for 0.30000000000000004, which sums give."""
    return number if isinstance(number, int) else float(f"{number:.12g}")
