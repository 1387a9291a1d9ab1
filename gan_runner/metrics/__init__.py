"""The metrics: each class is a choice of the group `metric`.

A metric is a function of samples alone. A perfect sampler's score is its value for data that training never saw.
"""

from gan_runner.metrics.base import Extracted, Extractor, Goal, Goals, LazyImages, Metric, Need, Samples
from gan_runner.metrics.classes import ClassBalance, LabelAccuracy, StackedModes
from gan_runner.metrics.moments import FID, KID
from gan_runner.metrics.neighbours import BirthdayParadox, DensityCoverage, NearestNeighbours, PrecisionRecall
from gan_runner.metrics.truth import JensenShannon, ModeCoverage, PatternError, jensen_shannon, masses, pattern_error
