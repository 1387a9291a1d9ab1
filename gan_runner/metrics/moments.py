"""Distances between the distributions of features, by torch-fidelity."""

from functools import partial
from typing import ClassVar

from pydantic import PositiveInt

from gan_runner.datasets import Dataset
from gan_runner.errors import UserError
from gan_runner.metrics.base import Goals, Metric, Samples
from gan_runner.stopping import answering


class FID(Metric):
    """The Fréchet distance |μ₁ − μ₂|² + tr(Σ₁ + Σ₂ − 2(Σ₁Σ₂)^½) of features taken as Gaussian (Heusel et al. 2017)."""

    goals: ClassVar[Goals] = {"fid": "min"}
    needs = "features"

    def min_samples(self, features: int) -> int:
        """With fewer, a covariance would be singular and the distance far too large."""
        return features + 1

    def measure(self, fake: Samples, real: Samples, dataset: Dataset) -> dict[str, float]:
        from torch_fidelity.metric_fid import KEY_METRIC_FID, fid_features_to_statistics, fid_statistics_to_metric

        self.require_enough(fake, real)
        # With Inception's features each of the two takes longer than a stop may wait.
        features = [samples.features.double() for samples in (fake, real)]
        statistics = [answering(fid_features_to_statistics, each) for each in features]
        return {"fid": answering(partial(fid_statistics_to_metric, verbose=False), *statistics)[KEY_METRIC_FID]}


class KID(Metric):
    """The squared maximum mean discrepancy of features under the kernel (x·y / F + 1)³ (Bińkowski et al. 2018).

    The estimate is unbiased, so it can be below 0. It is the mean over `subsets` random pairs of subsets of
    `subset_size`, which are the same at each evaluation.
    """

    goals: ClassVar[Goals] = {"kid": "min"}
    needs = "features"

    def __init__(self, samples: PositiveInt, subsets: PositiveInt, subset_size: PositiveInt) -> None:
        super().__init__(samples)
        if subset_size > samples:
            raise UserError(f"metric.kid.subset_size is {subset_size}; allowed: at most metric.kid.samples, {samples}")
        self.subsets, self.subset_size = subsets, subset_size

    def min_samples(self, features: int) -> int:
        return self.subset_size

    def measure(self, fake: Samples, real: Samples, dataset: Dataset) -> dict[str, float]:
        from torch_fidelity.metric_kid import KEY_METRIC_KID_MEAN, kid_features_to_metric

        self.require_enough(fake, real)
        result = kid_features_to_metric(
            fake.features.double(),
            real.features.double(),
            kid_subsets=self.subsets,
            kid_subset_size=self.subset_size,
            rng_seed=0,
            verbose=False,
        )
        return {"kid": result[KEY_METRIC_KID_MEAN]}
