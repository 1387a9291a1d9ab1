"""PacGAN's packing: both losses and penalties of packs by hand, whatever discriminator, in whole trainings."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from gan_runner.augmentation import Augmentation
from gan_runner.config import composition
from gan_runner.config.components import check
from gan_runner.datasets import DataFacts
from gan_runner.game import Game, UpdateBatch, discriminator_terms, generator_terms
from gan_runner.losses import NonSaturating
from gan_runner.networks.running import pack
from gan_runner.regularizers import DRAGAN, R1, GradientPenalty
from gan_runner.runs.building import build_state
from tests.training import newest_state, rows, status, train, write_images

REAL = torch.tensor([[1.0, 2.0], [3.0, 4.0], [0.0, 1.0], [-1.0, 0.0]])
FAKE = torch.tensor([[0.5, 0.0], [0.0, 0.5], [2.0, 2.0], [1.0, -1.0]])


class Quadratic(torch.nn.Module):
    """D(x) = a/2 ‖x‖² of packs (N, 4), whose gradient is a·x."""

    def __init__(self) -> None:
        super().__init__()
        self.a = torch.nn.Parameter(torch.tensor(0.5))

    def forward(self, x: Tensor) -> Tensor:
        assert x.shape[1] == 4
        return self.a / 2 * x.square().sum(1)


def play(*, due: tuple[str, ...] = (), uniform: Tensor | None = None, **keywords: Any) -> dict[str, Tensor]:
    game = Game(NonSaturating(), packing=2, **keywords)
    batch = UpdateBatch(REAL, FAKE, uniform=uniform, due=due)
    generator: Any = lambda z: z  # noqa: E731
    discriminator = Quadratic()
    terms = discriminator_terms(game, generator, discriminator, batch)
    return terms | generator_terms(game, generator, discriminator, batch)


def test_samples_in_a_row_are_one_input():
    assert pack(REAL, 2).tolist() == [[1, 2, 3, 4], [0, 1, -1, 0]]
    images = torch.arange(2 * 3 * 2 * 2).view(2, 3, 2, 2)
    assert torch.equal(pack(images, 2), torch.cat([images[:1], images[1:]], dim=1))
    assert pack(images, 1) is images


@pytest.mark.parametrize("concatenated", [False, True])
def test_packs_are_scored(concatenated):
    terms = play(concatenated=concatenated)
    real, fake = 0.25 * np.array([30, 2]), 0.25 * np.array([0.5, 10])
    np.testing.assert_allclose(terms["real_logits"].detach(), real)
    np.testing.assert_allclose(terms["discriminator_real"].detach(), np.log1p(np.exp(-real)), rtol=1e-5)
    np.testing.assert_allclose(terms["discriminator_fake"].detach(), np.log1p(np.exp(fake)), rtol=1e-5)
    np.testing.assert_allclose(terms["generator"].detach(), np.log1p(np.exp(-fake)), rtol=1e-5)


def test_penalties_are_those_of_packs():
    """One number of a pack for the gradient penalty, that of its first sample; for dragan those of each sample."""
    uniform = torch.tensor([[0.5, 1.0, 0.0], [1.0, 0.5, 1.0], [0.0, 1.0, 1.0], [0.25, 0.0, 1.0]])
    penalties = {"r1": R1(1.0, 1), "gp": GradientPenalty(1.0, 1), "dragan": DRAGAN(1.0, 1, 0.5, (2,), 2.0)}
    terms = play(due=("r1", "gp", "dragan"), uniform=uniform, regularizers=penalties)
    assert terms["r1"].tolist() == [0.125 * 30, 0.125 * 2]
    mixed = np.array([[0.75, 1, 1.5, 2.25], [2, 2, 1, -1]])
    around = np.array([[1.5, 2, 3.5, 5], [0, 1, -1, 0.25]])
    for name, x in (("gp", mixed), ("dragan", around)):
        np.testing.assert_allclose(terms[name].detach(), (0.5 * np.linalg.norm(x, axis=1) - 1) ** 2, rtol=1e-5)


def test_each_sample_is_augmented_by_itself():
    class Scaled(Augmentation):
        uniforms = 1

        def __call__(self, x: Tensor, drawn: Tensor, strength: Tensor) -> Tensor:
            return drawn * x

    seen: list[Tensor] = []

    def discriminator(x: Tensor) -> Tensor:
        seen.append(x)
        return x.sum(1)

    drawn = torch.arange(4.0)[:, None]
    batch = UpdateBatch(REAL, FAKE, real_drawn=drawn, fake_drawn=drawn, strength=torch.ones(4))
    game = Game(NonSaturating(), packing=2, augmentation=Scaled())
    discriminator_terms(game, lambda z: z, discriminator, batch)  # type: ignore[arg-type]
    assert [x.tolist() for x in seen] == [pack(drawn * REAL, 2).tolist(), pack(drawn * FAKE, 2).tolist()]


def test_the_discriminator_is_built_for_packs():
    words = ["dataset=ring", "trainer.packing=3", "trainer.batch_size=9"]
    experiment = check(composition.plain(composition.compose(words, "train")))
    state = build_state(experiment, RING, torch.device("cpu"))
    assert state.discriminator.module(torch.zeros(4, 6)).shape == (4,)
    assert state.generator.module(torch.zeros(4, experiment.config.architecture.latent.dim)).shape == (4, 2)


RING = DataFacts(shape=(2,), value_range=None, num_classes=0)
SHORT = (
    *("trainer.steps=6", "trainer.log_every=3", "trainer.sample_every=2", "trainer.checkpoint_every=3", "metric=[]"),
    *("architecture.latent.dim=4", "device=cpu"),
)
SMALL = ("architecture.generator.channels=4", "architecture.discriminator.channels=4")
TRAININGS = {
    "points": ("dataset=ring", "trainer.packing=3", "trainer.batch_size=9", "doctor.samples=17"),  # in the doctor, 15
    "one number": ("dataset=gaussian_1d", "trainer.packing=2", "trainer.batch_size=8"),
    "mlp": ("architecture=mlp_layernorm", "trainer.packing=2", "trainer.batch_size=8", "loss=relativistic"),
    "dcgan": (
        *("architecture=dcgan", *SMALL, "architecture.discriminator.minibatch_stddev=2", "trainer.packing=2"),
        *("trainer.batch_size=8", "augmentation=diffaugment", "regularizer=[gradient_penalty,dragan,lecam]"),
    ),
    "resnet": ("architecture=resnet", *SMALL, "trainer.packing=2", "trainer.batch_size=8", "loss=hinge"),  # spectral
}


@pytest.mark.parametrize("kind", TRAININGS)
def test_any_discriminator_trains_on_packs_and_goes_on(kind, tmp_path, one_thread):
    words = [*TRAININGS[kind], *SHORT]
    if not words[0].startswith("dataset"):
        root = write_images(tmp_path / "images", side=16)
        words += ["dataset=images", "dataset.size=16", "dataset.channels=1", f"dataset.root={root}"]
    run, extended = tmp_path / "run", tmp_path / "extended"
    assert train(run, *words) == 0
    assert status(run)["message"] is None
    assert any("health/dead_units_discriminator" in row for row in rows(run))  # the doctor did not fail
    assert train(extended, *[word.replace("trainer.steps=6", "trainer.steps=3") for word in words]) == 0
    assert train(extended, *words) == 0
    for name, tensor in newest_state(run).items():
        torch.testing.assert_close(newest_state(extended)[name], tensor, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ("dataset=ring", "trainer.packing=3", "trainer.batch_size=8"),
            "trainer.packing=3: found trainer.batch_size=8; allowed: a multiple of 3",
        ),
        (("trainer.packing=0",), "trainer.packing: found 0 (int)"),
        (("trainer.packing=17",), "trainer.packing: found 17 (int)"),
    ],
)
def test_what_packs_cannot_be_is_refused(words, said, refused):
    assert said in refused(*words)


def test_what_images_cannot_be_packed_is_refused(tmp_path, refused):
    images = ["dataset=images", f"dataset.root={write_images(tmp_path / 'images', side=16)}", "dataset.size=16"]
    said = refused(*images, "architecture=mlp_layernorm", "architecture.conditional=true", "trainer.packing=2")
    assert "trainer.packing=2: the samples of a pack have no label in common; use architecture.conditional" in said
    grouped = ("architecture=dcgan", "architecture.discriminator.minibatch_stddev=3", "trainer.packing=2")
    said = refused(*images, *grouped, "trainer.batch_size=16")
    assert (
        "minibatch_stddev=3: found trainer.batch_size=16; allowed: a multiple of 6, with 2 samples in an input" in said
    )


def test_packs_make_the_discriminator_of_a_fork_another_one(tmp_path, refused):
    words = ("dataset=ring", "trainer.batch_size=8", *SHORT)
    assert train(tmp_path / "run", *words) == 0
    assert "its weights do not fit" in refused(*words, f"fork_from={tmp_path / 'run'}", "trainer.packing=2")
