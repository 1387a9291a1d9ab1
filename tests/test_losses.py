from math import log
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

from gan_runner.losses import LSGAN, Hinge, Loss, LSGANProbability, Minimax, NonSaturating, Relativistic, Wasserstein

CONF = Path(__file__).parents[1] / "conf" / "loss"
LOGITS = np.array([-3.0, -0.7, 0.0, 0.4, 2.5])


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


# The terms (real, fake, generator) as functions of a logit, and their derivatives.
TERMS: dict[type[Loss], Any] = {
    Minimax: (
        (lambda x: -np.log(sigmoid(x)), lambda x: sigmoid(x) - 1),
        (lambda x: -np.log(1 - sigmoid(x)), sigmoid),
        (lambda x: np.log(1 - sigmoid(x)), lambda x: -sigmoid(x)),
    ),
    NonSaturating: (
        (lambda x: -np.log(sigmoid(x)), lambda x: sigmoid(x) - 1),
        (lambda x: -np.log(1 - sigmoid(x)), sigmoid),
        (lambda x: -np.log(sigmoid(x)), lambda x: sigmoid(x) - 1),
    ),
    LSGAN: (
        (lambda x: (x - 1) ** 2, lambda x: 2 * (x - 1)),
        (lambda x: x**2, lambda x: 2 * x),
        (lambda x: (x - 1) ** 2, lambda x: 2 * (x - 1)),
    ),
    LSGANProbability: (
        (lambda x: (sigmoid(x) - 1) ** 2, lambda x: -2 * sigmoid(x) * (1 - sigmoid(x)) ** 2),
        (lambda x: sigmoid(x) ** 2, lambda x: 2 * sigmoid(x) ** 2 * (1 - sigmoid(x))),
        (lambda x: (sigmoid(x) - 1) ** 2, lambda x: -2 * sigmoid(x) * (1 - sigmoid(x)) ** 2),
    ),
    Wasserstein: (
        (lambda x: -x, lambda x: -np.ones_like(x)),
        (lambda x: x, np.ones_like),
        (lambda x: -x, lambda x: -np.ones_like(x)),
    ),
    Hinge: (
        (lambda x: np.maximum(0, 1 - x), lambda x: -1.0 * (x < 1)),
        (lambda x: np.maximum(0, 1 + x), lambda x: 1.0 * (x > -1)),
        (lambda x: -x, lambda x: -np.ones_like(x)),
    ),
}
UNPAIRED = pytest.mark.parametrize("cls", TERMS)


def value_and_derivative(function, logits):
    x = torch.tensor(logits, dtype=torch.float32, requires_grad=True)
    terms = function(x)
    (derivative,) = torch.autograd.grad(terms.sum(), x)
    return terms.detach().numpy(), derivative.numpy()


@UNPAIRED
def test_terms_and_their_derivatives_are_those_of_the_closed_form(cls):
    loss = cls()
    for function, (value, derivative) in zip((loss.real, loss.fake, loss.generator), TERMS[cls], strict=True):
        found = value_and_derivative(function, LOGITS)
        np.testing.assert_allclose(found, (value(LOGITS), derivative(LOGITS)), rtol=1e-5, atol=1e-7)


@UNPAIRED
def test_the_two_players_terms_are_these(cls):
    loss, real, fake = cls(), torch.randn(3), torch.randn(3)
    real_terms, fake_terms = loss.discriminator_terms(real, fake)
    assert torch.equal(real_terms, loss.real(real))
    assert torch.equal(fake_terms, loss.fake(fake))
    assert torch.equal(loss.generator_term(fake, None), loss.generator(fake))


@pytest.mark.parametrize("cls", [*TERMS, Relativistic])
def test_extreme_logits_give_finite_terms_and_gradients(cls):
    real, fake = torch.tensor([[-100.0, 100.0, -100.0, 100.0], [-100.0, 100.0, 100.0, -100.0]]).requires_grad_()
    terms = torch.stack([*cls().discriminator_terms(real, fake), cls().generator_term(fake, real)])
    assert terms.shape == (3, 4)
    assert terms.isfinite().all()
    assert all(gradient.isfinite().all() for gradient in torch.autograd.grad(terms.sum(), (real, fake)))


def test_logits_far_out_keep_their_size():
    assert Minimax().real(torch.tensor([-100.0])).item() == 100
    assert NonSaturating().generator(torch.tensor([-100.0])).item() == 100
    assert Minimax().generator(torch.tensor([100.0])).item() == -100


