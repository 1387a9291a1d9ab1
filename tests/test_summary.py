"""What the table of both networks counts, against counts by hand."""

import torch
from torch import nn

from gan_runner.runs.summary import summarize


def test_multiply_adds_are_those_of_one_sample():
    generator = nn.Sequential(nn.Linear(3, 8, bias=False), nn.ReLU(), nn.Unflatten(1, (2, 2, 2)))
    generator.append(nn.ConvTranspose2d(2, 5, 4, stride=2, padding=1))  # (2, 2, 2) -> (5, 4, 4)
    discriminator = nn.Sequential(nn.Conv2d(5, 6, 3, stride=1), nn.Flatten(), nn.Linear(24, 1), nn.Flatten(0))
    summary = summarize(generator, discriminator, (5, 4, 4), torch.zeros(2, 3), None)
    by_hand = 3 * 8 + (2 * 2 * 2) * (5 * 4 * 4) + (6 * 2 * 2) * (5 * 3 * 3) + 24
    assert summary.multiply_adds == by_hand


def test_a_layer_of_ones_own_counts_as_if_each_weight_were_used_once():
    class Own(nn.Module):
        def __init__(self, inputs: int, outputs: int) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(inputs, outputs))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x @ self.weight

    discriminator = nn.Sequential(Own(7, 1), nn.Flatten(0))
    summary = summarize(Own(3, 7), discriminator, (7,), torch.zeros(2, 3), None)
    assert summary.multiply_adds == 3 * 7 + 7
