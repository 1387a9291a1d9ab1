"""Augmentations against numpy and scipy, and how p adapts against the paper's rule by hand."""

import itertools
import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.ndimage import affine_transform
from scipy.spatial.transform import Rotation
from torch import Tensor, nn

from gan_runner.augmentation import (
    ADA,
    Augmentation,
    DiffAugment,
    ImageAugmentation,
    InstanceNoise,
    blit,
    cut_out,
    jitter_color,
    move,
    recolor,
    resample,
    translate,
)
from gan_runner.config import composition
from gan_runner.config.components import check
from gan_runner.datasets import DataFacts
from gan_runner.errors import UserError
from gan_runner.game import Game, UpdateBatch, discriminator_terms, generator_terms
from gan_runner.losses import Relativistic
from gan_runner.machine.ranks import Ranks
from gan_runner.randomness import rng
from gan_runner.runs.building import build_batches, build_game, build_state
from tests.training import newest_state, rows, train, write_images

SHAPE = (3, 6, 5)


def images(count: int = 2, shape: tuple[int, ...] = SHAPE) -> Tensor:
    return torch.rand(count, *shape, generator=rng(0, "images"), dtype=torch.double) * 2 - 1


def numbers(*each: list[float]) -> Iterator[Tensor]:
    """As an augmentation gets them: of each image, so many."""
    return iter(torch.tensor(each, dtype=torch.double).T.unbind(0))


def all_of(count: int) -> Tensor:
    return torch.ones(count, dtype=torch.double)


def drawn(augmentation: Augmentation, count: int, seed: int = 0) -> Tensor:
    uniform = torch.rand(count, augmentation.uniforms, generator=rng(seed), dtype=torch.double)
    return torch.cat(
        [uniform, torch.randn(count, augmentation.normals, generator=rng(seed), dtype=torch.double)], dim=1
    )


def ada(*policy: str, shape: tuple[int, ...] = SHAPE, batch_size: int = 64, **keys) -> ADA:
    facts = {"target": 0.6, "interval": 4, "images": 500_000, "shape": shape, "value_range": (-1.0, 1.0)} | keys
    names: Any = [*policy] or ["blit", "geometry", "color"]
    return ADA(names, batch_size=batch_size, **facts)  # type: ignore[arg-type]


# Instance noise


def test_instance_noise_is_added_and_falls_to_nothing():
    noise = InstanceNoise(std=0.5, steps=4, shape=(2,))
    assert [noise.strength(step) for step in range(1, 7)] == [1, 0.75, 0.5, 0.25, 0, 0]
    x, normal = torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([[1.0, -2.0], [0.0, 4.0]])
    assert noise(x, normal, torch.tensor([1.0, 0.5])).tolist() == [[1.5, 1.0], [3.0, 5.0]]
    assert InstanceNoise(std=0.5, steps=4, shape=(3, 8, 8)).normals == 192


# DiffAugment


def test_color_changes_brightness_then_saturation_then_contrast():
    x = images()
    found = jitter_color(x, numbers([0.9, 0.25, 1.0], [0.1, 0.75, 0.0])).numpy()
    for image, ours, (brightness, saturation, contrast) in zip(
        x.numpy(), found, ((0.4, 0.5, 1.5), (-0.4, 1.5, 0.5)), strict=True
    ):
        brighter = image + brightness
        grey = brighter.sum(axis=0) / 3
        saturated = saturation * brighter + (1 - saturation) * grey
        expected = contrast * saturated + (1 - contrast) * saturated.mean()
        np.testing.assert_allclose(ours, expected, atol=1e-12)


def test_a_grey_image_has_no_saturation():
    x = images(shape=(1, 4, 4))
    one, other = (jitter_color(x, numbers([0.5, s, 0.7], [0.5, s, 0.7])) for s in (0.0, 0.9))
    torch.testing.assert_close(one, other)


def test_translation_is_by_whole_pixels_into_nothing():
    x = images(3, (2, 16, 8))  # by up to 2 rows and 1 column
    found = translate(x, numbers([0.0, 0.5], [0.999, 0.0], [0.5, 0.999])).numpy()  # (-2, 0), (2, -1), (0, 1)
    expected, plain = np.zeros_like(found), x.numpy()
    expected[0, :, :-2] = plain[0, :, 2:]
    expected[1, :, 2:, :-1] = plain[1, :, :-2, 1:]
    expected[2, :, :, 1:] = plain[2, :, :, :-1]
    np.testing.assert_array_equal(found, expected)


