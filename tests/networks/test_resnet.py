from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils.parametrize import is_parametrized

from gan_runner.errors import UserError
from gan_runner.networks import ResNetDiscriminator, ResNetGenerator
from gan_runner.networks.resnet import SelfAttention
from tests.networks.conftest import parameters


def test_parameters_counted_by_hand():
    generator = ResNetGenerator(3, (1, 16, 16), 0, (0.0, 1.0), channels=2)
    linear = 3 * 64 + 64
    first = 8 + (4 * 4 * 9 + 4) + 8 + (4 * 4 * 9 + 4) + (4 * 4 + 4)
    second = 8 + (4 * 2 * 9 + 2) + 4 + (2 * 2 * 9 + 2) + (4 * 2 + 2)
    assert parameters(generator) == linear + first + second + 4 + (2 * 9 + 1)

    discriminator = ResNetDiscriminator((1, 16, 16), 0, channels=2, spectral_norm=False)
    first = (1 * 2 * 9 + 2) + (2 * 2 * 9 + 2) + (1 * 2 + 2)
    second = (2 * 4 * 9 + 4) + (4 * 4 * 9 + 4) + (2 * 4 + 4)
    assert parameters(discriminator) == first + second + 2 * (4 * 4 * 9 + 4) + (4 + 1)


@pytest.mark.parametrize("num_classes", [0, 3])
@pytest.mark.parametrize("shape", [(c, s, s) for c in (1, 3) for s in (28, 32, 64, 128)] + [(3, 32, 48)])
def test_images_of_many_sizes_can_be_made(shape, num_classes):
    generator = ResNetGenerator(5, shape, num_classes, (0.0, 1.0), channels=2)
    discriminator = ResNetDiscriminator(shape, num_classes, channels=2, spectral_norm=True)
    labels = torch.tensor([2, 1]) if num_classes else None
    x = generator(torch.randn(2, 5), labels)
    assert x.shape == (2, *shape)
    assert 0 <= x.min() <= x.max() <= 1
    assert discriminator(x, labels).shape == (2,)


def test_sizes_that_cannot_be_halved_twice_are_refused():
    with pytest.raises(UserError, match="multiples of 4 and at least 16, but the dataset's are 30×30"):
        ResNetGenerator(5, (1, 30, 30), 0, (0.0, 1.0), channels=2)


def test_projection_adds_the_product_of_label_embedding_and_features_to_the_logit():
    torch.manual_seed(0)
    discriminator: Any = ResNetDiscriminator((1, 16, 16), 2, channels=2, spectral_norm=False)
    features = []
    discriminator.linear.register_forward_hook(lambda module, inputs, output: features.append(inputs[0]))
    with torch.no_grad():
        discriminator.linear.weight.copy_(torch.tensor([[1.0, 2.0, 3.0, 4.0]]))
        discriminator.linear.bias.fill_(0.5)
        discriminator.embed.weight.copy_(torch.tensor([[0.0, 0.0, 0.0, 0.0], [1.0, 0.0, 0.0, -2.0]]))
        x = torch.rand(1, 1, 16, 16)
        plain, projected = discriminator(x, torch.tensor([0])), discriminator(x, torch.tensor([1]))
    a, b, c, d = features[0][0].tolist()
    assert plain.item() == pytest.approx(a + 2 * b + 3 * c + 4 * d + 0.5, rel=1e-5)
    assert (projected - plain).item() == pytest.approx(a - 2 * d, rel=1e-4)


def test_features_are_summed_over_positions_after_a_relu():
    discriminator: Any = ResNetDiscriminator((1, 16, 16), 0, channels=2, spectral_norm=False)
    for parameter in discriminator.parameters():
        nn.init.zeros_(parameter)
    with torch.no_grad():
        discriminator.blocks[2].conv2.bias.copy_(torch.tensor([1.0, -1.0, 0.0, 2.0]))
        discriminator.linear.weight.fill_(1)
    assert discriminator(torch.rand(1, 1, 16, 16)).item() == 16 * (1 + 2)


def test_spectral_normalization_covers_every_weight_of_the_discriminator():
    discriminator = ResNetDiscriminator((1, 16, 16), 2, channels=2, spectral_norm=True)
    weighted = [m for m in discriminator.modules() if isinstance(m, nn.Conv2d | nn.Linear | nn.Embedding)]
    assert len(weighted) == 3 + 3 + 2 + 2
    assert all(is_parametrized(module) for module in weighted)


def test_attention_by_hand():
    torch.manual_seed(0)
    attention = SelfAttention(16)
    x = torch.randn(2, 16, 4, 6)
    assert torch.equal(attention(x), x)  # at first

    def project(layer: Any, maps: np.ndarray) -> np.ndarray:
        return np.einsum("oi,ihw->ohw", layer.weight.detach().numpy()[:, :, 0, 0], maps)

    def pooled(maps: np.ndarray) -> np.ndarray:
        return maps.reshape(len(maps), 2, 2, 3, 2).max(axis=(2, 4)).reshape(len(maps), 6)

    nn.init.constant_(attention.gamma, 0.5)
    for sample, found in zip(x.numpy(), attention(x).detach().numpy(), strict=True):
        query = project(attention.query, sample).reshape(2, 24)
        key, value = (pooled(project(layer, sample)) for layer in (attention.key, attention.value))
        assert (key.shape, value.shape) == ((2, 6), (8, 6))
        weights = np.exp(query.T @ key)
        weights /= weights.sum(axis=1, keepdims=True)
        expected = sample + 0.5 * project(attention.last, (value @ weights.T).reshape(8, 4, 6))
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_attention_follows_the_block_that_makes_maps_of_this_height():
    generator: Any = ResNetGenerator(3, (1, 32, 32), 0, (0.0, 1.0), channels=8, attention=16)
    discriminator: Any = ResNetDiscriminator((1, 32, 32), 2, channels=8, spectral_norm=True, attention=8)
    heights = []
    for module in (*generator.modules(), *discriminator.modules()):
        if isinstance(module, SelfAttention):
            module.register_forward_hook(lambda module, inputs, output: heights.append(inputs[0].shape[2]))
    discriminator(generator(torch.randn(2, 3)), torch.tensor([0, 1]))
    assert heights == [16, 8]
    assert all(is_parametrized(layer) for layer in discriminator.modules() if isinstance(layer, nn.Conv2d))
    assert not any(is_parametrized(layer) for layer in generator.modules())


def test_attention_at_a_height_that_no_block_makes_is_refused():
    message = "attention=12: no block makes maps of that height; allowed: "
    with pytest.raises(UserError, match=f"architecture.generator.{message}8, 16, 32$"):
        ResNetGenerator(3, (1, 32, 32), 0, (0.0, 1.0), channels=8, attention=12)
    with pytest.raises(UserError, match=f"architecture.discriminator.{message}16, 8, 4$"):
        ResNetDiscriminator((1, 32, 32), 0, channels=8, spectral_norm=True, attention=12)
