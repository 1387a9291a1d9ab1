"""The picture of Proposition 1, and the largest distance from the best discriminator."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gan_runner.config.schema import Latent
from gan_runner.datasets import DataFacts, Gaussian1D
from gan_runner.observers import theory
from gan_runner.observers.base import Moment
from gan_runner.observers.networks import Networks
from gan_runner.runs.logger import Logger
from gan_runner.state import MovingAverage, NetworkState, State
from gan_runner.status import Status
from tests.training import rows, status, train


class Logit(nn.Module):
    """A discriminator whose logit is `slope` times x."""

    def __init__(self, slope: float) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.tensor(slope))

    def forward(self, x: Tensor) -> Tensor:
        return self.slope * x.squeeze(1)


class Shift(nn.Module):
    """A generator that adds a number."""

    def __init__(self, number: float) -> None:
        super().__init__()
        self.number = nn.Parameter(torch.tensor(number))

    def forward(self, z: Tensor) -> Tensor:
        return z + self.number


DATA = Gaussian1D(-1.0, 1.0)
MADE = 1 + torch.randn(theory.SAMPLES, 1, generator=torch.Generator().manual_seed(0))


def test_the_best_discriminator_has_no_gap():
    # log N(x; -1, 1) - log N(x; 1, 1) = -2 x; what is left is the noise of the histogram.
    gap, picture = theory.compare(DATA, MADE, Logit(-2.0))
    assert gap < 0.05
    assert picture.shape[2] == 3


def test_the_gap_of_a_discriminator_that_knows_nothing():
    x = np.linspace(-7, 7, 2001)
    p, q = (np.exp(-((x - m) ** 2) / 2) for m in (-1, 1))
    has_mass = p + q >= 0.01 * (p + q).max()
    expected = np.abs(p / (p + q) - 0.5)[has_mass].max()
    assert theory.compare(DATA, MADE, Logit(0.0))[0] == pytest.approx(expected, abs=1e-3)


def test_smoothed_labels_lower_the_best_discriminator():
    class Smoothed(Logit):
        def forward(self, x: Tensor) -> Tensor:
            return (0.9 * super().forward(x).sigmoid()).logit()

    assert theory.compare(DATA, MADE, Smoothed(-2.0), real_target=0.9)[0] < 0.05
    assert theory.compare(DATA, MADE, Smoothed(-2.0))[0] == pytest.approx(0.1, abs=0.01)


def test_without_a_best_discriminator_there_is_no_gap(tmp_path):
    gap, picture = theory.compare(DATA, MADE, Logit(-2.0), real_target=None)
    assert np.isnan(gap)
    assert not np.array_equal(picture, theory.compare(DATA, MADE, Logit(-2.0))[1])
    every = ("trainer.steps=4", "trainer.sample_every=2", "device=cpu", "doctor=none", "metric=[]")
    for loss, is_ratio in (("nonsaturating", True), ("hinge", False), ("relativistic", False)):
        assert train(tmp_path / loss, "dataset=gaussian_1d", "architecture=linear_1d", f"loss={loss}", *every) == 0
        assert any("theory/discriminator_gap" in row for row in rows(tmp_path / loss)) == is_ratio


def test_the_density_is_that_of_the_generator_that_the_discriminator_plays_against(tmp_path):
    generator, discriminator = Shift(1.0), Logit(-2.0)
    state = State(NetworkState(generator, None), NetworkState(discriminator, None), MovingAverage(Shift(5.0), 0.999))
    facts, latent = DataFacts.of(DATA), Latent(dim=1, distribution="normal", loc=0.0, scale=1.0)
    networks, moment = Networks(state, facts, latent, num_classes=0, seed=0), Moment(1)
    logger = Logger(tmp_path, 0, lambda row: row)
    theory.Theory(1, 1, networks, DATA, (1, 4), tmp_path, logger, real_target=1.0).draw(torch.zeros(4, 1), moment)
    assert moment.row["theory/discriminator_gap"] < 0.05


def test_one_stray_sample_does_not_hide_the_others():
    stray = torch.cat([MADE[1:], torch.tensor([[1e6]])])
    assert theory.compare(DATA, stray, Logit(-2.0))[0] < 0.05


def test_a_gap_that_is_no_number_is_left_out_until_the_losses_tell(tmp_path):
    words = ("experiment=theory_1d", "trainer.batch_size=64", "trainer.discriminator_steps=1", "device=cpu")
    every = ("trainer.log_every=50", "trainer.sample_every=5", "trainer.evaluate_every=200", "doctor=none")
    assert (
        train(tmp_path / "run", *words, *every, "optimizer=sgd", "optimizer.discriminator.lr=1e38") == Status.DIVERGED
    )
    assert "loss/discriminator is nan" in status(tmp_path / "run")["message"]
    assert not any("theory/discriminator_gap" in row for row in rows(tmp_path / "run"))
    assert "NaN" not in (tmp_path / "run" / "metrics.jsonl").read_text()


def test_the_look_at_the_discriminator_changes_nothing_in_it():
    network = nn.Sequential(
        nn.utils.parametrizations.spectral_norm(nn.Linear(1, 4)), nn.BatchNorm1d(4), nn.Linear(4, 1)
    )
    discriminator = nn.Sequential(network, nn.Flatten(0))
    before = {name: value.clone() for name, value in discriminator.state_dict().items()}
    theory.compare(DATA, MADE, discriminator)
    assert all(torch.equal(value, before[name]) for name, value in discriminator.state_dict().items())
    assert discriminator.training