def test_every_translation_is_as_likely():
    x = torch.zeros(1000, 1, 8, 1, dtype=torch.double)
    x[:, :, 4] = 1
    rows_of_one = translate(x, numbers(*[[i / 1000, 0.5] for i in range(1000)])).squeeze().argmax(dim=1)
    assert torch.bincount(rows_of_one, minlength=8).tolist() == [0, 0, 0, 334, 333, 333, 0, 0]


@pytest.mark.parametrize(
    ("side", "number", "zeros"),
    [
        (4, 0.0, {0}),  # the rectangle is 2 wide, and may begin at -1, 0, … 3
        (4, 0.2, {0, 1}),
        (4, 0.5, {1, 2}),
        (4, 0.999, {3}),
        (6, 0.0, {0, 1}),  # 3 wide, from -1 to 4
        (6, 0.5, {2, 3, 4}),
        (6, 0.999, {4, 5}),
    ],
)
def test_a_cutout_has_half_the_sides(side, number, zeros):
    for dim in (2, 3):
        shape = [1, 2, 2, 2]
        shape[dim] = side
        x = torch.ones(*shape, dtype=torch.double)
        u = [number, 0.4] if dim == 2 else [0.4, number]  # of a side of 2, the first half
        found = cut_out(x, numbers(u))[0, 0]
        other_way = found if dim == 2 else found.T
        expected = [[0.0 if row in zeros else 1.0, 1.0] for row in range(side)]
        assert other_way.tolist() == expected


def test_a_policy_is_followed_in_its_order():
    x, u = images(), torch.rand(2, 7, generator=rng(1), dtype=torch.double)
    both = DiffAugment(["cutout", "color"], SHAPE, (-1.0, 1.0))
    assert (both.uniforms, both.normals) == (5, 0)
    expected = jitter_color(cut_out(x, iter(u[:, :2].unbind(1))), iter(u[:, 2:5].unbind(1)))
    torch.testing.assert_close(both(x, u[:, :5], all_of(2)), expected)


@pytest.mark.parametrize("augmentation", [DiffAugment, ADA])
def test_strengths_are_those_of_the_papers_in_any_range_of_values(augmentation):
    def made(value_range: tuple[float, float] | None) -> ImageAugmentation:
        if augmentation is ADA:
            return ada(value_range=value_range)
        return DiffAugment(["color", "translation", "cutout"], SHAPE, value_range)

    x, papers = images(), made((-1.0, 1.0))
    u = drawn(papers, 2)
    expected = papers(x, u, all_of(2))
    torch.testing.assert_close(made((0.0, 1.0))((x + 1) / 2, u, all_of(2)), (expected + 1) / 2)
    torch.testing.assert_close(made((0.0, 255.0))((x + 1) * 127.5, u, all_of(2)), (expected + 1) * 127.5)
    torch.testing.assert_close(made(None)(x, u, all_of(2)), expected)


# ADA: geometry


def by_scipy(image: np.ndarray, source: np.ndarray) -> np.ndarray:
    """Each pixel from where `source` says, in pixels (x, y, 1) from the middle."""
    swap = np.array([[0, 1, 0], [1, 0, 0], [0, 0, 1]])  # scipy has (y, x, 1), from the first pixel
    middle = np.eye(3)
    middle[:2, 2] = (np.array(image.shape[1:]) - 1) / 2
    matrix = middle @ swap @ source @ swap @ np.linalg.inv(middle)
    return np.stack([affine_transform(channel, matrix, order=1, mode="reflect") for channel in image])


def turn(angle: float) -> np.ndarray:
    return np.array([[math.cos(angle), -math.sin(angle), 0], [math.sin(angle), math.cos(angle), 0], [0, 0, 1]])


def shift(x: float, y: float) -> np.ndarray:
    return np.array([[1, 0, x], [0, 1, y], [0, 0, 1]])


def test_resampling_is_bilinear_and_mirrors_at_the_edges():
    x = images(4)
    places = [turn(0.7), shift(2.3, -1.4), np.diag([1.5, 0.6, 1]) @ turn(2.0) @ shift(0.3, 4.0), shift(9.0, -13.0)]
    found = resample(x, torch.tensor(np.stack(places)))
    for image, ours, source in zip(x.numpy(), found.numpy(), places, strict=True):
        np.testing.assert_allclose(ours, by_scipy(image, source), atol=1e-9)


