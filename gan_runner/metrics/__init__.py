"""Measures of generated samples: each class is one choice of the group `metric`, above the pure functions it rests on.

A metric is a function of samples alone, so that what a perfect sampler would score at the same N is the same function
of data that training never saw.
"""

from gan_runner.metrics.base import Extracted, Extractor, Goal, Goals, LazyImages, Metric, Need, Samples
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
    "Extracted",
    "Extractor",
    "Goal",
    "Goals",
    "JensenShannon",
    "LabelAccuracy",
    "LazyImages",
    "Metric",
    "ModeCoverage",
    "NearestNeighbours",
    "Need",
    "PatternError",
    "PrecisionRecall",
    "Samples",
    "StackedModes",
    "jensen_shannon",
    "masses",
    "pattern_error",
]
