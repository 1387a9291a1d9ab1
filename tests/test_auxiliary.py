"""AC-GAN in the step: the class losses of both networks by hand, logged, resumed, and the same however it is run."""

from typing import Any

import numpy as np
import pytest
import torch

from gan_runner.game import Game, UpdateBatch, discriminator_terms, fake_terms, generator_terms, real_terms
from gan_runner.losses import NonSaturating
from gan_runner.networks import MLPDiscriminator, MLPGenerator
from gan_runner.regularizers import R1
from gan_runner.step import reduce
from tests.networks.test_mlp import PLAIN
from tests.training import assert_same_end, rows, train, write_images

WEIGHT = 0.3
GAME = Game(NonSaturating(), auxiliary_weight=WEIGHT)


@pytest.fixture
def played() -> tuple[Any, Any, UpdateBatch]:
    """Both networks, and a batch."""
    torch.manual_seed(0)
    generator = MLPGenerator(2, (3,), 4, None, hidden=[5], **PLAIN)
    discriminator = MLPDiscriminator((3,), 4, hidden=[6], **PLAIN, conditioning="auxiliary")
    labels = torch.tensor([[0, 3, 1], [2, 2, 1]])
    return generator, discriminator, UpdateBatch(torch.randn(3, 3), torch.randn(3, 2), *labels)


def minus_log_probability(class_logits: np.ndarray, labels: torch.Tensor) -> np.ndarray:
    probabilities = np.exp(class_logits) / np.exp(class_logits).sum(axis=1, keepdims=True)
    return -np.log(probabilities[np.arange(len(labels)), labels.numpy()])


def outputs_of(discriminator: Any, x: torch.Tensor) -> np.ndarray:
    """Of its two linear layers, without the network's own code: (B, 5)."""
    first, second = (discriminator.layers[i] for i in (0, 2))
    weights = [tensor.detach().numpy() for tensor in (first.weight, first.bias, second.weight, second.bias)]
    return np.maximum(x.detach().numpy() @ weights[0].T + weights[1], 0) @ weights[2].T + weights[3]


@pytest.mark.parametrize("concatenated", [False, True])
def test_the_losses_by_hand(played, concatenated):
    generator, discriminator, batch = played
    game = Game(NonSaturating(), auxiliary_weight=WEIGHT, concatenated=concatenated)
    real, fake = outputs_of(discriminator, batch.real), outputs_of(discriminator, generator(batch.z, batch.fake_labels))
    of_real, of_fake = (
        minus_log_probability(outputs[:, 1:], labels)
        for outputs, labels in ((real, batch.real_labels), (fake, batch.fake_labels))
    )
    loss, means = reduce(game, discriminator_terms(game, generator, discriminator, batch))
    adversarial = np.log1p(np.exp(-real[:, 0])).mean() + np.log1p(np.exp(fake[:, 0])).mean()
    assert means["loss/auxiliary_real"].item() == pytest.approx(WEIGHT * of_real.mean(), rel=1e-5)
    assert means["loss/auxiliary_fake"].item() == pytest.approx(WEIGHT * of_fake.mean(), rel=1e-5)
    assert loss.item() == pytest.approx(adversarial + WEIGHT * (of_real.mean() + of_fake.mean()), rel=1e-5)

    loss, means = reduce(game, generator_terms(game, generator, discriminator, batch))
    assert means["loss/auxiliary_generator"].item() == pytest.approx(WEIGHT * of_fake.mean(), rel=1e-5)
    assert loss.item() == pytest.approx(np.log1p(np.exp(-fake[:, 0])).mean() + WEIGHT * of_fake.mean(), rel=1e-5)


def test_both_halves_together_are_the_whole(played):
    whole, _ = reduce(GAME, discriminator_terms(GAME, *played))
    halves = [reduce(GAME, terms_of(GAME, *played))[0] for terms_of in (real_terms, fake_terms)]
    assert sum(half.item() for half in halves) == pytest.approx(whole.item(), rel=1e-6)


