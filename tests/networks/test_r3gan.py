from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw
from torch import Tensor, nn

from gan_runner.errors import UserError
from gan_runner.networks import R3GANDiscriminator, R3GANGenerator
from gan_runner.networks.conditioning import ClassEmbedding
from gan_runner.networks.r3gan import Block, Resample
from gan_runner.runs.generator import load_generator
from tests.networks.conftest import parameters
from tests.training import train

SMALL: dict[str, Any] = {"widths": [16, 8, 8, 8], "blocks": 1, "group_width": 4, "embedding": 5}
PAPER: dict[str, Any] = {"widths": [768] * 5, "blocks": 2, "group_width": 16, "embedding": 64}


@pytest.mark.parametrize(("side", "sizes"), [(32, 4), (64, 5)])
def test_the_networks_of_the_paper_counted_by_hand(side, sizes):
    # 768 → 1536 with biases, 96 groups of 16 channels with biases, 1536 → 768 without
    block = (768 * 1536 + 1536) + (1536 * 16 * 9 + 1536) + 1536 * 768
    with torch.device("meta"):
        generator = R3GANGenerator(64, (3, side, side), 0, **PAPER)
        discriminator = R3GANDiscriminator((3, side, side), 0, **PAPER)
    assert parameters(generator) == 768 * 16 + 64 * 768 + 2 * sizes * block + 768 * 3
    assert parameters(discriminator) == 3 * 768 + 2 * sizes * block + 768 * 16 + 768
    grouped = [m for m in generator.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)]
    assert {convolution.groups for convolution in grouped} == {96}

    # Conditional: ten classes embedded as 64 numbers, beside z in one network, against 64 products in the other.
    with torch.device("meta"):
        assert parameters(R3GANGenerator(64, (3, side, side), 10, **PAPER)) - parameters(generator) == 640 + 64 * 768
        of_labels = parameters(R3GANDiscriminator((3, side, side), 10, **PAPER)) - parameters(discriminator)
    assert of_labels == 640 + 63 * 768


def test_where_the_width_changes_there_is_a_convolution_without_bias():
    block = {n: (2 * n * n + 2 * n) + (2 * n * 4 * 9 + 2 * n) + 2 * n * n for n in (8, 16)}
    generator, discriminator = R3GANGenerator(3, (1, 32, 32), 0, **SMALL), R3GANDiscriminator((1, 32, 32), 0, **SMALL)
    assert parameters(generator) == 16 * 16 + 3 * 16 + block[16] + 16 * 8 + 3 * block[8] + 8
    assert parameters(discriminator) == 8 + 3 * block[8] + 8 * 16 + block[16] + 16 * 16 + 16


@pytest.mark.parametrize("num_classes", [0, 3])
@pytest.mark.parametrize(("shape", "smallest"), [((1, 28, 28), (7, 7)), ((3, 32, 32), (4, 4)), ((3, 16, 24), (4, 6))])
def test_images_of_many_sizes_can_be_made(shape, smallest, num_classes):
    generator = R3GANGenerator(3, shape, num_classes, **SMALL)
    discriminator = R3GANDiscriminator(shape, num_classes, **SMALL)
    labels = torch.tensor([2, 1]) if num_classes else None
    x = generator(torch.randn(2, 3), labels)
    assert x.shape == (2, *shape)
    assert generator.basis.shape[1:] == smallest
    assert discriminator(x, labels).shape == (2,)


def test_a_block_by_hand_and_at_first_it_changes_nothing():
    torch.manual_seed(0)
    block: Any = Block(2, group_width=2, blocks_in_all=16)
    x = torch.randn(1, 2, 3, 3)
    assert torch.equal(block(x), x)

    first, _, grouped, _, last = block
    for layer in (first, grouped):
        nn.init.normal_(layer.bias)
    nn.init.normal_(last.weight)
    h = np.einsum("oi,ihw->ohw", first.weight.detach()[:, :, 0, 0], x[0]) + first.bias.detach().numpy()[:, None, None]
    h = np.pad(np.where(h > 0, h, 0.2 * h), ((0, 0), (1, 1), (1, 1)))
    out = np.zeros((4, 3, 3))
    for o, row, column in np.ndindex(4, 3, 3):
        group = h[:2] if o < 2 else h[2:]
        window = group[:, row : row + 3, column : column + 3]
        out[o, row, column] = (window * grouped.weight.detach().numpy()[o]).sum() + grouped.bias[o].item()
    out = np.where(out > 0, out, 0.2 * out)
    expected = x[0].numpy() + np.einsum("oi,ihw->ohw", last.weight.detach()[:, :, 0, 0], out)
    np.testing.assert_allclose(block(x)[0].detach(), expected, rtol=1e-4, atol=1e-5)


def test_weights_start_smaller_the_more_blocks_there_are():
    torch.manual_seed(0)
    for blocks in (1, 16):
        block: Any = Block(64, group_width=16, blocks_in_all=blocks)
        gain = (2 / 1.04) ** 0.5 / blocks**0.25
        assert block[0].weight.std().item() == pytest.approx(gain / 8, rel=0.05)  # 64 inputs
        assert block[2].weight.std().item() == pytest.approx(gain / 12, rel=0.05)  # 16 · 9


