"""Metrics of the classes that a classifier predicts for generated images."""

from typing import ClassVar

import torch
from torch import Tensor

from gan_runner.datasets import Dataset, StackedMNIST
from gan_runner.metrics.base import Goals, Metric, Samples
from gan_runner.metrics.truth import kl


class StackedModes(Metric):
    """How many of the 1,000 modes of Stacked MNIST (three digits each) are generated, and how evenly.

    `reverse_kl` is KL(generated ‖ uniform) in nats (Metz et al. 2017; Lin et al. 2018, at 26,000 samples).
    """

    goals: ClassVar[Goals] = {"modes": "max", "reverse_kl": "min"}
    needs = "classes"
    against = "none"
    measures = StackedMNIST
    and_not = "counts the modes of Stacked MNIST, and {} has others"

    def measure(self, fake: Samples, real: Samples, dataset: Dataset) -> dict[str, float]:
        assert isinstance(dataset, StackedMNIST)
        counts = torch.bincount(fake.predicted, minlength=dataset.num_modes)
        return {"modes": float((counts > 0).sum()), "reverse_kl": kl(counts, torch.ones(dataset.num_modes))}


class ClassBalance(Metric):
    """Whether classes are as frequent as in the data: KL(generated ‖ data) in nats, of the predicted classes.

    A class that is not generated adds nothing. One that is not in the data counts there as a single sample, so that the
    divergence stays finite. `classes_found` is how many of the data's classes are generated at all.
    """

    goals: ClassVar[Goals] = {"class_kl": "min", "classes_found": "max"}
    needs = "classes"

    def measure(self, fake: Samples, real: Samples, dataset: Dataset) -> dict[str, float]:
        """Real samples are classified, too, so that the classifier's errors affect both."""
        classes = 1 + int(max(fake.predicted.max(), real.predicted.max()))
        generated, true = (torch.bincount(samples.predicted, minlength=classes) for samples in (fake, real))
        found = ((generated > 0) & (true > 0)).sum()
        return {"class_kl": kl(generated, true.clamp_min(1)), "classes_found": float(found)}


class LabelAccuracy(Metric):
    """Whether a conditional generator makes the class it is asked for, and with as much variety as the data have.

    `label_accuracy` is the share of samples that are classified as the class asked for (the GAN-test of Shmelkov et al.
    2018). `class_diversity` is the mean distance between the features of two samples of a class, averaged over classes,
    divided by that of the data: 1 is right, 0 means that each class has a single sample.
    """

    goals: ClassVar[Goals] = {"label_accuracy": "max", "class_diversity": None}
    needs = "classes"
    against = "as many"  # because all pairs of a class are in memory at once

    def why_not_applicable(self, dataset: Dataset, conditional: bool) -> str | None:
        if not conditional:
            return "compares samples with the labels asked for, and this generator is not conditional"
        if dataset.cluster_sizes:
            return "compares samples with the labels asked for, and these are clusters"
        return super().why_not_applicable(dataset, conditional)

    def measure(self, fake: Samples, real: Samples, dataset: Dataset) -> dict[str, float]:
        """Raises `ValueError` if no class has two generated and two real samples."""
        asked, true = fake.labels, real.labels
        assert asked is not None
        assert true is not None
        counts = [torch.bincount(labels, minlength=dataset.num_classes) for labels in (asked, true)]
        classes = (torch.minimum(*counts) > 1).nonzero().flatten().tolist()
        if not classes:
            raise ValueError("needs two samples of a class, generated and real")
        diversity = _diversity(fake.features, asked, classes) / _diversity(real.features, true, classes)
        return {"label_accuracy": float((fake.predicted == asked).double().mean()), "class_diversity": diversity}


def _diversity(features: Tensor, labels: Tensor, classes: list[int]) -> float:
    """The mean over `classes` of the mean distance between the features of two samples of a class."""
    return sum(float(torch.pdist(features[labels == c].double()).mean()) for c in classes) / len(classes)
