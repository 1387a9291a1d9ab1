"""What an evaluation finds: figures with all that they depend on, failures, pictures."""

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
    value: float  # NaN where the samples leave it undefined
    perfect: float | None  # the same of held-out data in place of generated samples
    goal: Goal | None
    samples: int
    real_samples: int
    perfect_samples: int
    held_out: str  # where the held-out data come from
    extractor: str | None
    extractor_hash: str | None

    @property
    def perfect_sampler(self) -> str:
        """`perfect` in words, with its N where there were fewer held-out samples than generated ones."""
        if self.perfect is None:
            return ""
        fewer = "" if self.perfect_samples == self.samples else f" at N {self.perfect_samples:,}"
        return f"a perfect sampler {rounded(self.perfect)}{fewer}"


@dataclass
class Report:
    """What an evaluation found."""

    figures: dict[str, Figure] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)  # the reason in one line, by metric
    pictures: dict[str, Picture] = field(default_factory=dict)

    def row(self) -> dict[str, float]:
        """The figures as the logger wants them; what is undefined is left out."""
        return {f"metric/{name}": f.value for name, f in self.figures.items() if math.isfinite(f.value)}

    def to_json(self) -> dict[str, Any]:
        """The content of evaluation.json; null for what is undefined."""
        figures = {name: {key: _finite(v) for key, v in vars(f).items()} for name, f in self.figures.items()}
        return {"figures": figures, "failures": self.failures}


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
