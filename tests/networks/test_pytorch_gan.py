"""The networks of PyTorch-GAN, held against its source: sizes counted by hand, its ε, its initial weights."""

import pytest
import torch
from torch import nn

from gan_runner.errors import UserError
from gan_runner.networks import (
    PyTorchGANConvDiscriminator,
    PyTorchGANConvGenerator,
    PyTorchGANDiscriminator,
    PyTorchGANGenerator,
)

FLAT, SQUARE = (1, 28, 28), (1, 32, 32)
SIZES = {  # weights and biases, layer by layer
    PyTorchGANGenerator: [12_928, 33_024, 512, 131_584, 1_024, 525_312, 2_048, 803_600],
    PyTorchGANDiscriminator: [401_920, 131_328, 257],
    PyTorchGANConvGenerator: [827_392, 256, 147_584, 256, 73_792, 128, 577],
    PyTorchGANConvDiscriminator: [160, 4_640, 64, 18_496, 128, 73_856, 256, 513],
}


def networks() -> list[nn.Module]:
    torch.manual_seed(0)
    fully_connected = [PyTorchGANGenerator(100, FLAT), PyTorchGANDiscriminator(FLAT)]
    return [*fully_connected, PyTorchGANConvGenerator(100, SQUARE), PyTorchGANConvDiscriminator(SQUARE)]


def test_sizes() -> None:
    for network in networks():
        layers = [sum(p.numel() for p in module.parameters(recurse=False)) for module in network.modules()]
        assert [size for size in layers if size] == SIZES[type(network)]


def test_generators_make_images_in_their_range_and_discriminators_logits_of_them() -> None:
    flat_g, flat_d, conv_g, conv_d = networks()
    for generator, discriminator, shape in ((flat_g, flat_d, FLAT), (conv_g, conv_d, SQUARE)):
        images = generator(torch.randn(5, 100))
        assert images.shape == (5, *shape)
        assert -1 <= images.min() < 0 < images.max() <= 1
        assert discriminator(images).shape == (5,)


def test_the_epsilon_of_batch_norm_is_theirs() -> None:
    norms = [m for network in networks() for m in network.modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)]
    assert [norm.eps for norm in norms] == [0.8] * 3 + [1e-5, 0.8, 0.8] + [0.8] * 3
    assert {norm.momentum for norm in norms} == {0.1}


def test_initial_weights_of_the_convolutional_networks() -> None:
    for network in networks()[2:]:
        weights = torch.cat([m.weight.detach().flatten() for m in network.modules() if isinstance(m, nn.Conv2d)])
        assert weights.std() == pytest.approx(0.02, rel=0.02)
        gains = torch.cat([m.weight.detach() for m in network.modules() if isinstance(m, nn.BatchNorm2d)])
        assert gains.mean() == pytest.approx(1, abs=0.01)
        assert gains.std() == pytest.approx(0.02, rel=0.2)


def test_images_that_cannot_be_halved_so_often_are_refused() -> None:
    with pytest.raises(UserError, match=r"architecture=peer_dcgan: .* multiples of 16; these are \(1, 28, 28\)"):
        PyTorchGANConvDiscriminator(FLAT)
