"""The result of an evaluation: figures with all that they depend on, failures, pictures."""

import math
from dataclasses import dataclass, field
from typing import Any

from gan_runner.console import rounded
from gan_runner.metrics import Goal
from gan_runner.pictures import Picture


@dataclass(frozen=True)
class Figure:
    """A number and all that it depends on."""

    metric: str
    value: float  # NaN if it is undefined for these samples
    perfect: float | None  # the same for other real samples in place of generated ones
    goal: Goal | None
    samples: int
    real_samples: int
    real: str  # which real samples
    perfect_samples: int
    held_out: str  # which other real samples
    extractor: str | None
    extractor_hash: str | None

    @property
    def perfect_sampler(self) -> str:
        """`perfect` in words, with its N if there were fewer other real samples than generated ones."""
        if self.perfect is None:
            return ""
        fewer = "" if self.perfect_samples == self.samples else f" at N {self.perfect_samples:,}"
        return f"a perfect sampler {rounded(self.perfect)}{fewer}"


@dataclass
class Report:
    """The result of an evaluation."""

    figures: dict[str, Figure] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)  # by metric, the reason in one line
    pictures: dict[str, Picture] = field(default_factory=dict)

    def row(self) -> dict[str, float]:
        """The figures as a row for the logger, without undefined ones."""
        return {f"metric/{name}": f.value for name, f in self.figures.items() if math.isfinite(f.value)}

    def to_json(self) -> dict[str, Any]:
        """The content of evaluation.json, with null for undefined figures."""
        figures = {name: {key: _finite(v) for key, v in vars(f).items()} for name, f in self.figures.items()}
        return {"figures": figures, "failures": self.failures}


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