def test_the_minimax_generator_has_no_gradient_where_the_discriminator_wins_and_the_other_has():
    _, saturating = value_and_derivative(Minimax().generator, [-20.0])
    _, nonsaturating = value_and_derivative(NonSaturating().generator, [-20.0])
    assert -3e-9 < saturating[0] < 0
    assert nonsaturating[0] == pytest.approx(-1)


@UNPAIRED
def test_the_discriminator_cannot_do_better_than_the_equilibrium_logit_when_real_and_fake_are_alike(cls):
    loss = cls()
    _, derivative = value_and_derivative(lambda x: loss.real(x) + loss.fake(x), [loss.equilibrium_logit])
    assert derivative[0] == pytest.approx(0, abs=1e-7)


@pytest.mark.parametrize(
    ("cls", "real", "generator"),
    [
        (Minimax, log(2), -log(2)),
        (NonSaturating, log(2), log(2)),
        (LSGAN, 0.25, 0.25),
        (LSGANProbability, 0.25, 0.25),
        (Hinge, 1, 0),
        (Relativistic, log(2) / 2, log(2)),
    ],
)
def test_values_at_the_equilibrium(cls, real, generator):
    logit = torch.tensor([cls.equilibrium_logit])
    real_term, fake_term = cls().discriminator_terms(logit, logit)
    assert (real_term.item(), fake_term.item()) == pytest.approx((real, real))
    assert cls().generator_term(logit, logit).item() == pytest.approx(generator)


SMOOTHED = pytest.mark.parametrize("cls", [Minimax, NonSaturating])


@SMOOTHED
def test_smoothed_real_labels_are_a_cross_entropy_with_them(cls):
    loss = cls(label_smoothing=0.1)
    value = lambda x: -0.9 * np.log(sigmoid(x)) - 0.1 * np.log(1 - sigmoid(x))  # noqa: E731
    found = value_and_derivative(loss.real, LOGITS)
    np.testing.assert_allclose(found, (value(LOGITS), sigmoid(LOGITS) - 0.9), rtol=1e-5, atol=1e-7)
    logits = torch.tensor(LOGITS)
    for term in ("fake", "generator"):  # one-sided
        assert torch.equal(getattr(loss, term)(logits), getattr(cls(), term)(logits))


@SMOOTHED
@pytest.mark.parametrize("p_data", [0.8, 0.5])
def test_under_smoothed_labels_the_best_probability_is_that_much_lower(cls, p_data):
    loss, best = cls(label_smoothing=0.2), 0.8 * p_data
    logit = np.log(best / (1 - best))
    _, derivative = value_and_derivative(lambda x: p_data * loss.real(x) + (1 - p_data) * loss.fake(x), [logit])
    assert derivative[0] == pytest.approx(0, abs=1e-6)
    assert loss.real_target == 0.8
    assert p_data != 0.5 or loss.equilibrium_logit == pytest.approx(logit)


def test_labels_that_are_not_smoothed_are_those_of_before():
    assert (Minimax().real_target, Minimax().equilibrium_logit) == (1, 0)
    assert (Minimax(0.0).real_target, Minimax(0.0).equilibrium_logit) == (1, 0)


@pytest.mark.parametrize("value", ["1", "-0.1", "a"])
def test_a_smoothing_out_of_range_is_refused(value, refused):
    assert "loss.label_smoothing: found" in refused(f"loss.label_smoothing={value}")


@UNPAIRED
def test_the_optimal_probability_is_the_density_ratio_exactly_where_the_loss_says_so(cls):
    p_data, p_g = 0.8, 0.2
    loss, logit = cls(), np.log(p_data / p_g)
    _, derivative = value_and_derivative(lambda x: p_data * loss.real(x) + p_g * loss.fake(x), [logit])
    assert (abs(derivative[0]) < 1e-6) == cls.density_ratio


def test_the_relativistic_loss_compares_each_real_logit_with_its_fake_one():
    assert Relativistic.paired
    assert not any(cls.paired for cls in TERMS)
    real, fake = np.array([0.3, -2.0]), np.array([1.0, 1.5])
    terms = Relativistic().discriminator_terms(torch.tensor(real), torch.tensor(fake))
    np.testing.assert_allclose(terms[0] + terms[1], -np.log(sigmoid(real - fake)))
    np.testing.assert_allclose(
        Relativistic().generator_term(torch.tensor(fake), torch.tensor(real)), -np.log(sigmoid(fake - real))
    )


def test_every_loss_can_be_chosen():
    built = {path.stem: instantiate(OmegaConf.load(path)) for path in CONF.glob("*.yaml")}
    assert all(isinstance(loss, Loss) for loss in built.values())
    assert {type(loss) for loss in built.values()} >= {*TERMS, Relativistic}
