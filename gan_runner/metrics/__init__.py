"""Measures of generated samples: each class is one choice of the group `metric`, above the pure functions it rests on.

A metric is a function of samples alone, so that what a perfect sampler would score at the same N is the same function
of data that training never saw.
"""

from gan_runner.metrics.base import Extractor, Goal, Goals, Metric, Need, Rows, Samples, Stored
from gan_runner.metrics.classes import ClassBalance, LabelAccuracy, StackedModes
from gan_runner.metrics.moments import FID, KID
from gan_runner.metrics.neighbours import BirthdayParadox, DensityCoverage, NearestNeighbours, PrecisionRecall
from gan_runner.metrics.truth import JensenShannon, ModeCoverage, PatternError, jensen_shannon, masses, pattern_error

__all__ = [
    "FID",
    "KID",
    "BirthdayParadox",
    "ClassBalance",
    "DensityCoverage",
    "Extractor",
    "Goal",
    "Goals",
    "JensenShannon",
    "LabelAccuracy",
    "Metric",
    "ModeCoverage",
    "NearestNeighbours",
    "Need",
    "PatternError",
    "PrecisionRecall",
    "Rows",
    "Samples",
    "StackedModes",
    "Stored",
    "jensen_shannon",
    "masses",
    "pattern_error",
]