def test_blits_are_mirror_images_quarter_turns_and_whole_pixels():
    # Each choice is a number for what, then one for whether; a translation's whether comes first.
    x = images(6, (1, 16, 16))
    u = numbers(
        [0.9, 0.0, 0.0, 0.0, 0.9, 0.5, 0.5],  # mirrored
        [0.1, 0.0, 0.3, 0.0, 0.9, 0.5, 0.5],  # by a quarter
        [0.1, 0.0, 0.6, 0.0, 0.9, 0.5, 0.5],  # by a half
        [0.1, 0.0, 0.0, 0.0, 0.0, 1.0, 0.25],  # 2 to the one side, 1 to the other
        [0.9, 0.6, 0.9, 0.6, 0.6, 0.9, 0.9],  # nothing is chosen at p = 1/2
        [0.9, 0.0, 0.3, 0.0, 0.0, 1.0, 0.5],  # all
    )
    found = resample(x, blit(u, all_of(6) / 2, 16, 16)).numpy()[:, 0]
    plain = x.numpy()[:, 0]
    padded = np.pad(plain, ((0, 0), (2, 2), (2, 2)), mode="symmetric")
    expected = [plain[0, :, ::-1], np.rot90(plain[1]), plain[2, ::-1, ::-1], padded[3, 1:17, 4:20], plain[4]]
    for ours, theirs in zip(found, expected, strict=False):
        np.testing.assert_allclose(ours, theirs, atol=1e-12)
    source = np.diag([-1, 1, 1]) @ turn(math.pi / 2) @ shift(2, 0)
    np.testing.assert_allclose(found[5], by_scipy(x[5].numpy(), source)[0], atol=1e-9)


def test_a_general_move_is_scaled_turned_stretched_turned_and_shifted():
    uniform = numbers([0.0, 0.8, 0.0, 0.0, 0.3, 0.0, 0.0], [0.5, 0.8, 0.5, 0.5, 0.3, 0.5, 0.5])
    normal = numbers([1.0, -2.0, 0.4, -0.8], [1.0, -2.0, 0.4, -0.8])
    found = move(uniform, normal, all_of(2) / 2, height=16, width=8).numpy()
    size, aspect = 2**0.2, 2**-0.4
    turned = np.diag([size, size, 1]) @ turn(0.6 * math.pi) @ np.diag([aspect, 1 / aspect, 1]) @ turn(-0.4 * math.pi)
    np.testing.assert_allclose(found[0], turned @ shift(0.4, -1.6), atol=1e-12)
    np.testing.assert_allclose(found[1], np.eye(3), atol=1e-12)  # no number is below p


def test_p_is_the_probability_of_each_change():
    count, p = 20_000, 0.3
    u = iter(torch.rand(count, 14, generator=rng(0), dtype=torch.double).unbind(1))
    normal = iter(torch.randn(count, 4, generator=rng(1), dtype=torch.double).unbind(1))
    moved = move(u, normal, torch.full((count,), p, dtype=torch.double), 8, 8)

    def is_near(found: Tensor, expected: float) -> bool:
        return abs(found.double().mean().item() - expected) < 4 * math.sqrt(expected * (1 - expected) / count)

    areas = moved[:, 0, 0] * moved[:, 1, 1] - moved[:, 0, 1] * moved[:, 1, 0]
    assert is_near((areas - 1).abs() > 1e-9, p)  # only the common scaling changes areas
    assert is_near(moved[:, 0, 2].abs() + moved[:, 1, 2].abs() > 0, p)
    off_diagonal = (moved[:, 0, 1].abs() + moved[:, 1, 0].abs()) > 1e-9
    assert is_near(off_diagonal, p)  # either rotation, or both


# ADA: colour


def by_matrices(image: np.ndarray, brightness: float, contrast: float, inverted: bool, angle: float, saturation: float):
    """The paper's way: 4×4 matrices on (r, g, b, 1), one after another."""
    axis = np.ones(3) / math.sqrt(3)
    along = np.outer(axis, axis)
    add = np.eye(4)
    add[:3, 3] = brightness
    linear = [
        contrast * np.eye(3),
        np.eye(3) - 2 * along * inverted,
        Rotation.from_rotvec(angle * axis).as_matrix(),
        along + saturation * (np.eye(3) - along),
    ]
    matrix = add
    for part in linear:
        whole = np.eye(4)
        whole[:3, :3] = part
        matrix = whole @ matrix
    pixels = np.concatenate([image.reshape(3, -1), np.ones((1, image[0].size))])
    return (matrix @ pixels)[:3].reshape(image.shape)