def test_resampling_is_the_filter_1_3_3_1():
    x = torch.randn(1, 1, 8, 8)
    side = torch.tensor([1.0, 3.0, 3.0, 1.0])
    kernel = torch.outer(side, side)[None, None] / 64
    torch.testing.assert_close(Resample(double=False)(x), F.conv2d(x, kernel, stride=2, padding=1))
    torch.testing.assert_close(Resample(double=True)(x), F.conv_transpose2d(x, 4 * kernel, stride=2, padding=1))
    inner = (slice(None), slice(None), slice(2, -2), slice(2, -2))  # where no edge is near, it is torch's interpolation
    interpolated = F.interpolate(x, scale_factor=2, mode="bilinear")
    torch.testing.assert_close(Resample(double=True)(x)[inner], interpolated[inner])


def test_the_first_map_is_scaled_by_the_latent():
    generator: Any = R3GANGenerator(2, (1, 16, 16), 0, widths=[8, 8, 8], blocks=1, group_width=4, embedding=5)
    seen = []
    generator.layers[0].register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    z = torch.randn(3, 2)
    generator(z)
    weight, basis = generator.scale.weight.detach().numpy(), generator.basis.detach().numpy()
    np.testing.assert_allclose(seen[0].detach(), np.einsum("bi,oi,ohw->bohw", z, weight, basis), rtol=1e-5, atol=1e-6)


def test_nothing_normalizes():
    for network in (R3GANGenerator(3, (1, 32, 32), 3, **SMALL), R3GANDiscriminator((1, 32, 32), 3, **SMALL)):
        kinds = {type(module) for module in network.modules() if not list(module.children())}
        assert kinds <= {nn.Conv2d, nn.Linear, nn.LeakyReLU, nn.Embedding, ClassEmbedding, nn.Flatten, Resample}


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"widths": [8, 8]}, "architecture: images of 32×32 need 4 widths, for maps of 4×4, 8×8, 16×16, 32×32.* are 2"),
        (
            {"widths": [8, 8, 6, 8], "group_width": 8},
            "architecture: 2 times the width 6 is no multiple of group_width=8",
        ),
    ],
)
def test_widths_that_do_not_fit_are_refused(keys, message):
    with pytest.raises(UserError, match=message):
        R3GANGenerator(3, (1, 32, 32), 0, **{**SMALL, **keys})
    with pytest.raises(UserError, match=message):
        R3GANDiscriminator((1, 32, 32), 0, **{**SMALL, **keys})


def energy_distance(one: Tensor, other: Tensor) -> float:
    """2 E‖x − y‖ − E‖x − x'‖ − E‖y − y'‖, 0 where two sets of images have one distribution."""
    one, other = one.flatten(1), other.flatten(1)
    within = [torch.cdist(images, images).sum() / (len(images) * (len(images) - 1)) for images in (one, other)]
    return float(2 * torch.cdist(one, other).mean() - within[0] - within[1])


def test_in_200_steps_what_is_made_comes_nearer_to_drawn_images(tmp_path):
    noise = np.random.default_rng(0)
    for i in range(200):
        image = Image.new("L", (16, 16))
        left, top = noise.integers(1, 7, 2)
        ImageDraw.Draw(image).ellipse([left, top, left + 8, top + 8], fill=255)
        (tmp_path / "images").mkdir(exist_ok=True)
        image.save(tmp_path / "images" / f"{i:03d}.png")
    words = ["dataset=images", f"dataset.root={tmp_path / 'images'}", "dataset.size=16", "dataset.channels=1"]
    words += ["architecture=r3gan", "loss=relativistic", "regularizer=[r1,r2]", "metric=[]", "doctor=none"]
    words += ["trainer.batch_size=32", "trainer.ema_decay=0.9", "device=cpu"]
    for name in ("generator", "discriminator"):
        words += [f"architecture.{name}.widths=[32,16,16]", f"architecture.{name}.blocks=1"]
        words += [f"optimizer.{name}.lr=0.002", f"optimizer.{name}.betas=[0.0,0.99]"]
    words += [f"regularizer.{name}.{key}" for name in ("r1", "r2") for key in ("weight=0.1", "interval=4")]
    drawn = torch.stack(
        [torch.from_numpy(np.array(Image.open(path))) / 255 for path in (tmp_path / "images").iterdir()]
    )
    distance = []
    for steps in (1, 200):
        run = tmp_path / str(steps)
        assert train(run, *words, f"trainer.steps={steps}") == 0
        generator = load_generator(run, [], torch.device("cpu"), "newest")
        latents = generator.latents(0)
        made = torch.cat([generator(next(latents), None) for _ in range(4)])
        distance.append(energy_distance(made, drawn))
    assert distance[1] < 0.5 * distance[0]
