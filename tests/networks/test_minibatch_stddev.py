"""The spread of a minibatch, which discriminators may be shown."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from gan_runner.networks import DCGANDiscriminator, ResNetDiscriminator
from gan_runner.networks.layers import MinibatchStddev
from tests.networks.conftest import layers
from tests.training import write_images

DCGAN: dict[str, Any] = {"channels": 4, "normalization": "none", "minibatch_stddev": 4}


@pytest.mark.parametrize(("batch", "groups"), [(8, [4, 4]), (10, [4, 4, 2]), (3, [3]), (5, [4, 1])])
def test_groups_of_consecutive_samples_get_their_mean_deviation(batch, groups):
    x = torch.randn(batch, 3, 2, 5)
    found = MinibatchStddev(4)(x)
    assert torch.equal(found[:, :3], x)
    for sample, maps in zip(np.split(x.numpy(), np.cumsum(groups)[:-1]), found[:, 3:].split(groups), strict=True):
        expected = np.sqrt(sample.var(axis=0) + 1e-8).mean()
        np.testing.assert_allclose(maps, np.full((len(sample), 1, 2, 5), expected), rtol=1e-5)


def test_it_stands_before_the_last_layers():
    assert layers(DCGANDiscriminator((1, 16, 16), 0, **DCGAN))[-3:] == ["MinibatchStddev", "Flatten", "Linear"]
    resnet: Any = ResNetDiscriminator((1, 16, 16), 0, channels=4, spectral_norm=False, minibatch_stddev=4)
    assert isinstance(resnet.blocks[-3], MinibatchStddev)
    assert resnet.blocks[-2].conv1.weight.shape == (8, 9, 3, 3)
    assert isinstance(resnet.blocks[-2].shortcut, nn.Conv2d)


def test_a_penalty_takes_in_the_part_in_the_logits_of_the_group():
    torch.manual_seed(0)
    discriminator = DCGANDiscriminator((1, 16, 16), 0, **DCGAN).double()
    x = torch.rand(4, 1, 16, 16, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(discriminator(x).sum(), x, create_graph=True)
    nudge = torch.zeros_like(x)
    nudge[2, 0, 5, 5] = 1e-6
    difference = (discriminator(x + nudge) - discriminator(x - nudge)).sum() / 2e-6
    assert gradient[2, 0, 5, 5].item() == pytest.approx(difference.item(), rel=1e-4)
    assert torch.autograd.gradgradcheck(MinibatchStddev(4), x)


IMAGES = ("dataset=images", "dataset.size=16", "dataset.channels=1", "architecture=dcgan", "trainer.batch_size=12")


@pytest.mark.parametrize("group", [5, 8])
def test_groups_that_a_batch_cannot_be_divided_into_are_refused(group, refused, tmp_path_factory):
    root = write_images(tmp_path_factory.mktemp("images"), side=16)
    line = refused(*IMAGES, f"dataset.root={root}", f"architecture.discriminator.minibatch_stddev={group}")
    assert (
        f"architecture.discriminator.minibatch_stddev={group}: found trainer.batch_size=12; allowed: a multiple of"
        in line
    )
    assert line.endswith(f"a multiple of {group}")