def test_colors_are_changed_as_by_matrices():
    x = images()
    uniform = numbers([0.0, 0.0, 0.7, 0.0, 0.8, 0.0, 0.0], [0.0, 0.9, 0.7, 0.9, 0.1, 0.0, 0.9])
    found = recolor(x, uniform, numbers([1.5, -1.0, 1.0], [-0.5, 9.0, 9.0]), all_of(2) / 2).numpy()
    np.testing.assert_allclose(found[0], by_matrices(x[0].numpy(), 0.3, 2**-0.5, True, 0.6 * math.pi, 2), atol=1e-12)
    np.testing.assert_allclose(found[1], by_matrices(x[1].numpy(), -0.1, 1, False, -0.8 * math.pi, 1), atol=1e-12)


def test_of_a_grey_image_luma_alone_changes():
    x = images(1, (1, 6, 5))
    uniform, normal = [0.0, 0.0, 0.7, 0.0, 0.8, 0.0, 0.0], [1.5, -1.0, 1.0]
    grey = recolor(x, numbers(uniform), numbers(normal), all_of(1))
    of_three = recolor(x.expand(1, 3, 6, 5), numbers(uniform), numbers(normal), all_of(1))
    torch.testing.assert_close(grey, -(2**-0.5) * (x + 0.3))
    torch.testing.assert_close(of_three, grey.expand(1, 3, 6, 5))


# ADA: as a whole


@pytest.mark.parametrize("policy", [("blit",), ("geometry",), ("color",), ("color", "blit"), ()])
def test_a_policy_takes_all_the_numbers_it_asks_for_and_no_more(policy):
    augmentation = ada(*policy)
    left: list[int] = []
    change = augmentation.change

    def counted(x: Tensor, uniform: Iterator[Tensor], normal: Iterator[Tensor], strength: Tensor) -> Tensor:
        changed = change(x, uniform, normal, strength)
        left.extend([len(list(uniform)), len(list(normal))])
        return changed

    augmentation.change = counted  # type: ignore[method-assign]
    x = images()
    assert not torch.allclose(augmentation(x, drawn(augmentation, 2), all_of(2)), x)
    torch.testing.assert_close(augmentation(x, drawn(augmentation, 2), 0 * all_of(2)), x)  # p = 0: nothing
    assert left == [0, 0, 0, 0]


def test_p_follows_the_paper():
    """It moves after each fourth update, by 64·4 images of 500,000, towards what brings the mean sign to 0.6."""
    augmentation, state = ada(), {name: torch.zeros(()) for name in ADA.adapts}
    signs = [1.0, 1.0, 0.5, 0.5, *[0.6] * 3, 0.65, *[0.9] * 4, *[-1.0] * 4, *[0.0] * 8, 1.0, 1.0]
    probabilities = []
    for sign in signs:
        augmentation.adapt(state, {"mean/sign": torch.tensor(sign)})
        probabilities.append(round(state["probability"].item() / (64 * 4 / 500_000), 4))
    assert probabilities == [0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 2, 2, 2, 2, 1, 1, 1, 1, 0, 0, 0]
    assert (state["sign"].item(), state["updates"].item()) == (2, 2)


def test_p_stays_between_0_and_1():
    augmentation, state = ada(interval=1, images=128), {name: torch.zeros(()) for name in ADA.adapts}
    probabilities = []
    for sign in (-1.0, 1.0, 1.0, 1.0, -1.0):  # each half of the way
        augmentation.adapt(state, {"mean/sign": torch.tensor(sign)})
        probabilities.append(state["probability"].item())
    assert probabilities == [0, 0.5, 1, 1, 0.5]


@pytest.mark.parametrize(
    ("augmentation", "shape"),
    [
        (ada(), SHAPE),
        (ada(shape=(1, 6, 5)), (1, 6, 5)),
        (DiffAugment(["color", "translation", "cutout"], SHAPE, (0.0, 1.0)), SHAPE),
        (InstanceNoise(0.1, 10, SHAPE), SHAPE),
    ],
    ids=["ada", "ada, grey", "diffaugment", "noise"],
)
def test_it_is_differentiable(augmentation, shape):
    x, u = images(3, shape), drawn(augmentation, 3)
    assert torch.autograd.gradcheck(lambda x: augmentation(x, u, 0.7 * all_of(3)), x.requires_grad_())


