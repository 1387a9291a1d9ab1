"""The networks of the recipes, counted and read by hand; what every architecture in conf/ must do."""

import pytest
import torch

from gan_runner.networks.running import apply
from gan_runner.regularizers import R1, R2, Batch, GradientPenalty
from tests.networks.conftest import ARCHITECTURES, UNCONDITIONAL, WITH_CLASSES, layers, networks, parameters

# Where a number is written a*b + c, a*b are the weights and c the biases; layer and batch norm have 2 a feature.
RECIPES = {
    "mlp_pattern": (
        (6,),
        (3 + 3 + 6) + 2 * (9 + 3 + 6) + (18 + 6),
        "Linear LeakyReLU LayerNorm Linear LeakyReLU LayerNorm Linear LeakyReLU LayerNorm Linear LeakyReLU",
        (18 + 3 + 6) + (9 + 3 + 6) + (3 + 1),
        "Linear Sigmoid LayerNorm Linear Sigmoid LayerNorm Linear",
    ),
    "mlp_pattern_noise": (
        (6,),
        0,
        "NoiseGenerator",
        (18 + 3 + 6) + (9 + 3 + 6) + (3 + 1),
        "Linear Sigmoid LayerNorm Linear Sigmoid LayerNorm Linear",
    ),
    "mlp_dropout": (
        (1, 28, 28),
        (640 + 64) + (64 * 256 + 256) + (256 * 784 + 784),
        "Linear ReLU Dropout Linear ReLU Dropout Linear ReLU Dropout Sigmoid",
        (784 * 256 + 256) + (256 * 64 + 64) + (64 + 1),
        "Linear ReLU Dropout Linear ReLU Dropout Linear ReLU Dropout",
    ),
    "mlp_tanh": (
        (1, 28, 28),
        (12800 + 128) + (128 * 784 + 784),
        "Linear ReLU Linear Tanh",
        (784 * 128 + 128) + (128 + 1),
        "Linear ReLU Linear",
    ),
    "mlp_batchnorm": (
        (1, 28, 28),
        (10000 + 200 + 400) + (200 * 784 + 784),
        "Linear BatchNorm1d ReLU Linear Tanh",
        (784 * 200 + 200) + (200 + 1) + 2,
        "Linear LeakyReLU Linear BatchNorm1d",
    ),
    "mlp_layernorm": (
        (1, 28, 28),
        (20000 + 200 + 400) + (200 * 784 + 784),
        "Linear LeakyReLU LayerNorm Linear Sigmoid",
        (784 * 200 + 200 + 400) + (200 + 1),
        "Linear LeakyReLU LayerNorm Linear",
    ),
    "mlp_conditional": (
        (1, 28, 28),
        (110 * 200 + 200 + 400) + (200 * 784 + 784),
        "Linear LeakyReLU LayerNorm Linear Sigmoid",
        (794 * 200 + 200 + 400) + (200 + 1),
        "Linear LeakyReLU LayerNorm Linear",
    ),
    "cnn_mnist": (
        (1, 28, 28),
        (100 * 1568 + 1568 + 64) + (32 * 16 * 16 + 16 + 32) + (16 * 16 + 1),
        "Linear Unflatten BatchNorm2d LeakyReLU ConvTranspose2d BatchNorm2d LeakyReLU ConvTranspose2d Sigmoid",
        (10 * 25 + 10 + 20) + (10 * 10 * 9 + 10 + 20) + (250 + 1),
        "Conv2d LeakyReLU BatchNorm2d Conv2d LeakyReLU BatchNorm2d Flatten Linear",
    ),
    "cnn_celeba": (
        (3, 128, 128),
        (36300 + 363) + (3 * 256 * 64 + 256 + 512) + (256 * 256 * 64 + 256 + 512) + (256 * 3 * 64 + 3 + 6),
        "Linear Unflatten LeakyReLU ConvTranspose2d BatchNorm2d LeakyReLU ConvTranspose2d BatchNorm2d LeakyReLU "
        "ConvTranspose2d BatchNorm2d Sigmoid",
        (3 * 256 * 64 + 256 + 512) + (256 * 256 * 64 + 256 + 512) + (256 * 3 * 64 + 3) + (300 + 1),
        "Conv2d BatchNorm2d LeakyReLU Conv2d BatchNorm2d LeakyReLU Conv2d LeakyReLU Flatten Linear",
    ),
}
SLOPES = {
    "mlp_pattern": (0.02, None),
    "mlp_batchnorm": (None, 0.01),
    "mlp_layernorm": (0.02, 0.02),
    "cnn_mnist": (0.2, 0.02),
    "cnn_celeba": (0.2, 0.2),
}


