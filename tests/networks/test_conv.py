import pytest
import torch

from gan_runner.errors import UserError
from tests.networks.conftest import networks


@pytest.mark.parametrize("size", [27, 29, 32, 128])
def test_images_of_another_size_than_the_layers_make_are_refused(size):
    with pytest.raises(UserError, match=rf"architecture.generator.* 28×28, but the dataset's are {size}×{size}"):
        networks("cnn_mnist", (1, size, size))


def test_images_too_small_for_the_discriminator_are_refused():
    seed = {"seed": {"channels": 1, "height": 2, "width": 2, "normalized": False}}
    with pytest.raises(UserError, match=r"architecture.discriminator.layers.1: its kernel of 3 .* 8×8"):
        networks("cnn_mnist", (1, 8, 8), generator=seed)


@pytest.mark.parametrize("name", ["cnn_mnist", "cnn_celeba", "dcgan", "resnet"])
def test_data_that_are_not_images_are_refused(name):
    with pytest.raises(UserError, match=r"architecture: .* images .*\(6,\).* mlp"):
        networks(name, (6,))


def test_rectangular_images_can_be_made():
    seed = {"seed": {"channels": 4, "height": 5, "width": 7, "normalized": True}}
    generator, discriminator, _ = networks("cnn_mnist", (3, 20, 28), generator=seed)
    assert discriminator(generator(torch.randn(2, 100))).shape == (2,)


def test_labels_reach_the_discriminator_as_constant_maps():
    _, discriminator, _ = networks("cnn_mnist", (1, 28, 28), num_classes=3)
    first = discriminator.layers[0]
    seen = []
    first.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    x = torch.rand(2, 1, 28, 28)
    discriminator(x, torch.tensor([2, 0]))
    assert torch.equal(seen[0][:, :1], x)
    assert seen[0][:, 1:].mean(dim=(2, 3)).tolist() == [[0, 0, 1], [1, 0, 0]]
    assert seen[0][:, 1:].std(dim=(2, 3)).max() == 0