# In a training

IMAGES = (
    *("dataset=images", "dataset.size=8", "dataset.channels=1", "architecture=mlp_layernorm"),
    *("architecture.latent.dim=4", "architecture.generator.hidden=[16]", "architecture.discriminator.hidden=[16]"),
    *("trainer.batch_size=8", "metric=[]", "doctor=none", "device=cpu"),
)
ADAPTIVE = ("augmentation=ada", "augmentation.interval=3", "augmentation.images=120", "augmentation.target=-0.1")


@pytest.fixture
def folder(tmp_path):
    return f"dataset.root={write_images(tmp_path / 'images')}"


class ByHand:
    """k = 2, R1 at each update, ada: a loop with nothing of the step's but the networks, the data and the noise."""

    def __init__(self, *words: str) -> None:
        experiment = check(composition.plain(composition.compose(words, "train")))
        self.data = experiment.build("dataset")
        facts = DataFacts.of(self.data)
        state, game = build_state(experiment, facts, torch.device("cpu")), build_game(experiment, self.data)
        assert isinstance(game.augmentation, ADA)
        self.augmentation = game.augmentation
        self.generator, self.discriminator = state.generator.module, state.discriminator.module
        self.p = 0.0
        self.signs: list[float] = []
        self.probabilities: list[float] = []  # after each step

    def augmented(self, x: Tensor, stream: torch.Generator) -> Tensor:
        uniform = torch.rand(8, self.augmentation.uniforms, generator=stream)
        normal = torch.randn(8, self.augmentation.normals, generator=stream)
        return self.augmentation(x, torch.cat([uniform, normal], dim=1), torch.full((8,), self.p))

    def step(self, number: int) -> None:
        noise, stream = rng(0, "noise", number), rng(0, "augmentation", number)
        for update in range(2):
            real, _ = self.data.batch(2 * number - 2 + update, 8, 0)
            fake = self.generator(torch.randn(8, 4, generator=noise)).detach()
            fake, real = self.augmented(fake, stream), self.augmented(real, stream)
            logits = self.discriminator(real)
            real.requires_grad_()
            (slope,) = torch.autograd.grad(self.discriminator(real).sum(), real, create_graph=True)
            loss = F.softplus(-logits).mean() + F.softplus(self.discriminator(fake)).mean()
            self.descend(self.discriminator, loss + 0.1 / 2 * slope.square().sum() / 8)
            self.signs.append(logits.sign().mean().item())
            if len(self.signs) % 3 == 0:
                higher = sum(self.signs[-3:]) / 3 > -0.1
                self.p = min(1.0, max(0.0, self.p + (0.2 if higher else -0.2)))  # 8·3 images of 120
        fake = self.generator(torch.randn(8, 4, generator=noise))
        fake = self.augmented(fake, stream)
        self.descend(self.generator, F.softplus(-self.discriminator(fake)).mean())
        self.probabilities.append(self.p)

    def descend(self, network: nn.Module, loss: Tensor) -> None:
        gradients = torch.autograd.grad(loss, list(network.parameters()))
        with torch.no_grad():
            for parameter, gradient in zip(network.parameters(), gradients, strict=True):
                parameter.sub_(0.1 * gradient)


def test_ada_is_the_algorithm(tmp_path, folder):
    words = (
        *(*IMAGES, folder, *ADAPTIVE, "regularizer=r1", "regularizer.r1.weight=0.1", "trainer.discriminator_steps=2"),
        *("optimizer=sgd", "optimizer.generator.lr=0.1", "optimizer.discriminator.lr=0.1", "trainer.log_every=1"),
        *("trainer.steps=20", "trainer.ema_decay=null", "architecture.latent.distribution=normal"),
    )
    hand = ByHand(*words)
    for number in range(1, 21):
        hand.step(number)
    assert train(tmp_path / "run", *words) == 0
    logged = rows(tmp_path / "run")
    assert max(hand.probabilities) > 0.3  # it goes up and down
    assert min(b - a for a, b in itertools.pairwise(hand.probabilities)) < 0
    assert [row["augmentation/probability"] for row in logged] == pytest.approx(hand.probabilities, abs=1e-6)
    assert [row["augmentation/sign"] for row in logged] == pytest.approx(hand.signs[1::2], abs=1e-6)
    found = newest_state(tmp_path / "run")
    for name in ("generator", "discriminator"):
        for key, expected in getattr(hand, name).state_dict().items():
            torch.testing.assert_close(found[f"{name}/{key}"], expected, rtol=1e-4, atol=1e-5)


