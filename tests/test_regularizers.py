from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import Tensor, nn

from gan_runner.config import composition
from gan_runner.config.components import check
from gan_runner.datasets import ArrayDataset
from gan_runner.regularizers import DRAGAN, R1, R2, Batch, GradientPenalty, LeCam
from gan_runner.runs.building import build_regularizers, measure_std

CONF = Path(__file__).parents[1] / "conf" / "regularizer"

# Samples of shape (1, 2, 2), so that a norm over too few dimensions shows.
REAL = torch.tensor([[1.0, 2.0, 3.0, 4.0], [0.0, 1.0, -1.0, 0.0]]).view(2, 1, 2, 2)  # ‖x‖²: 30, 2
FAKE = torch.tensor([[-1.0, 0.0, 1.0, 2.0], [2.0, 1.0, 1.0, 0.0]]).view(2, 1, 2, 2)  # ‖x‖²: 6, 6
UNIFORM = torch.tensor([[0.25], [0.5]])
BATCH = Batch(REAL, None, FAKE, None, UNIFORM)


class Linear(nn.Module):
    """D(x) = ⟨w, x⟩, whose gradient is w."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([3.0, 0.0, 0.0, -4.0]))

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) @ self.weight


class Quadratic(nn.Module):
    """D(x) = a/2 ‖x‖², whose gradient is a·x; with labels, y times that."""

    def __init__(self, a: float) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.tensor(a))

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        logits = self.a / 2 * x.flatten(1).square().sum(1)
        return logits if labels is None else labels * logits


@pytest.mark.parametrize(("cls", "expected"), [(GradientPenalty, (5 - 1) ** 2), (R1, 25 / 2), (R2, 25 / 2)])
def test_a_linear_discriminator_has_the_same_gradient_everywhere(cls, expected):
    assert cls(1.0, 1)(Linear(), BATCH).tolist() == pytest.approx([expected, expected])


def test_r1_is_taken_at_the_real_and_r2_at_the_generated_samples():
    for cls, squares in ((R1, (30, 2)), (R2, (6, 6))):
        discriminator: Any = Quadratic(3.0)
        penalty = cls(1.0, 1)(discriminator, BATCH).mean()
        penalty.backward()
        assert penalty.item() == pytest.approx(0.5 * 3**2 * sum(squares) / 2)
        assert discriminator.a.grad.item() == pytest.approx(3 * sum(squares) / 2)


def test_the_gradient_penalty_mixes_each_sample_by_its_own_number():
    # u·x + (1 − u)·G(z): (-½, ½, 3/2, 5/2) with squares 9, and (1, 1, 0, 0) with squares 2.
    discriminator: Any = Quadratic(2.0)
    penalty = GradientPenalty(1.0, 1)(discriminator, BATCH).mean()
    penalty.backward()
    norms = (9**0.5, 2**0.5)
    assert penalty.item() == pytest.approx(sum((2 * norm - 1) ** 2 for norm in norms) / 2)
    assert discriminator.a.grad.item() == pytest.approx(sum(2 * (2 * norm - 1) * norm for norm in norms) / 2)


def test_the_gradient_penalty_is_finite_where_the_discriminator_is_flat():
    discriminator: Any = Quadratic(0.0)
    penalty = GradientPenalty(1.0, 1)(discriminator, BATCH).mean()
    penalty.backward()
    assert penalty.item() == 1
    assert discriminator.a.grad.item() == 0


@pytest.mark.parametrize(("cls", "squares"), [(R1, 4 * 30 + 9 * 2), (R2, 25 * 6 + 49 * 6)])
def test_samples_keep_their_labels(cls, squares):
    batch = Batch(REAL, torch.tensor([2, 3]), FAKE, torch.tensor([5, 7]), UNIFORM)
    assert cls(1.0, 1)(Quadratic(1.0), batch).mean().item() == pytest.approx(squares / 4)


def test_a_mixed_sample_carries_the_label_of_its_real_one():
    batch = Batch(REAL, torch.tensor([2, 3]), FAKE, torch.tensor([5, 7]), UNIFORM)
    expected = ((2 * 9**0.5 - 1) ** 2 + (3 * 2**0.5 - 1) ** 2) / 2
    assert GradientPenalty(1.0, 1)(Quadratic(1.0), batch).mean().item() == pytest.approx(expected)


def dragan(scale: float = 0.5, data_std: float = 2.0) -> DRAGAN:
    return DRAGAN(10.0, 1, scale, (1, 2, 2), data_std)


def test_dragan_s_penalty_is_taken_around_the_real_samples():
    """Of each sample first α, then u: x̂ = x + α·½·2·u is (1.5, 2, 3, 4.25) with squares 33.3125, and (0, 2, 0, 1)."""
    numbers = torch.tensor([[0.5, 1.0, 0.0, 0.0, 0.5], [1.0, 0.0, 1.0, 1.0, 1.0]])
    discriminator: Any = Quadratic(0.5)
    penalty = dragan()(discriminator, BATCH._replace(uniform=numbers))
    norms = np.sqrt([1.5**2 + 2**2 + 3**2 + 4.25**2, 5])
    assert penalty.tolist() == pytest.approx((0.5 * norms - 1) ** 2)
    penalty.mean().backward()
    assert discriminator.a.grad.item() == pytest.approx((2 * (0.5 * norms - 1) * norms).mean())
    assert dragan().uniforms == 5
    still = GradientPenalty(1.0, 1)(discriminator, BATCH._replace(uniform=torch.ones(2, 1)))  # at the real samples
    nowhere = dragan(data_std=0.0)(discriminator, BATCH._replace(uniform=numbers))
    torch.testing.assert_close(nowhere, still)


def test_the_spread_of_the_data_does_not_depend_on_the_run():
    experiment = check(composition.plain(composition.compose(["dataset=ring", "regularizer=dragan"], "train")))
    ring = experiment.build("dataset")
    # Modes on a circle: half the square of its radius in each coordinate, and the variance of a mode.
    radius = ring.means.norm(dim=1)[0].item()
    assert measure_std(ring, 64) == pytest.approx((radius**2 / 2 + ring.std**2) ** 0.5, rel=0.02)
    (built,) = build_regularizers(experiment, ring).values()
    assert isinstance(built, DRAGAN)
    assert built.reach == 0.5 * measure_std(ring, 64)
    values = np.random.default_rng(0).integers(0, 256, (40, 1, 2, 2), dtype=np.uint8)
    images = ArrayDataset(values, value_range=(-1.0, 1.0))
    assert measure_std(images, 20) == pytest.approx((values / 127.5).std(), rel=1e-5)


def test_lecam_draws_each_logit_to_the_average_of_the_other_kind():
    real, fake = torch.tensor([1.0, 2.0]), torch.tensor([-1.0, 0.5])
    adapted = {"real": torch.tensor(1.5), "fake": torch.tensor(-0.5)}
    batch = BATCH._replace(real_logits=real, fake_logits=fake, adapted=adapted)
    assert LeCam(0.3, 1, 0.99)(Linear(), batch).tolist() == [1.5**2 + 2.5**2, 2.5**2 + 1]


def test_lecam_s_averages_follow_the_means_of_the_logits():
    lecam, state = LeCam(0.3, 1, 0.9), {name: torch.zeros(()) for name in LeCam.adapts}
    for real, fake in ((1.0, -2.0), (3.0, 0.0)):
        lecam.adapt(state, {"mean/real": torch.tensor(real), "mean/fake": torch.tensor(fake)})
    assert state["real"].item() == pytest.approx(0.9 * 0.1 * 1 + 0.1 * 3)
    assert state["fake"].item() == pytest.approx(0.9 * 0.1 * -2)


def test_lecam_wants_real_and_fake_together(refused):
    said = refused("regularizer=lecam", "trainer.discriminator_update=separate")
    assert "trainer.discriminator_update=separate: regularizer.lecam compares real with fake; it needs joint" in said


@pytest.mark.parametrize("cls", [GradientPenalty, R1, R2])
def test_penalties_are_computed_in_fp32_under_autocast(cls):
    torch.manual_seed(0)
    discriminator = nn.Sequential(nn.Flatten(), nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1), nn.Flatten(0))
    expected = cls(1.0, 1)(discriminator, BATCH)
    with torch.autocast("cpu", torch.bfloat16):
        assert discriminator(REAL).dtype == torch.bfloat16
        found = cls(1.0, 1)(discriminator, BATCH)
        half = cls(1.0, 1)(discriminator, BATCH._replace(real=REAL.bfloat16(), fake=FAKE.bfloat16()))
    assert torch.equal(found, expected)
    assert half.dtype == torch.float32


@pytest.mark.parametrize("cls", [GradientPenalty, R1, R2])
def test_the_generator_gets_no_gradient_from_a_penalty(cls):
    fake = FAKE.clone().requires_grad_()
    cls(1.0, 1)(Quadratic(1.0), BATCH._replace(fake=fake)).mean().backward()
    assert fake.grad is None


def test_a_penalty_that_would_train_nothing_is_an_error():
    with pytest.raises(AssertionError, match="lost its graph"):
        R1(1.0, 1)(Linear().requires_grad_(False), BATCH)


def test_several_regularizers_can_be_chosen_together():
    nodes = OmegaConf.merge(*(OmegaConf.load(path) for path in CONF.glob("*.yaml")))
    facts = {"dragan": {"shape": (2,), "data_std": 1.0}}
    built = {str(name): instantiate(node, **facts.get(str(name), {})) for name, node in nodes.items()}
    expected = {"gradient_penalty": GradientPenalty, "r1": R1, "r2": R2, "dragan": DRAGAN, "lecam": LeCam}
    assert {name: type(built[name]) for name in expected} == expected
    weights = {"lecam": 0.3}
    assert all((built[name].weight, built[name].interval) == (weights.get(name, 10.0), 1) for name in expected)
