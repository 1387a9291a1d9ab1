"""The trials of a search, kept by Optuna in a journal in the sweep's directory, record by record as things happen."""

import itertools
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gan_runner.config.schema import Searching
from gan_runner.errors import UserError
from gan_runner.sweeps.space import Space

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler
    from optuna.trial import FrozenTrial
    from optuna.trial import Trial as OpenTrial

JOURNAL = "study.journal"
FEWEST = 5  # trials with a figure, from which on it is said what mattered


@dataclass(frozen=True)
class Trial:
    """Values for what is searched, and what is known of them. A cost is an objective of which less is better."""

    number: int
    values: dict[str, str]  # as typed, by key
    state: str  # as Optuna calls it, in small letters: running, complete, pruned, fail
    cost: float | None
    job: str | None  # its name
    is_paused: bool  # at a rung


def require_optuna() -> None:
    """Raises `UserError` where Optuna is not installed; has it say no more than warnings."""
    try:
        import optuna
    except ImportError as error:
        raise UserError("hydra/sweeper=search: needs Optuna: pip install 'gan_runner[search]'") from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)  # of what Optuna 5 has for good


class Study:
    """Asks Optuna for trials and tells it of their ends, each once. One process at a time works on a journal."""

    def __init__(self, directory: Path, space: Space, settings: Searching) -> None:
        """Opens the study in `directory`, or begins one. Raises `UserError` if it searches something else."""
        import optuna
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend

        self.space, self.settings = space, settings
        journal = directory / JOURNAL
        journal.with_name(f"{JOURNAL}.lock").unlink(missing_ok=True)  # of a command that was killed
        _remove_half_a_line(journal)
        storage = JournalStorage(JournalFileBackend(str(journal)))
        self._study = optuna.create_study(storage=storage, study_name="search", load_if_exists=True)
        self._refuse_other_space()

    def _refuse_other_space(self) -> None:
        """UserError if what is searched is not what it was: the trials so far would tell nothing."""
        from optuna.distributions import distribution_to_json

        now = {
            key: (numbers.typed, distribution_to_json(numbers.distribution())) for key, numbers in self.space.items()
        }
        before = self._study.user_attrs.get("space")
        if before is None:
            self._study.set_user_attr("space", now)
            return
        for key in {**before, **now}:
            (was, meaning), (found, meaning_now) = before.get(key, ("nothing", "")), now.get(key, ("nothing", ""))
            if meaning != meaning_now:
                raise UserError(f"{key}: this search chooses from {was}, found {found}; give another one another name")

    def _trials(self) -> "list[FrozenTrial]":
        from optuna.trial import TrialState

        return [trial for trial in self._study.get_trials(deepcopy=False) if trial.state != TrialState.WAITING]

    def trials(self) -> list[Trial]:
        """All trials that were ever begun, in their order."""
        return [self._trial(found) for found in self._trials()]

    def _trial(self, found: "FrozenTrial") -> Trial:
        values = {key: numbers.word(found.params[key]) for key, numbers in self.space.items() if key in found.params}
        state, notes = found.state.name.lower(), found.user_attrs
        return Trial(found.number, values, state, found.value, notes.get("job"), notes.get("paused", False))

    def count(self, state: str) -> int:
        """How many trials are in this state."""
        return sum(trial.state.name.lower() == state for trial in self._trials())

    def left(self) -> int:
        """How many trials may still begin."""
        most = self.settings.trials
        if self.settings.sampler == "grid":
            most = min(most, math.prod(len(numbers.values or ()) for numbers in self.space.values()))
        return max(0, most - len(self._trials()))

    def ask(self) -> Trial | None:
        """A new trial; None if the budget is used up, or all combinations are."""
        if not self.left():
            return None
        number = len(self._trials())
        if self.settings.sampler == "grid" and len(self._study.get_trials(deepcopy=False)) == number:
            combinations = itertools.product(*(numbers.values or () for numbers in self.space.values()))
            values = next(itertools.islice(combinations, number, None))
            self._study.enqueue_trial(dict(zip(self.space, values, strict=True)))
        self._study.sampler = self._sampler(number)
        return self._draw(self._study.ask())

    def taken_on(self, number: int) -> Trial:
        """An open trial; what it lacks, if the command was killed while it was drawn, is drawn now."""
        self._study.sampler = self._sampler(number)
        return self._draw(self._open(number))

    def _draw(self, trial: "OpenTrial") -> Trial:
        for key, numbers in self.space.items():
            numbers.suggest(trial, key)
        return self._trial(self._trials()[trial.number])

    def _sampler(self, number: int) -> "BaseSampler":
        """Another one for each trial: what is drawn depends on seed, number and what was told, on nothing else."""
        from optuna.samplers import RandomSampler, TPESampler

        seed = int(np.random.SeedSequence([self.settings.seed, number]).generate_state(1)[0])
        if self.settings.sampler == "tpe":
            return TPESampler(seed=seed, constant_liar=True)  # which keeps trials side by side apart
        return RandomSampler(seed=seed)

    def _open(self, number: int) -> "OpenTrial":
        from optuna.trial import Trial

        return Trial(self._study, self._study.get_trials(deepcopy=False)[number]._trial_id)

    def note(self, number: int, name: str, value: Any) -> None:
        """Notes the `job` of an open trial, or that it is `paused`."""
        self._open(number).set_user_attr(name, value)

    def tell(self, number: int, cost: float | None) -> None:
        """The trial has ended with this cost, infinite for the worst; None: it says nothing of its values."""
        from optuna.trial import TrialState

        self._study.tell(number, cost, None if cost is not None else TrialState.FAIL)

    def prune(self, number: int, costs: Sequence[tuple[int, float]]) -> None:
        """The trial does not go on; `costs` are what is known of it, by step."""
        from optuna.trial import TrialState

        trial = self._open(number)
        for step, cost in costs:
            trial.report(cost, step)
        self._study.tell(number, state=TrialState.PRUNED)

    def importances(self) -> dict[str, float]:
        """How much of the differences between the costs each key explains, from 0 to 1; {} if that cannot be said."""
        from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
        from optuna.trial import TrialState

        costs = [trial.value for trial in self._trials() if trial.state == TrialState.COMPLETE]
        finite = [cost for cost in costs if cost is not None and math.isfinite(cost)]
        if len(finite) < FEWEST or len(set(finite)) == 1:
            return {}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it weighs the best tenth against all, which may be the same
            return get_param_importances(self._study, evaluator=PedAnovaImportanceEvaluator())


def _remove_half_a_line(journal: Path) -> None:
    """A full disk may have cut the last record, to which Optuna would append."""
    if journal.exists() and not (content := journal.read_bytes()).endswith(b"\n"):
        journal.write_bytes(content[: content.rfind(b"\n") + 1])