def test_real_fake_and_each_update_have_numbers_of_their_own(folder):
    experiment = check(composition.plain(composition.compose((*IMAGES, folder, "augmentation=diffaugment"), "train")))
    dataset = experiment.build("dataset")
    facts = DataFacts.of(dataset)
    game, state = build_game(experiment, dataset), build_state(experiment, facts, torch.device("cpu"))
    for noise in ("fresh", "reused"):
        batches = replace(build_batches(experiment, dataset, game, state, Ranks()), reuse_noise=noise == "reused")
        seen = []
        for number in (1, 2, 1):
            drawn = batches.at(number)
            assert drawn.generator is not None
            assert drawn.generator.real_drawn is None  # which its loss does not see
            (update,) = drawn.discriminator
            numbers = (update.real_drawn, update.fake_drawn, drawn.generator.fake_drawn)
            seen += [drawn.flatten().tolist() for drawn in numbers if drawn is not None]
        assert len(set(map(tuple, seen[:6]))) == 6
        assert seen[6:] == seen[:3]  # of seed and step alone


def test_a_paired_loss_sees_augmented_real_samples():
    seen: list[Tensor] = []

    class Doubled(Augmentation):
        def __call__(self, x: Tensor, drawn: Tensor, strength: Tensor) -> Tensor:
            return 2 * x

    def discriminator(x: Tensor) -> Tensor:
        seen.append(x)
        return x.sum(dim=1)

    real, z = torch.full((2, 3), 5.0), torch.ones(2, 3)
    batch = UpdateBatch(real, z, real_drawn=z, fake_drawn=z, strength=z[:, 0])
    game = Game(Relativistic(), augmentation=Doubled())
    for terms_of in (discriminator_terms, generator_terms):
        terms_of(game, lambda z: z, discriminator, batch)  # type: ignore[arg-type]
    assert [x.tolist() for x in seen] == [[[10.0] * 3] * 2, [[2.0] * 3] * 2] * 2


# Refused


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("dataset=ring", "augmentation=ada"), "augmentation: ADA needs images (channels, height, width), but"),
        (("augmentation=diffaugment",), "augmentation: DiffAugment needs images"),
        (("dataset=ring", "loss=wasserstein", "augmentation=ada"), "augmentation: ADA adapts to the sign of D's"),
        (("loss=relativistic", "augmentation=ada"), "which Relativistic gives no meaning"),
        (("augmentation=ada", "augmentation.policy=[blit,colour]"), "augmentation.policy.1: found 'colour' (str)"),
        (("augmentation=ada", "augmentation.policy=[]"), "augmentation.policy: found [] (list)"),
        (("augmentation=ada", "+augmentation.shape=[1]"), "augmentation.shape: is injected"),
    ],
)
def test_what_does_not_fit_is_refused(refused, words, said):
    assert said in refused(*words)


def test_color_needs_grey_or_three_channels():
    with pytest.raises(UserError, match=r"augmentation\.policy: color needs images of 1 or 3 channels, .* have 2"):
        ada(shape=(2, 8, 8))
    assert ada("blit", "geometry", shape=(2, 8, 8)).uniforms == 14


def test_a_run_that_is_extended_stays_without_instance_noise(tmp_path, refused):
    words = ("augmentation=instance_noise", "trainer.batch_size=8", "trainer.steps=4", "metric=[]", "device=cpu")
    assert train(tmp_path / "run", *words) == 0
    longer = [word.replace("steps=4", "steps=8") for word in words]
    assert "(augmentation.steps)" in refused(f"hydra.run.dir={tmp_path / 'run'}", *longer)
    assert train(tmp_path / "run", *longer, "augmentation.steps=4") == 0


@pytest.mark.parametrize(
    "words",
    [
        "augmentation=ada augmentation.policy=[blit,color,blit]",
        "augmentation=diffaugment augmentation.policy=[color,color]",
    ],
)
def test_a_policy_has_each_change_once(words, refused, tmp_path):
    images = write_images(tmp_path / "images")
    said = refused("dataset=images", f"dataset.root={images}", "dataset.size=8", "trainer.batch_size=4", *words.split())
    assert "augmentation.policy: found" in said
    assert "twice; allowed: each once" in said
