"""The doctor, while the training runs."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from gan_runner.console import log_traceback, say
from gan_runner.health.doctor import Doctor, Finding
from gan_runner.observers.base import Moment, NotFinite
from gan_runner.observers.log import AfterOthers
from gan_runner.observers.networks import Networks
from gan_runner.runs.directory import RunDirectory
from gan_runner.runs.logger import Logger
from gan_runner.stopping import stopping


@dataclass
class Health(AfterOthers):
    """Has the doctor examine the networks at its own steps, and take in every row that is logged.

    What is found is said once, and health.json has what the doctor makes of the run. A doctor that fails ends nothing:
    it is off for the rest of the run.
    """

    make_doctor: Callable[[], Doctor]
    networks: Networks
    directory: RunDirectory
    logger: Logger

    def __post_init__(self) -> None:
        self.doctor: Doctor | None = None
        self.written: dict[str, Any] = {}  # the last report; an equal one is not written again
        with self.surviving():
            self.doctor = self.make_doctor()

    def is_due(self, step: int) -> bool:
        return self.doctor is not None and super().is_due(step)

    def __call__(self, moment: Moment) -> None:
        with self.surviving() as doctor:
            if moment.step % self.every == 0 or moment.step == self.steps:
                networks = self.networks
                with stopping.may_leave():
                    figures = doctor.examine(networks.generate, networks.generator, networks.discriminator)
                moment.row |= figures
                self.tell(doctor, doctor.add({"step": moment.step, **moment.row}))
            elif moment.row:
                doctor.add({"step": moment.step, **moment.row})

    def end(self, error: BaseException | None) -> None:
        if isinstance(error, NotFinite):
            with self.surviving() as doctor:
                self.tell(doctor, [doctor.diverged(self.networks.state.step, str(error))])

    def tell(self, doctor: Doctor, findings: Sequence[Finding]) -> None:
        """Says what was found for the first time, and writes health.json where there is news."""
        for finding in findings:
            say(f"doctor: {finding}")
            self.logger.text(f"health/{finding.name}", str(finding), finding.step)
        report = doctor.report()
        news = {key: value for key, value in report.items() if key != "step"}
        if news != self.written or report["step"] == self.steps:  # each time would take 3 % of a small run
            self.written = news
            self.directory.write_json("health.json", report, durable=report["step"] == self.steps)

    @property
    def present(self) -> list[str]:
        """The findings that hold."""
        return [] if self.doctor is None else self.doctor.present

    @property
    def verdict(self) -> str | None:
        """What the doctor makes of the run, None where it is off."""
        return None if self.doctor is None else self.doctor.report()["verdict"]

    @contextmanager
    def surviving(self) -> Iterator[Any]:
        """The doctor, which is off from now on if it fails."""
        try:
            yield self.doctor
        except Exception as error:
            say(f"warning: the doctor failed and is off for the rest of this run: {type(error).__name__}: {error}")
            log_traceback(error)
            self.doctor = None
