"""The real samples of an evaluation, and held-out ones, which a perfect sampler could have drawn."""

from collections.abc import Collection, Sized
from dataclasses import dataclass

from gan_runner.datasets import ArrayDataset, DataFacts, Dataset
from gan_runner.metrics import LazyImages, Metric, Samples


@dataclass
class ReferenceSamples:
    """Real samples to compare generated ones with, and held-out ones in place of a perfect sampler's."""

    real: Samples
    held_out: Samples
    real_for_held_out: int  # held-out samples are compared with this many of the first real ones
    origin: str  # where the held-out samples come from


def read_reference(dataset: Dataset, metrics: Collection[Metric], limit: int | None) -> ReferenceSamples:
    """As many samples as the metrics need, but at most `limit` real ones (None: all).

    Without held-out data, the second half of the real samples takes their place.
    """
    most, source = max(metric.samples for metric in metrics), dataset.held_out()
    if source is None:
        real = _read(dataset, limit, endless=2 * most, seed=0)
        half = len(real) // 2
        return ReferenceSamples(real, real[half:], half, "half of the training data, held against the other half")
    if all(metric.against != "all" for metric in metrics):
        limit = min(most, limit or most)
    real, held_out = _read(dataset, limit, endless=most, seed=0), _read(source, most, endless=most, seed=1)
    origin = "fresh samples" if source is dataset else "data held out from training"
    return ReferenceSamples(real, held_out, len(real), origin)


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
