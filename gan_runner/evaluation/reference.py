"""The real samples of an evaluation, and held-out ones, which a perfect sampler could have drawn."""

from collections.abc import Collection, Sized
from dataclasses import dataclass

from gan_runner.datasets import ArrayDataset, DataFacts, Dataset
from gan_runner.metrics import LazyImages, Metric, Samples

TRAINING = "training data"


@dataclass
class ReferenceSamples:
    """Real samples, from training data and held out from it.

    Generated samples are compared with one of them; the other takes the place of a perfect sampler's.
    """

    training: Samples
    held_out: Samples
    training_for_held_out: int  # held-out samples are compared with this many of the first training ones
    origin: str  # where the held-out samples come from


def read_reference(
    dataset: Dataset, metrics: Collection[Metric], limit: int | None, against_held_out: bool
) -> ReferenceSamples:
    """As many samples as the metrics need, but at most `limit` to compare with (None: all).

    Without held-out data, the second half of the training data takes their place.
    """
    most, source = max(metric.samples for metric in metrics), dataset.held_out()
    if source is None:
        training = _read(dataset, limit, endless=2 * most, seed=0)
        half = len(training) // 2
        origin = "half of the training data, held against the other half"
        return ReferenceSamples(training, training[half:], half, origin)
    if all(metric.against != "all" for metric in metrics):
        limit = min(most, limit or most)
    of_training, of_held_out = (most, limit) if against_held_out else (limit, most)
    if against_held_out and any(metric.seeks_copies for metric in metrics):
        of_training = None if limit is None else max(most, limit)
    training = _read(dataset, of_training, endless=most, seed=0)
    held_out = _read(source, of_held_out, endless=most, seed=1)
    origin = "fresh samples" if source is dataset else "data held out from training"
    return ReferenceSamples(training, held_out, len(training), origin)


def _read(dataset: Dataset, most: int | None, endless: int, seed: int) -> Samples:
    """Up to `most` samples of a finite dataset (None: all), shuffled by `seed`; of a distribution, `endless`."""
    facts = DataFacts.of(dataset)
    if isinstance(dataset, ArrayDataset) and facts.is_image:
        indices = dataset.order(seed, 0)[:most]
        labels = None if dataset.labels is None else dataset.labels[indices].cpu()
        return Samples(LazyImages(dataset, indices), labels)
    count = min(most or len(dataset), len(dataset)) if isinstance(dataset, Sized) else endless
    values, labels = dataset.batch(0, count, seed)
    return Samples(facts.in_data_units(values.cpu()), None if labels is None else labels.cpu())
