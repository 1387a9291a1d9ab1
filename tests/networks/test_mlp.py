from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.utils.parametrize import is_parametrized

from gan_runner.errors import UserError
from gan_runner.networks import FourierDiscriminator, MLPDiscriminator, MLPGenerator, NoiseGenerator
from tests.networks.conftest import layers

ACTIVATION: dict[str, Any] = {"activation": "relu", "negative_slope": 0.0}
PLAIN: dict[str, Any] = {
    **ACTIVATION,
    "normalization": "none",
    "normalize": "before_activation",
    "dropout": 0.0,
    "output": [],
}


def test_without_hidden_layers_the_discriminator_is_one_linear_function():
    discriminator = MLPDiscriminator((2, 3), 0, hidden=[], **PLAIN)
    x = torch.randn(5, 2, 3)
    weight, bias = (parameter.detach().numpy() for parameter in discriminator.parameters())
    np.testing.assert_allclose(discriminator(x).detach(), x.numpy().reshape(5, 6) @ weight[0] + bias, rtol=1e-5)


def test_the_label_is_concatenated_one_hot_after_the_data():
    discriminator: Any = MLPDiscriminator((2,), 3, hidden=[], **PLAIN)
    with torch.no_grad():
        discriminator.layers[0].weight.copy_(torch.tensor([[1.0, 10.0, 100.0, 200.0, 300.0]]))
        discriminator.layers[0].bias.zero_()
    logits = discriminator(torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([2, 0]))
    assert logits.tolist() == [321.0, 143.0]


def test_fourier_features_stand_beside_the_data():
    discriminator: Any = FourierDiscriminator((2, 1), 2, features=1, scale=1.0, hidden=[], **ACTIVATION)
    with torch.no_grad():
        discriminator.frequencies.copy_(torch.tensor([[0.5, -1.0]]))
        discriminator.layers[0].weight.copy_(torch.tensor([[1.0, 10.0, 100.0, 1000.0, 0.0, 7.0]]))
        discriminator.layers[0].bias.zero_()
    logits = discriminator(torch.tensor([[[3.0], [1.0]], [[0.0], [0.0]]]), torch.tensor([1, 0]))
    expected = [3 + 10 + 100 * np.cos(0.5) + 1000 * np.sin(0.5) + 7, 100]  # 0.5·3 - 1·1 = 0.5, and the second label
    np.testing.assert_allclose(logits.detach(), expected, rtol=1e-6)


def test_fourier_frequencies_are_fixed_random_and_stored_and_have_the_scale_asked_for():
    torch.manual_seed(0)
    discriminator: Any = FourierDiscriminator((2,), 0, features=5000, scale=3.0, hidden=[], **ACTIVATION)
    assert discriminator.frequencies.std().item() == pytest.approx(3, rel=0.03)
    assert "frequencies" in discriminator.state_dict()
    assert [tuple(parameter.shape) for parameter in discriminator.parameters()] == [(1, 10_002), (1,)]


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"normalization": "batch"}, "Linear BatchNorm1d ReLU Linear"),
        ({"normalization": "layer", "normalize": "after_activation"}, "Linear ReLU LayerNorm Linear"),
        ({"dropout": 0.3, "normalization": "batch", "activation": "gelu"}, "Linear BatchNorm1d GELU Dropout Linear"),
        ({"activation": "silu", "output": ["layer", "tanh"]}, "Linear SiLU Linear LayerNorm Tanh"),
    ],
)
def test_normalization_activation_and_dropout_stand_where_they_are_told(keys, expected):
    assert layers(MLPDiscriminator((6,), 0, hidden=[4], **{**PLAIN, **keys})) == expected.split()


def test_spectral_normalization_bounds_every_linear_layer_by_one():
    discriminator = MLPDiscriminator((6,), 0, hidden=[4, 4], **{**PLAIN, "normalization": "spectral"})
    for _ in range(50):  # each forward is one power iteration
        discriminator(torch.randn(2, 6))
    linears: list[Any] = [module for module in discriminator.modules() if is_parametrized(module)]
    assert len(linears) == 3
    for linear in linears:
        assert np.linalg.svd(linear.weight.detach().numpy(), compute_uv=False)[0] == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize(
    ("value_range", "low", "high"), [((0.0, 1.0), 0, 1), ((-1.0, 1.0), -1, 1), ((-2.0, 6.0), -2, 6), (None, -50, 50)]
)
def test_auto_spans_the_range_of_the_data(value_range, low, high):
    generator: Any = MLPGenerator(1, (1,), 0, value_range, hidden=[], **{**PLAIN, "output": ["auto"]})
    with torch.no_grad():
        generator.layers[0].weight.fill_(50)
        generator.layers[0].bias.zero_()
        x = generator(torch.tensor([[-1.0], [0.0], [1.0]]))
    np.testing.assert_allclose(x[:, 0], [low, (low + high) / 2, high], atol=1e-6)


def test_noise_in_place_of_a_generator_is_the_noise():
    generator = NoiseGenerator(6, (2, 3), 0, None)
    assert torch.equal(generator(torch.arange(6.0).reshape(1, 6)), torch.arange(6.0).reshape(1, 2, 3))
    assert list(generator.parameters()) == []


def test_noise_of_another_size_than_the_data_is_refused():
    with pytest.raises(UserError, match=r"architecture.latent.dim is 5.* 6 values"):
        NoiseGenerator(5, (6,), 0, None)