def test_a_penalty_is_of_the_logit_alone(played):
    generator, discriminator, batch = played
    game = Game(NonSaturating(), {"r1": R1(1.0, 1)}, auxiliary_weight=WEIGHT)
    terms = discriminator_terms(game, generator, discriminator, batch._replace(uniform=torch.rand(3, 0), due=("r1",)))
    first, second = (discriminator.layers[i].weight.detach().numpy() for i in (0, 2))
    open_units = batch.real.numpy() @ first.T + discriminator.layers[0].bias.detach().numpy() > 0
    gradient = (second[0] * open_units) @ first
    np.testing.assert_allclose(terms["r1"].detach(), (gradient**2).sum(axis=1) / 2, rtol=1e-5)


AUXILIARY = (
    *("dataset=images", "dataset.size=8", "dataset.channels=1", "architecture=mlp_tanh", "device=cpu"),
    *("architecture.conditional=true", "architecture.discriminator.conditioning=auxiliary", "regularizer=r1"),
    *("architecture.generator.hidden=[16]", "architecture.generator.normalization=batch", "doctor=none", "metric=[]"),
    *("architecture.generator.conditioning=batch_norm", "architecture.discriminator.hidden=[16]"),
    *("trainer.batch_size=8", "trainer.log_every=5", "trainer.checkpoint_every=10", "trainer.sample_every=10"),
    *("trainer.sample_rows=3", "trainer.sample_columns=2"),
)


def test_its_losses_are_logged_and_it_resumes_exactly(tmp_path):
    root = f"dataset.root={write_images(tmp_path / 'images')}"
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert train(whole, *AUXILIARY, root, "trainer.steps=20") == 0
    assert train(parts, *AUXILIARY, root, "trainer.steps=10") == 0
    assert train(parts, *AUXILIARY, root, "trainer.steps=20") == 0
    assert_same_end(whole, parts)
    row = rows(whole)[-1]
    of_discriminator = ("discriminator_real", "discriminator_fake", "auxiliary_real", "auxiliary_fake", "r1")
    assert row["loss/discriminator"] == pytest.approx(sum(row[f"loss/{name}"] for name in of_discriminator), rel=1e-5)
    assert row["loss/auxiliary_generator"] > 0


def test_a_class_is_learned(tmp_path):
    """Squares of three brightnesses: what the generator makes of a label has the brightness of its class."""
    from PIL import Image

    from gan_runner.runs.generator import load_generator

    for i in range(60):
        path = tmp_path / "images" / f"class_{i % 3}" / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (4, 4), 20 + 100 * (i % 3) + i % 7).save(path)
    run, chance = tmp_path / "run", tmp_path / "chance"
    words = [*AUXILIARY, f"dataset.root={tmp_path / 'images'}", "dataset.size=4", "regularizer=[]"]
    words += ["trainer.batch_size=32", "trainer.ema_decay=null"]
    words += ["optimizer.generator.lr=0.01", "optimizer.discriminator.lr=0.01"]
    assert train(run, *words, "trainer.steps=200") == 0
    assert train(chance, *words, "trainer.steps=1") == 0
    labels = torch.arange(3).repeat(20)
    accuracy = []
    for directory in (chance, run):
        generator = load_generator(directory, [], torch.device("cpu"), "newest")
        brightness = generator(next(generator.latents(0))[:60], labels).mean(dim=(1, 2, 3)) * 255
        accuracy.append(((brightness - 23) / 100).round().clamp(0, 2).eq(labels).float().mean().item())
    assert accuracy[0] < 0.6
    assert accuracy[1] > 0.9


def test_conditioning_of_unconditional_networks_is_refused(refused):
    line = refused("dataset=ring", "architecture.discriminator.conditioning=projection")
    assert "architecture.discriminator.conditioning=projection: the networks are unconditional" in line


def test_an_unknown_way_is_refused_by_name(refused):
    line = refused(
        "dataset=ring", "architecture.conditional=true", "architecture.discriminator.conditioning=batch_norm"
    )
    assert "architecture.discriminator.conditioning: found 'batch_norm'" in line
    assert "'concatenation', 'projection' or 'auxiliary'" in line
