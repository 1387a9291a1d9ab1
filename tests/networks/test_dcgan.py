import pytest
import torch
from torch import nn
from torch.nn.utils.parametrize import is_parametrized

from gan_runner.errors import UserError
from gan_runner.networks import DCGANDiscriminator, DCGANGenerator
from tests.networks.conftest import layers

WEIGHTED = (nn.Linear, nn.Conv2d, nn.ConvTranspose2d, nn.Embedding)


def test_for_64_pixels_these_are_the_networks_of_the_paper():
    generator = DCGANGenerator(100, (3, 64, 64), 0, (-1.0, 1.0), channels=128, normalization="batch")
    features = [m.num_features for m in generator.modules() if isinstance(m, nn.BatchNorm2d)]
    assert features == [1024, 512, 256, 128]
    assert generator.layers[1].unflattened_size == (1024, 4, 4)
    assert layers(generator)[-2:] == ["ConvTranspose2d", "Tanh"]

    discriminator = DCGANDiscriminator((3, 64, 64), 0, channels=128, normalization="batch")
    normalized = "Conv2d BatchNorm2d LeakyReLU "
    assert layers(discriminator) == f"Conv2d LeakyReLU {normalized * 3}Flatten Linear".split()
    assert discriminator.layers[-1].in_features == 1024 * 4 * 4


def test_weights_start_with_the_standard_deviation_of_the_paper():
    torch.manual_seed(0)
    generator = DCGANGenerator(100, (1, 28, 28), 0, (0.0, 1.0), channels=64, normalization="batch")
    for module in generator.modules():
        if isinstance(module, WEIGHTED):
            assert module.weight.std().item() == pytest.approx(0.02, rel=0.1)


@pytest.mark.parametrize("shape", [(c, s, s) for c in (1, 3) for s in (28, 32, 64, 128)] + [(3, 32, 48), (1, 20, 20)])
def test_images_of_many_sizes_can_be_made(shape):
    generator = DCGANGenerator(5, shape, 0, (-1.0, 1.0), channels=2, normalization="batch")
    discriminator = DCGANDiscriminator(shape, 0, channels=2, normalization="layer")
    x = generator(torch.randn(2, 5))
    assert x.shape == (2, *shape)
    assert x.abs().max() <= 1
    assert discriminator(x).shape == (2,)


@pytest.mark.parametrize("size", [(27, 27), (28, 30), (12, 12), (1, 1)])
def test_sizes_that_cannot_be_halved_twice_are_refused(size):
    message = rf"multiples of 4 and at least 16, but the dataset's are {size[0]}×{size[1]}"
    with pytest.raises(UserError, match=message):
        DCGANGenerator(5, (1, *size), 0, (0.0, 1.0), channels=2, normalization="batch")
    with pytest.raises(UserError, match=message):
        DCGANDiscriminator((1, *size), 0, channels=2, normalization="batch")


def test_spectral_normalization_covers_all_weights_and_leaves_no_batch_norm():
    discriminator = DCGANDiscriminator((1, 28, 28), 0, channels=2, normalization="spectral")
    weighted = [module for module in discriminator.modules() if isinstance(module, WEIGHTED)]
    assert len(weighted) == 3
    assert all(is_parametrized(module) for module in weighted)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in discriminator.modules())
