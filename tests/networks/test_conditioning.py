"""The ways in which labels reach a network, each computed by hand; and which networks cannot have which."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils.parametrize import is_parametrized

from gan_runner.errors import UserError
from gan_runner.networks import MLPDiscriminator, MLPGenerator
from gan_runner.networks.conditioning import ClassBatchNorm
from tests.networks.conftest import networks, parameters
from tests.networks.test_mlp import PLAIN

SHAPES = {"mlp_tanh": (1, 16, 16), "cnn_mnist": (1, 28, 28), "dcgan": (1, 16, 16), "resnet": (1, 16, 16)}
NARROW = {"dcgan": {"channels": 4}, "resnet": {"channels": 4}}


def conditional(
    name: str, of_generator: str | None = None, of_discriminator: str | None = None, **generator: Any
) -> Any:
    narrow = NARROW.get(name, {})
    return networks(
        name,
        SHAPES[name],
        num_classes=3,
        generator={**narrow, "conditioning": of_generator, **generator},
        discriminator={**narrow, "conditioning": of_discriminator},
    )


@pytest.mark.parametrize("way", ["concatenation", "projection", "auxiliary"])
@pytest.mark.parametrize("name", SHAPES)
def test_every_family_of_discriminators_has_every_way(name, way):
    torch.manual_seed(0)
    discriminator = conditional(name, of_discriminator=way).discriminator.eval()
    x, zeros, twos = torch.rand(2, *SHAPES[name]), torch.tensor([0, 0]), torch.tensor([0, 2])
    assert discriminator(x, zeros).shape == (2,)
    same, changed = (discriminator(x, zeros) - discriminator(x, twos)).abs()
    assert same == 0
    assert (changed > 0) == (way != "auxiliary")  # which is to find the label out
    if way == "auxiliary":
        outputs = discriminator(x, zeros, classes=True)
        assert outputs.shape == (2, 4)
        assert torch.equal(outputs[:, 0], discriminator(x, zeros))


@pytest.mark.parametrize("way", ["concatenation", "batch_norm"])
@pytest.mark.parametrize("name", SHAPES)
def test_every_family_of_generators_has_both_ways(name, way):
    torch.manual_seed(0)
    of_mlp = {"normalization": "batch"} if name == "mlp_tanh" else {}
    generator, _, latent_dim = conditional(name, of_generator=way, **of_mlp)
    z = torch.randn(2, latent_dim)
    generator.eval()
    same, changed = (generator(z, torch.tensor([0, 0])) - generator(z, torch.tensor([0, 2]))).flatten(1).abs().sum(1)
    assert same == 0
    assert changed > 0
    assert any(isinstance(module, ClassBatchNorm) for module in generator.modules()) == (
        way == "batch_norm" or name == "resnet"
    )


@pytest.mark.parametrize(
    ("name", "way"), [("r3gan", None), *((name, way) for name in SHAPES for way in ("concatenation", "batch_norm"))]
)
def test_every_family_of_generators_takes_weights_over_the_classes(name, way):
    if name == "r3gan":
        few = {"widths": [8, 8, 4], "group_width": 4}
        generator, _, latent_dim = networks(name, (1, 16, 16), num_classes=3, generator=few, discriminator=few)
    else:
        of_mlp = {"normalization": "batch"} if name == "mlp_tanh" else {}
        generator, _, latent_dim = conditional(name, of_generator=way, **of_mlp)
    generator.eval()
    z, numbers = torch.randn(4, latent_dim), torch.tensor([0, 2, 1, 2])
    assert torch.allclose(generator(z, torch.eye(3)[numbers]), generator(z, numbers), atol=1e-5)
    halves = torch.tensor([[0.5, 0.5, 0.0]]).expand(4, 3)
    ends = [generator(z, torch.full((4,), number)) for number in (0, 1)]
    assert all((generator(z, halves) - end).abs().max() > 1e-7 for end in ends)


def test_of_weights_an_embedding_makes_the_weighted_sum():
    norm = ClassBatchNorm(2, 3, spatial=False).eval()
    with torch.no_grad():
        norm.gain.weight.copy_(torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]))
        norm.bias.weight.copy_(torch.tensor([[0.0, 10.0], [20.0, 30.0], [40.0, 50.0]]))
    x, weights = torch.tensor([[1.0, -1.0]]), torch.tensor([[0.25, 0.75, 0.0]])
    expected = torch.tensor([[0.25 * 1 + 0.75 * 3 + 0.75 * 20, -(0.25 * 2 + 0.75 * 4) + 0.25 * 10 + 0.75 * 30]])
    assert torch.allclose(norm(x, weights), expected, atol=1e-4)


def test_null_is_what_each_family_did_before_there_was_a_choice():
    for name in SHAPES:
        before = ("batch_norm", "projection") if name == "resnet" else ("concatenation", "concatenation")
        for found, expected in zip(conditional(name)[:2], conditional(name, *before)[:2], strict=True):
            assert {k: t.shape for k, t in found.state_dict().items()} == {
                k: t.shape for k, t in expected.state_dict().items()
            }


def test_projection_by_hand():
    discriminator: Any = MLPDiscriminator((3,), 2, hidden=[], **PLAIN, conditioning="projection")
    last = discriminator.layers[-1]
    with torch.no_grad():
        last.linear.weight.copy_(torch.tensor([[1.0, 2.0, 3.0]]))
        last.linear.bias.fill_(0.5)
        last.embed.weight.copy_(torch.tensor([[0.0, 0.0, 0.0], [10.0, 0.0, -100.0]]))
    x = torch.tensor([[1.0, 1.0, 2.0], [1.0, 1.0, 2.0]])
    assert discriminator(x, torch.tensor([0, 1])).tolist() == [9.5, 9.5 + 10 - 200]


def test_batch_norm_by_class_by_hand():
    keys = {**PLAIN, "normalization": "batch", "activation": "relu"}
    generator: Any = MLPGenerator(2, (1,), 2, None, hidden=[1], **keys, conditioning="batch_norm")
    norm = generator.layers[1]
    with torch.no_grad():
        for layer in (generator.layers[0], generator.layers[3]):
            layer.weight.fill_(1)
            layer.bias.zero_()
        norm.gain.weight.copy_(torch.tensor([[1.0], [5.0]]))
        norm.bias.weight.copy_(torch.tensor([[0.0], [7.0]]))
        found = generator(torch.tensor([[1.0, 0.0], [2.0, 1.0], [0.0, 5.0]]), torch.tensor([0, 1, 1]))
    sums = np.array([1.0, 3.0, 5.0])
    standard = (sums - 3) / np.sqrt(sums.var() + 1e-5)
    expected = np.maximum(standard * [1, 5, 5] + [0, 7, 7], 0)
    np.testing.assert_allclose(found[:, 0], expected, rtol=1e-5)


def test_an_auxiliary_classifier_is_k_more_outputs_of_the_last_layer():
    plain, auxiliary = (conditional("dcgan", of_discriminator=way).discriminator for way in ("projection", "auxiliary"))
    assert auxiliary.layers[-1].weight.shape == (4, 8 * 4 * 4)
    assert parameters(plain) - parameters(auxiliary) == 1 * 128 + 1 + 3 * 128 - (4 * 128 + 4)


def test_spectral_norm_covers_the_labels_embedding():
    keys = {**PLAIN, "normalization": "spectral"}
    discriminator: Any = MLPDiscriminator((3,), 2, hidden=[], **keys, conditioning="projection")
    assert is_parametrized(discriminator.layers[-1].embed)
    assert is_parametrized(discriminator.layers[-1].linear)


@pytest.mark.parametrize("way", ["projection", "auxiliary"])
def test_what_comes_after_the_last_layer_is_refused(way):
    with pytest.raises(UserError, match=rf"architecture.discriminator.conditioning={way}: .*output=\['batch'\]"):
        MLPDiscriminator((3,), 2, hidden=[], **{**PLAIN, "output": ["batch"]}, conditioning=way)


@pytest.mark.parametrize("name", ["mlp_tanh", "cnn_mnist", "dcgan"])
def test_a_generator_without_batch_norm_cannot_be_conditioned_by_it(name):
    with pytest.raises(UserError, match=r"architecture.generator.conditioning=batch_norm: .* has no batch norm"):
        conditional(name, of_generator="batch_norm", normalization="layer")


def test_without_labels_there_is_no_embedding():
    discriminator = MLPDiscriminator((3,), 0, hidden=[], **PLAIN, conditioning="projection")
    assert not any(isinstance(module, nn.Embedding) for module in discriminator.modules())


def test_the_logits_of_a_projection_begin_as_small_as_others():
    """Glorot's weights, as in the authors' code; those of N(0, 1) would make logits as large as √6272 = 79."""
    torch.manual_seed(0)
    keys = {"conditioning": "projection", "normalization": "none"}
    discriminator = networks("dcgan", (1, 28, 28), num_classes=10, discriminator=keys).discriminator
    logits = discriminator(torch.rand(64, 1, 28, 28), torch.arange(64) % 10)
    assert logits.std() < 1
    weight = next(m.weight for m in discriminator.modules() if isinstance(m, nn.Embedding))
    assert float(weight.abs().max().detach()) <= math.sqrt(6 / sum(weight.shape))