@pytest.mark.parametrize("name", RECIPES)
def test_the_recipes_have_the_layers_and_parameters_that_the_notes_give_them(name):
    shape, generator_count, generator_layers, discriminator_count, discriminator_layers = RECIPES[name]
    generator, discriminator = networks(name, shape, num_classes=10 if name == "mlp_conditional" else 0)[:2]
    assert layers(generator) == generator_layers.split()
    assert layers(discriminator) == discriminator_layers.split()
    assert (parameters(generator), parameters(discriminator)) == (generator_count, discriminator_count)


@pytest.mark.parametrize("name", SLOPES)
def test_the_recipes_have_the_slopes_that_the_notes_give_them(name):
    for network, slope in zip(networks(name, RECIPES[name][0])[:2], SLOPES[name], strict=True):
        found = {module.negative_slope for module in network.modules() if isinstance(module, torch.nn.LeakyReLU)}
        assert found == ({slope} - {None})


def small(name, num_classes=0):
    """The shape of some data and the networks of this architecture for them, few channels wide."""
    if name in ("dcgan", "resnet"):
        shape, narrow = (1, 16, 16), {"channels": 8}
        return shape, networks(name, shape, num_classes, generator=narrow, discriminator=narrow)
    if name == "r3gan":
        shape, few = (1, 16, 16), {"widths": [8, 8, 4], "group_width": 4}
        return shape, networks(name, shape, num_classes, generator=few, discriminator=few)
    if name == "cnn_celeba":
        shape, layer = (3, 128, 128), {"channels": 2, "kernel": 8, "stride": 2, "padding": 0, "normalized": True}
        return shape, networks(
            name, shape, num_classes, generator={"layers": [layer] * 2}, discriminator={"layers": [layer] * 3}
        )
    shapes: dict[str, tuple[int, ...]] = {"cnn_mnist": (1, 28, 28), "peer_dcgan": (1, 16, 16)}
    others = shapes.get(name, (6,))
    return others, networks(name, others, num_classes)


@pytest.mark.parametrize(("name", "num_classes"), WITH_CLASSES)
def test_every_architecture_maps_noise_to_data_and_data_to_logits(name, num_classes):
    shape, (generator, discriminator, latent_dim) = small(name, num_classes)
    labels = torch.tensor([0, 1, 2, 0]) if num_classes else None
    x = apply(generator, torch.randn(4, latent_dim), labels)
    assert x.shape == (4, *shape)
    assert apply(discriminator, x, labels).shape == (4,)


# Noise ignores labels, and the last ReLU of mlp_dropout may be 0 for every sample.
@pytest.mark.parametrize("name", sorted({*ARCHITECTURES} - UNCONDITIONAL - {"mlp_pattern_noise", "mlp_dropout"}))
def test_every_network_listens_to_its_labels(name):
    torch.manual_seed(0)
    shape, (generator, discriminator, latent_dim) = small(name, num_classes=3)
    generator.eval()
    discriminator.eval()
    z, x = torch.randn(2, latent_dim), torch.rand(2, *shape)
    zeros, twos = torch.tensor([0, 0]), torch.tensor([0, 2])
    for network, inputs in ((generator, z), (discriminator, x)):
        same, changed = (network(inputs, zeros) - network(inputs, twos)).abs().reshape(2, -1).sum(1)
        assert same == 0
        assert changed > 0
        with pytest.raises((AssertionError, TypeError)):
            network(inputs)


# Under a last batch norm, the sum of all logits does not depend on the samples.
@pytest.mark.parametrize("regularizer", [GradientPenalty, R1, R2])
@pytest.mark.parametrize("name", sorted({*ARCHITECTURES} - {"mlp_batchnorm"}))
def test_every_discriminator_can_be_trained_on_every_gradient_penalty(name, regularizer):
    torch.manual_seed(0)
    shape, (_, discriminator, _) = small(name)
    real, fake = torch.rand(2, 4, *shape)
    regularizer(1.0, 1)(discriminator, Batch(real, None, fake, None, torch.rand(4, 1))).mean().backward()
    gradients = [parameter.grad for parameter in discriminator.parameters() if parameter.grad is not None]
    assert all(gradient.isfinite().all() for gradient in gradients)
    assert sum(gradient.abs().sum() for gradient in gradients) > 0
