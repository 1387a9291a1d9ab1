import warnings

import numpy as np
import pytest
import torch
from PIL import Image, ImageSequence
from torch import nn

from gan_runner.config.schema import Latent
from gan_runner.datasets import DataFacts, Gaussian1D
from gan_runner.observers.grids import Grids
from gan_runner.observers.networks import Networks
from gan_runner.pictures import (
    class_labels,
    evolution,
    grid,
    loss_chart,
    metric_chart,
    real_and_generated,
    save,
    save_animation,
    scatter,
    shade,
    theory,
)
from gan_runner.runs.logger import Logger
from gan_runner.state import NetworkState, State

GRAY, BLUE, RED, VIOLET = [128, 128, 128], [40, 80, 220], [220, 50, 40], [160, 40, 200]


def test_a_grid_is_filled_row_by_row_with_white_between():
    levels = torch.tensor([0.0, 0.2, 0.4, 0.6, 0.8])
    sheet = grid(levels.view(5, 1, 1, 1).expand(5, 1, 2, 3), columns=3)
    assert sheet.dtype == np.uint8
    assert sheet.shape == (2 + 2 + 2, 3 + 2 + 3 + 2 + 3, 3)
    expected = np.full((6, 13), 255)
    for i, level in enumerate((0, 51, 102, 153, 204)):
        top, left = (0, 4)[i // 3], (0, 5, 10)[i % 3]
        expected[top : top + 2, left : left + 3] = level
    for channel in range(3):
        assert np.array_equal(sheet[..., channel], expected)


def test_a_grid_keeps_the_channels_of_colour_and_clips():
    sheet = grid(torch.tensor([1.5, 0.5, -0.5]).view(1, 3, 1, 1), columns=1)
    assert sheet.tolist() == [[[255, 128, 0]]]


def test_a_grid_of_vectors_is_a_strip_for_each():
    sheet = grid(torch.tensor([[0.0, 1.0], [-0.1, 1.1], [0.5, 0.5]]), columns=2)
    assert sheet.shape == (12 + 2 + 12, 24 + 2 + 24, 3)
    middles = [[sheet[y, x].tolist() for x in (6, 18, 32, 44)] for y in (6, 20)]
    assert middles == [[[0] * 3, [255] * 3, BLUE, RED], [GRAY, GRAY, [255] * 3, [255] * 3]]
    assert np.array_equal(sheet[:12, :12], np.zeros((12, 12, 3)))


def test_real_samples_stand_beside_generated_ones_class_by_class():
    """Two columns a side: real pixels 0.2 (class 0) and 0.4, generated 0.6 and 0.8; class 2 has too few."""
    real, real_labels = torch.tensor([0.4, 0.2, 0.2, 0.4, 0.2]), torch.tensor([1, 0, 0, 1, 0])
    made, made_labels = torch.tensor([0.6, 0.8, 0.6, 0.8, 0.5]), torch.tensor([0, 1, 0, 1, 2])
    picture = real_and_generated(real.view(5, 1, 1, 1), real_labels, made.view(5, 1, 1, 1), made_labels, columns=2)
    assert picture.shape == (1 + 2 + 1, 4 + 16 + 4, 3)
    assert [[row[x, 0] for x in (0, 3, 20, 23)] for row in (picture[0], picture[3])] == [
        [51, 51, 153, 153],
        [102, 102, 204, 204],
    ]


def text_rows(picture: np.ndarray, sheet_width: int) -> np.ndarray:
    """Whether each row of pixels to the left of the sheet has something dark in it."""
    left = picture[:, : picture.shape[1] - sheet_width]
    return np.asarray((left < 128).any(axis=(1, 2)))


@pytest.mark.parametrize("side", [12, 16, 28, 64])
def test_names_stand_to_the_left_of_the_grid_and_change_nothing_in_it(side):
    samples = torch.rand(6, 3, side, side, generator=torch.Generator().manual_seed(0))
    plain, named = grid(samples, columns=2), grid(samples, 2, ["cat", "dog", "eel"])
    assert np.array_equal(named[:, -plain.shape[1] :], plain)
    dark = text_rows(named, plain.shape[1])
    for row in range(3):
        top = row * (side + 2)
        assert any(dark[top : top + side])
        assert not any(dark[top + side : top + side + 2])


@pytest.mark.parametrize("side", [1, 4, 8])
def test_rows_of_tiny_images_are_as_high_as_their_names(side):
    levels = torch.linspace(0, 1, 4).view(4, 1, 1, 1).expand(4, 1, side, side)
    named = grid(levels, 2, ["cat", "dog"])
    assert len(named) == 12 + 2 + 12
    right = named[:, -(2 * side + 2) :, 0]
    for row, (first, second) in enumerate(((0, 85), (170, 255))):
        top = row * 14 + (12 - side) // 2
        assert (right[top : top + side, :side] == first).all()
        assert (right[top : top + side, -side:] == second).all()
    assert sum(text_rows(named, 2 * side + 2)) >= 2 * 7  # letters of seven pixels or more


@pytest.mark.parametrize("side", [4, 12, 28, 64])
@pytest.mark.parametrize("names", [["0", "1", "2"], ["cat", "ankle boot", "a name too long for any column" * 5]])
def test_names_of_columns_stand_above_them_and_change_nothing_in_the_grid(side, names):
    samples = torch.rand(6, 3, side, side, generator=torch.Generator().manual_seed(0))
    rows = grid(samples, 3, ["seed 0", "seed 1"])
    named = grid(samples, 3, ["seed 0", "seed 1"], names)
    pitch, width = max(side, 12) + 2, 3 * max(side, 12) + 4
    if side >= 12:
        below = named[-len(rows) :]
        assert np.array_equal(below, rows)
    above = named[: len(named) - len(rows), -width:]
    dark = np.asarray((above < 128).any(axis=(0, 2)))
    for column in range(3):
        middle = column * pitch + (pitch - 2) / 2
        found = np.flatnonzero(dark[column * pitch : (column + 1) * pitch]) + column * pitch
        assert abs((found.min() + found.max()) / 2 - middle) <= 3
    assert (named[: len(named) - len(rows), :-width] == 255).all()
    assert len(above) < 250


class Label(nn.Module):
    """A generator of one pixel, a thousandth of the label."""

    def forward(self, z: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return labels.view(-1, 1, 1, 1) / 1000


def test_of_a_thousand_classes_the_first_hundred_have_a_row(tmp_path):
    facts = DataFacts(shape=(1, 1, 1), value_range=(0.0, 1.0), num_classes=1000)
    state = State(NetworkState(Label(), None), NetworkState(nn.Linear(1, 1), None))
    networks = Networks(state, facts, Latent(dim=1, distribution="normal", loc=0.0, scale=1.0), 1000, seed=0)
    logger = Logger(tmp_path, 0, lambda row: row)
    samples = Grids(1, 1, networks, Gaussian1D(0.0, 1.0), (8, 2), tmp_path, logger).sample()
    assert torch.equal(samples.flatten(), torch.arange(100).repeat_interleave(2) / 1000)


def test_rows_of_real_and_generated_samples_carry_the_names_of_their_classes():
    labels = torch.tensor([0, 2, 0, 2])
    sides = (torch.rand(4, 1, 16, 16), labels, torch.rand(4, 1, 16, 16), labels)
    plain = real_and_generated(*sides, columns=2)
    named = real_and_generated(*sides, columns=2, class_names=["cat", "dog", "eel"])
    assert np.array_equal(named[:, -plain.shape[1] :], plain)
    expected = grid(torch.zeros(4, 1, 16, 16), 2, ["cat", "eel"])
    width = named.shape[1] - plain.shape[1]
    assert np.array_equal(named[:, :width], expected[:, :width])


def test_a_name_that_the_font_cannot_write_is_its_number_and_a_long_one_is_cut():
    assert class_labels([0, 1, 2, 3, 9], ["cat", "猫", "Жук", "Übel"]) == ["cat", "class 1", "Жук", "Übel", "class 9"]
    assert grid(torch.zeros(1, 1, 16, 16), 1, ["x" * 10_000]).shape[1] < 16 + 200


def test_without_labels_samples_stand_side_by_side_in_their_order():
    picture = real_and_generated(torch.zeros(3, 1, 1, 1), None, torch.ones(2, 1, 1, 1), None, columns=1)
    assert picture.shape == (1 + 2 + 1, 1 + 16 + 1, 3)
    assert picture[0, 0].tolist() == [0] * 3
    assert picture[0, -1].tolist() == [255] * 3


def test_values_outside_do_not_look_like_values_inside():
    assert shade(np.array([[-1e-6, 0.0, 0.5, 1.0, 1 + 1e-6]])).tolist() == [[BLUE, [0] * 3, GRAY, [255] * 3, RED]]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert shade(np.array([[np.nan, -np.inf, np.inf]])).tolist() == [[VIOLET, BLUE, RED]]


def test_a_saved_picture_is_the_picture(tmp_path):
    picture = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    save(tmp_path / "new" / "picture.png", picture)
    with Image.open(tmp_path / "new" / "picture.png") as image:
        assert image.format == "PNG"
        assert np.array_equal(np.asarray(image), picture)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["picture.png"]


def test_a_saved_animation_has_the_frames_in_their_order(tmp_path):
    frames = [np.full((4, 4, 3), level, np.uint8) for level in (0, 90, 255, 30)]
    save_animation(tmp_path / "frames.gif", frames)
    with Image.open(tmp_path / "frames.gif") as gif:
        assert (gif.format, gif.info["loop"], gif.info["duration"]) == ("GIF", 0, 100)
        shown = [np.asarray(frame.convert("RGB")) for frame in ImageSequence.Iterator(gif)]
    assert np.array_equal(shown, frames)


def is_near(picture: np.ndarray, color: tuple[int, int, int]) -> np.ndarray:
    return np.abs(picture.astype(int) - color).max(axis=-1) < 40


def test_the_loss_chart_has_a_line_for_each_loss_that_was_logged():
    rows = [{"step": s, "loss/discriminator_real": 0.9, "loss/discriminator_fake": 0.5} for s in (1, 2, 3)]
    references = {"discriminator_real": 0.7, "discriminator_fake": 0.7, "generator": 0.7}
    without = loss_chart(rows, references)
    with_generator = loss_chart([{**row, "loss/generator": 0.1} for row in rows], references)
    assert without.shape == with_generator.shape == (450, 800, 3)
    assert without.dtype == np.uint8
    orange, green = (255, 127, 14), (44, 160, 44)
    assert is_near(without, orange).any()
    assert not is_near(without, green).any()
    assert is_near(with_generator, green).any()


def test_the_metric_chart_has_a_panel_for_each_figure_and_a_line_for_perfection():
    rows: list[dict[str, float]] = [{"step": 10, "metric/fid": 5.0}, {"step": 15}, {"step": 20, "metric/fid": 3.0}]
    blue, gray = (31, 119, 180), (128, 128, 128)
    one = metric_chart(rows, {"fid": (0.1, "perfect")})
    assert one.shape == (300, 400, 3)
    assert is_near(one, blue).any()
    assert is_near(one, gray).sum() > is_near(metric_chart(rows, {"fid": (None, "")}), gray).sum()
    several = metric_chart(rows, {"fid": (0.1, "perfect"), **dict.fromkeys(("never_computed", "a", "b"), (None, ""))})
    assert several.shape == (600, 1200, 3)
    assert is_near(several[:300, :400], blue).any()
    assert not is_near(several[:, 400:], blue).any()


def test_evolution_shows_the_values_from_top_to_bottom():
    picture = evolution(np.array([[0.5, 2.0], [-1.0, 0.5]]), every=10)
    reds, blues = (np.argwhere(np.all(picture == color, axis=-1)) for color in (RED, BLUE))
    assert len(reds) > 1000
    assert reds[:, 0].max() < blues[:, 0].min()  # the first time is above the second,
    assert blues[:, 1].max() < reds[:, 1].min()  # the first position left of the second


@pytest.mark.filterwarnings("error")
def test_the_theory_is_drawn_where_the_best_discriminator_is_known():
    x = torch.linspace(-3, 3, 50)
    density = torch.exp(-(x**2) / 2)
    best = torch.where(x > 0, torch.tensor(0.5), torch.nan)
    picture = theory(x, density, density * 0.5, torch.full((50,), 0.9), best)
    red = np.argwhere(is_near(picture, (214, 39, 40))[100:, :750])  # below the legend
    assert red[:, 1].min() > picture.shape[1] * 0.4


def test_a_scatter_shows_the_data_in_gray_and_what_is_generated_in_blue():
    picture = scatter(torch.tensor([[0.0, 0.0]]), torch.tensor([[1.0, 1.0], [1.0, 0.0]]))
    assert is_near(picture, (191, 191, 191)).any()
    assert is_near(picture, (31, 119, 180)).any()
