"""The training of classifiers."""

from math import cos, sin

import torch

from gan_runner.evaluation.classifier import augmented
from gan_runner.randomness import rng


def test_augmentation_moves_resizes_and_turns_within_its_bounds():
    dot = torch.zeros(300, 1, 41, 41)
    dot[:, :, 19:22, 19:22] = 1  # around the centre, which turning and resizing leave where it is
    moved = augmented(dot, rng(0))
    place = torch.arange(41.0)
    mass = moved.sum((1, 2, 3))
    right = (moved.sum((1, 2)) * place).sum(1) / mass - 20
    down = (moved.sum((1, 3)) * place).sum(1) / mass - 20
    furthest = 4.1 * (cos(0.2) + sin(0.2)) / 0.85  # a tenth of 41 pixels both ways, turned, in the smaller image
    for shift in (right, down):
        assert -furthest <= float(shift.min()) < -3.5
        assert 3.5 < float(shift.max()) <= furthest
    area = mass / 9
    assert 0.6 < float(area.min()) < 0.85  # (1 / 1.15)² = 0.76 and (1 / 0.85)² = 1.38, and what sampling adds
    assert 1.2 < float(area.max()) < 1.6
    assert torch.equal(moved, augmented(dot, rng(0)))
    assert not torch.equal(moved, augmented(dot, rng(1)))


def test_augmentation_repeats_the_border_of_an_image():
    assert torch.allclose(augmented(torch.full((20, 3, 8, 8), 0.7), rng(0)), torch.tensor(0.7))
