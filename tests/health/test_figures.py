"""The figures of an examination, computed independently."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gan_runner.health.doctor import Doctor
from gan_runner.health.figures import DataStatistics, dead_share, recorded_slopes
from tests.health.by_hand import MNIST, a_context


def test_figures_of_points_against_numpy():
    noise = np.random.default_rng(0)
    real = noise.normal(size=(40, 3)) * [3.0, 2.0, 1.0] + [1.0, 0.0, -1.0]
    made = noise.normal(size=(40, 3)) * [1.5, 2.0, 0.5] + [1.0, 2.0, -1.0]
    found = DataStatistics(torch.tensor(real), None).compare(torch.tensor(made))
    axes = np.linalg.eigh(np.cov(real.T))[1]  # columns
    spreads = [(points @ axes).std(0) for points in (real, made)]
    distances = np.linalg.norm(real[:, None] - real[None], axis=2)
    radii = np.sort(distances, axis=1)[:, 5]  # the first is the point itself
    nearest = np.linalg.norm(real[:, None] - made[None], axis=2).min(1)
    span = real.max() - real.min()
    assert found == pytest.approx(
        {
            "lowest": (made.min() - real.min()) / span,
            "highest": (made.max() - real.max()) / span,
            "mean_error": np.sqrt(((made.mean(0) - real.mean(0)) ** 2).mean() / real.var(0, ddof=1).mean()),
            "diversity": np.prod(spreads[1] / spreads[0]) ** (1 / 3),
            "coverage": (nearest <= radii).mean(),
        }
    )


def test_diversity_of_labelled_data_is_within_a_class():
    labels = torch.arange(200) % 2
    real = torch.randn(200, 2, generator=torch.Generator().manual_seed(0)) + 10 * labels.unsqueeze(1)
    centres = torch.stack([real[labels == 0].mean(0), real[labels == 1].mean(0)])[labels]
    one_for_each_class = centres + 0.01 * (real - centres)
    assert DataStatistics(real, labels).compare(one_for_each_class)["diversity"] == pytest.approx(0.01, rel=1e-3)
    assert DataStatistics(real, None).compare(one_for_each_class)["diversity"] > 0.05


def test_figures_that_data_without_spread_leave_undefined_are_left_out():
    assert set(DataStatistics(torch.ones(20, 2), None).compare(torch.ones(20, 2))) == {"coverage"}


def test_data_that_repeat_themselves_are_covered_by_what_is_near_them():
    few = torch.arange(12.0).unsqueeze(1) * torch.tensor([1.0, 0.0])
    real = few.repeat(5, 1)  # five epochs of a small dataset
    assert DataStatistics(real, None).compare(real + 0.1)["coverage"] == 1
    assert DataStatistics(real, None).compare(real + 100)["coverage"] == 0


@pytest.mark.parametrize(("noise", "expected"), [(0.0, 1.0), (1e-3, 1.0), (1.0, 0.0)])
def test_copies_of_training_images_are_noticed(noise, expected):
    context = a_context(*MNIST)
    images = iter(range(10))

    def generate(z: Tensor, labels: Tensor | None) -> Tensor:
        made, _ = context.dataset.batch(next(images), len(z), seed=1)
        return made + noise * torch.randn(made.shape, generator=torch.Generator().manual_seed(0))

    seen = Doctor(context, []).examine(generate, context.generator, context.discriminator)
    assert seen["health/memorised"] == expected


def test_dead_units_are_counted_by_hand():
    first, second, last = nn.Linear(2, 4), nn.Linear(4, 2), nn.Linear(2, 1)
    network = nn.Sequential(first, nn.ReLU(), second, nn.Tanh(), last, nn.Sigmoid())
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
        first.bias.copy_(torch.tensor([-1.0, -1.0, -1.0, 1.0]))  # three of four are 0
        second.bias.copy_(torch.tensor([20.0, 0.5]))  # one of two is 1
        last.bias.fill_(50.0)  # the output may be constant
    with recorded_slopes(network) as slopes:
        assert dead_share(slopes) == 0.0
        network(torch.randn(8, 2))
    dead = [dead_share({layer: steepest}) for layer, steepest in slopes.items()]
    assert dead == [0.75, 0.5]
    assert dead_share(slopes) == 0.75  # that of the worst layer
    with torch.no_grad():
        first.bias.fill_(1.0)
    network(torch.randn(8, 2))
    assert dead_share(slopes) == 0.75  # it watches no longer


def test_a_unit_that_wakes_for_some_samples_is_not_dead():
    """Samples go through in parts, and each part puts another half of the units to sleep."""
    first = nn.Linear(2, 2, bias=False)
    network = nn.Sequential(first, nn.ReLU(), nn.Linear(2, 1))
    with torch.no_grad():
        first.weight.copy_(torch.eye(2))
    with recorded_slopes(network) as slopes:
        network(torch.tensor([[1.0, -1.0]]))
        assert dead_share(slopes) == 0.5
        network(torch.tensor([[-1.0, 1.0]]))
    assert dead_share(slopes) == 0.0


def test_a_channel_is_dead_where_it_is_dead_everywhere():
    first = nn.Conv2d(1, 2, 1)
    network = nn.Sequential(first, nn.ReLU(), nn.Conv2d(2, 1, 1))
    first.load_state_dict({"weight": torch.tensor([0.0, 1.0]).reshape(2, 1, 1, 1), "bias": torch.tensor([-1.0, 0.0])})
    images = torch.zeros(3, 1, 4, 4)
    images[1, 0, 2, 2] = 1.0  # one position of one image is enough for the second
    with recorded_slopes(network) as slopes:
        network(images)
    assert dead_share(slopes) == 0.5
