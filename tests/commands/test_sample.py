import json
import pickle
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import scipy.stats
import torch
import yaml
from PIL import Image, ImageSequence

from gan_runner.commands.sample import write_samples
from gan_runner.commands.sheets import latent_path, spherical
from gan_runner.config import composition
from gan_runner.config.schema import Latent
from gan_runner.datasets import DataFacts
from gan_runner.errors import UserError
from gan_runner.networks import MLPGenerator
from gan_runner.randomness import rng
from gan_runner.runs.checkpoint import load_newest
from gan_runner.runs.generator import TrainedGenerator, load_generator
from tests.commands.conftest import CLASSES, ENVIRONMENT, LATENT, SIDE, command


def sample(*overrides: object) -> Path:
    """What `gan-sample` does with the overrides, in this process."""
    return write_samples(composition.plain(composition.compose(["device=cpu", *map(str, overrides)], "sample")))


def samples(*overrides: object) -> np.ndarray:
    return np.load(sample(*overrides) / "samples.npy")


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# What it writes


def test_images_without_their_data(conditional):
    out = sample(f"run={conditional}", "count=10", "columns=4", "images=true")
    assert out == conditional / "sampled"
    assert {p.name for p in out.iterdir()} == {"samples.npy", "grid.png", "images"}
    values = np.load(out / "samples.npy")
    assert values.dtype == np.float32
    assert values.shape == (10, 1, SIDE, SIDE)
    assert values.min() >= 0  # the networks see [-1, 1]; the data's own unit is [0, 1]
    assert values.max() <= 1
    assert values.min() < 0.45 < 0.55 < values.max()
    with Image.open(out / "grid.png") as grid:
        # To the left of the samples stand the names of the classes; a row is as high as these.
        width = 4 * SIDE + 3 * 2
        assert grid.size[0] > width + 20
        assert grid.size[1] == 3 * 12 + 2 * 2
        sheet = np.asarray(grid)[:, grid.size[0] - width :, 0]
        assert np.array_equal(sheet[14 + 4 : 14 + 4 + SIDE, :SIDE], np.round(values[4, 0] * 255))
    singles = sorted((out / "images").iterdir())
    assert [p.name for p in singles] == [f"{i:06}.png" for i in range(10)]
    assert np.array_equal(np.asarray(Image.open(singles[7]))[..., 0], np.round(values[7, 0] * 255))


def test_vectors_are_the_values_themselves(pattern, tmp_path):
    out = sample(f"run={pattern}", "count=5", f"out={tmp_path / 'a' / 'b'}")
    assert out == tmp_path / "a" / "b"
    assert np.load(out / "samples.npy").shape == (5, 6)
    with Image.open(out / "grid.png") as grid:
        assert grid.size == (8 * 6 * 12 + 7 * 2, 12)


def test_the_average_of_the_generator_is_what_is_sampled(conditional):
    _, state, _ = load_newest(conditional / "checkpoints")
    shape, value_range = (1, SIDE, SIDE), (-1.0, 1.0)
    network = MLPGenerator(
        LATENT,
        shape,
        CLASSES,
        value_range,
        hidden=[16],
        activation="leaky_relu",
        negative_slope=0.02,
        normalization="layer",
        normalize="after_activation",
        dropout=0.5,
        output=["auto"],
    ).eval()
    latent = yaml.safe_load((conditional / "config.yaml").read_text())["architecture"]["latent"]
    assert latent == {"dim": LATENT, "distribution": "normal", "loc": 0.0, "scale": 1.0}
    z = torch.randn(64, LATENT, generator=rng(0, "sample"))
    made = {}
    for name, weights in {"average": state["ema"], "last": state["generator"]}.items():
        own = {key.removeprefix("module."): value for key, value in weights.items() if key != "n_averaged"}
        network.load_state_dict(own)
        made[name] = ((network(z, torch.full((64,), 2)) + 1) / 2).detach().numpy()
    found = samples(f"run={conditional}", "label=2")
    assert np.allclose(found, made["average"], atol=1e-6)
    assert not np.allclose(found, made["last"], atol=1e-3)


def test_a_seed_says_what_comes_out_whatever_the_count(conditional, tmp_path):
    run = f"run={conditional}"
    many = samples(run, "count=130", f"out={tmp_path / 'many'}")
    assert np.array_equal(samples(run, "count=130", f"out={tmp_path / 'again'}"), many)
    assert np.array_equal(samples(run, "count=3", f"out={tmp_path / 'few'}"), many[:3])
    assert not np.allclose(many[64:128], many[:64])
    assert not np.allclose(samples(run, "count=130", "seed=1"), many)


def test_latents_do_not_depend_on_the_size_of_the_chunks(conditional):
    latents = load_generator(conditional, [], torch.device("cpu"), "newest").latents(7)
    chunked = torch.cat([next(latents), next(latents), next(latents)])
    assert torch.equal(chunked, torch.randn(192, LATENT, generator=rng(7, "sample")))


def test_a_label_is_one_class_and_none_is_a_class_a_row(conditional):
    run = f"run={conditional}"
    chosen = [samples(run, "count=14", f"label={label}") for label in range(CLASSES)]
    assert not np.allclose(chosen[0], chosen[1])
    rows = samples(run, "count=14", "columns=4")
    expected = [chosen[0][0:4], chosen[1][4:8], chosen[2][8:12], chosen[0][12:14]]
    assert np.array_equal(rows, np.concatenate(expected))


def test_interpolation_starts_and_ends_at_the_samples_of_the_seeds(conditional, tmp_path):
    run = f"run={conditional}"
    own = [samples(run, "count=1", "label=1", f"seed={seed}", f"out={tmp_path / 'own'}")[0, 0] for seed in (4, 0, 9)]
    out = sample(run, "label=1", "interpolate=[4,0,9]", "frames=3")
    sheet = np.asarray(Image.open(out / "interpolation.png"))[..., 0].astype(float) / 255
    assert sheet.shape == (2 * SIDE + 2, 5 * SIDE + 4 * 2)
    first, last = slice(0, SIDE), slice(-SIDE, None)
    for rows, start, end in ((first, own[0], own[1]), (last, own[1], own[2])):
        assert np.abs(sheet[rows, first] - start).max() <= 0.51 / 255
        assert np.abs(sheet[rows, last] - end).max() <= 0.51 / 255
    with Image.open(out / "interpolation.gif") as gif:
        frames = [np.asarray(frame.convert("RGB"))[..., 0] / 255 for frame in ImageSequence.Iterator(gif)]
        assert gif.info["loop"] == 0
    assert len(frames) == 2 * 4 + 1
    assert all(np.abs(frames[4 * i] - own[i]).max() <= 0.51 / 255 for i in range(3))


def test_normal_latents_go_along_the_sphere_and_others_straight():
    corners = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    half = 0.5**0.5
    way = [[1, 0], [half, half], [0, 1], [0, 0], [0, -1]]  # between opposite points no arc is the shortest
    normal = Latent(dim=2, distribution="normal", loc=0.0, scale=1.0)
    assert torch.allclose(latent_path(corners, 2, normal), torch.tensor(way), atol=1e-6)
    moved = normal.model_copy(update={"loc": 3.0})
    assert torch.allclose(latent_path(corners + 3, 2, moved), torch.tensor(way) + 3, atol=1e-6)
    uniform = normal.model_copy(update={"distribution": "uniform"})
    assert latent_path(corners[:2], 4, uniform).tolist() == [[1, 0], [0.75, 0.25], [0.5, 0.5], [0.25, 0.75], [0, 1]]


def test_an_arc_is_travelled_at_one_speed():
    start, end = torch.tensor([2.0, 0.0]), torch.tensor([-1.0, 3**0.5])  # 120 degrees apart
    third = spherical(start.double(), end.double(), torch.tensor([[0.25], [0.5]]).double())
    assert torch.allclose(third, torch.tensor([[3**0.5, 1.0], [1.0, 3**0.5]]).double(), atol=1e-6)


# Truncated latents


def latents(seed: int, latent: Latent, count: int, truncation: float | None) -> torch.Tensor:
    """The first latents of a seed, as a generator draws them that has no network."""
    facts = DataFacts(shape=(2,), value_range=None, num_classes=0)
    of = TrainedGenerator(torch.nn.Identity(), latent, facts, 0, torch.device("cpu"), 0, truncation)
    return torch.cat([z for _, z in zip(range(-(-count // 64)), of.latents(seed), strict=False)])[:count]


@pytest.mark.parametrize(("loc", "scale"), [(0.0, 1.0), (3.0, 0.5), (-1.0, -2.0)])
@pytest.mark.parametrize("threshold", [0.1, 0.7, 2.0])
def test_truncated_latents_have_the_normal_distribution_without_its_tails(threshold, loc, scale):
    latent = Latent(dim=16, distribution="normal", loc=loc, scale=scale)
    plain, found = (latents(3, latent, 640, truncation) for truncation in (None, threshold))
    n, cut = ((z.double() - loc) / scale for z in (plain, found))
    assert cut.abs().max() <= threshold * (1 + 1e-6)
    inside = n.abs() <= threshold * (1 - 1e-6)
    assert torch.equal(found[inside], plain[inside])  # what was inside stays
    again = cut[n.abs() > threshold]
    for drawn in (cut.flatten(), again):
        assert scipy.stats.kstest(drawn.numpy(), scipy.stats.truncnorm(-threshold, threshold).cdf).pvalue > 0.01
    assert len(again.unique()) > 0.95 * len(again)


def test_a_threshold_that_nothing_crosses_changes_nothing_and_a_tiny_one_leaves_the_mean():
    latent = Latent(dim=16, distribution="normal", loc=2.0, scale=1.0)
    assert torch.equal(latents(0, latent, 100, 40.0), latents(0, latent, 100, None))
    assert torch.allclose(latents(0, latent, 100, 1e-9), torch.full((100, 16), 2.0))


def test_truncated_samples_are_those_of_truncated_latents(conditional, tmp_path):
    run, generator = f"run={conditional}", load_generator(conditional, [], torch.device("cpu"), "newest")
    many = samples(run, "count=100", "truncation=0.5", "label=1", f"out={tmp_path / 'many'}")
    z = latents(0, generator.latent, 64, 0.5)
    assert np.array_equal(many[:64], generator(z, torch.ones(64, dtype=torch.int64)).numpy())
    assert np.array_equal(samples(run, "count=3", "truncation=0.5", "label=1"), many[:3])
    assert not np.allclose(samples(run, "count=3", "label=1"), many[:3])
    assert many.std(axis=0).mean() < 0.7 * samples(run, "count=100", "label=1").std(axis=0).mean()
    sheet = Image.open(sample(run, "truncation=0.5", "sheet=[0]", "interpolate=[0,1]", "label=null") / "sheet.png")
    assert np.abs(cells(sheet, 1, CLASSES)[0, 1] - many[0, 0]).max() <= 0.51 / 255


@pytest.mark.parametrize("distribution", ["uniform", "constant"])
def test_only_normal_latents_can_be_truncated(pattern, distribution):
    config = yaml.safe_load((pattern / "config.yaml").read_text())
    config["architecture"]["latent"]["distribution"] = distribution
    (pattern / "config.yaml").write_text(yaml.safe_dump(config))
    message = f"truncation=0.7: the latents of {pattern} are {distribution}; only normal ones can be truncated"
    with pytest.raises(UserError, match=re.escape(message)):
        sample(f"run={pattern}", "truncation=0.7")
    assert not (pattern / "sampled").exists()


# All classes, and from class to class


def cells(sheet: Image.Image, rows: int, columns: int) -> np.ndarray:
    """The samples (rows, columns, SIDE, SIDE) in the lower right of a grid with 12 pixels for each, and 2 between."""
    pixels = np.asarray(sheet)[..., 0] / 255
    found = np.empty((rows, columns, SIDE, SIDE))
    height, width = pixels.shape
    for row, column in np.ndindex(rows, columns):
        top = height - (rows - row) * 14 + 2 + (12 - SIDE) // 2
        left = width - (columns - column) * 14 + 2 + (12 - SIDE) // 2
        found[row, column] = pixels[top : top + SIDE, left : left + SIDE]
    return found


def test_a_sheet_has_the_first_sample_of_each_seed_as_every_class(conditional, tmp_path):
    out = sample(f"run={conditional}", "count=2", "sheet=[4,0,4,11]")
    assert {p.name for p in out.iterdir()} == {"samples.npy", "grid.png", "sheet.png"}
    found = cells(Image.open(out / "sheet.png"), 4, CLASSES)
    for row, seed in enumerate((4, 0, 4, 11)):
        for label in range(CLASSES):
            words = (f"label={label}", f"seed={seed}", "count=1", f"out={tmp_path / 'own'}")
            assert np.abs(found[row, label] - samples(f"run={conditional}", *words)[0, 0]).max() <= 0.51 / 255


def test_a_way_from_class_to_class_gives_weights_to_both(conditional, tmp_path):
    out = sample(f"run={conditional}", "seed=5", "interpolate_labels=[class_2,0]", "frames=3")
    assert {p.name for p in out.iterdir()} == {
        *("samples.npy", "grid.png", "label_interpolation.png", "label_interpolation.gif"),
    }
    generator = load_generator(conditional, [], torch.device("cpu"), "newest")
    z, found = next(generator.latents(5))[:8], cells_of_way(out, columns=5)
    one_hot = torch.eye(CLASSES)
    for column, share in enumerate((0, 0.25, 0.5, 0.75, 1)):
        inputs = torch.cat([z, ((1 - share) * one_hot[2] + share * one_hot[0]).expand(8, -1)], dim=1)
        with torch.no_grad():
            expected = (generator.network.layers(inputs) + 1) / 2  # type: ignore[operator]
        assert np.abs(found[:, column] - expected.view(8, SIDE, SIDE).numpy()).max() <= 0.51 / 255
    for column, label in ((0, 2), (4, 0)):
        own = samples(f"run={conditional}", "seed=5", "count=8", f"label={label}", f"out={tmp_path / 'own'}")
        assert np.abs(found[:, column] - own[:, 0]).max() <= 0.52 / 255
    with Image.open(out / "label_interpolation.gif") as gif:
        frames = [np.asarray(frame.convert("RGB"))[..., 0] / 255 for frame in ImageSequence.Iterator(gif)]
    assert len(frames) == 5
    assert frames[0].shape == (SIDE, 8 * (SIDE + 2) - 2)
    assert np.abs(frames[2][:, -SIDE:] - found[7, 2]).max() <= 1e-6


def cells_of_way(out: Path, columns: int) -> np.ndarray:
    """The samples of label_interpolation.png, whose rows have no names."""
    pixels = np.asarray(Image.open(out / "label_interpolation.png"))[..., 0] / 255
    tops = [len(pixels) - (8 - row) * (SIDE + 2) + 2 for row in range(8)]
    lefts = [column * 14 + (12 - SIDE) // 2 for column in range(columns)]
    return np.array([[pixels[t : t + SIDE, left : left + SIDE] for left in lefts] for t in tops])


def test_a_way_through_several_classes_stops_at_each(conditional):
    out = sample(f"run={conditional}", "interpolate_labels=[0,2,1,0]", "frames=0")
    found = cells_of_way(out, columns=4)
    assert np.array_equal(found[:, 0], found[:, 3])
    for column, label in enumerate((0, 2, 1)):
        expected = samples(f"run={conditional}", "count=8", f"label={label}")[:, 0]
        assert np.abs(found[:, column] - expected).max() <= 0.52 / 255


OWN = """
import torch
from gan_runner.networks import MLPGenerator

class Numbers(MLPGenerator):
    def forward(self, z, labels=None):
        {line}
        return super().forward(z, labels)
"""


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("labels = torch.eye(3)[labels]", "Numbers takes class numbers (B,) alone, and no weights over the classes"),
        ("labels = (labels if labels.ndim == 1 else labels[:, 0].long())", "the weight 1 is not that class"),
    ],
)
def test_a_generator_of_ones_own_that_takes_numbers_alone(conditional, tmp_path, monkeypatch, line, reason):
    (tmp_path / f"own_{len(line)}.py").write_text(OWN.format(line=line))
    monkeypatch.syspath_prepend(tmp_path)
    config = yaml.safe_load((conditional / "config.yaml").read_text())
    config["architecture"]["generator"]["_target_"] = f"own_{len(line)}.Numbers"
    (conditional / "config.yaml").write_text(yaml.safe_dump(config))
    words = (f"run={conditional}", f"trust=[own_{len(line)}]")
    with pytest.raises(UserError, match=rf"^interpolate_labels: .*{re.escape(reason)}"):
        sample(*words, "interpolate_labels=[0,1]")
    assert not (conditional / "sampled").exists()
    assert (sample(*words, "sheet=[0]") / "sheet.png").is_file()


# The command


def test_the_command_says_where_it_wrote(pattern, tmp_path):
    done = command("sample", f"run={pattern}", "count=2", "out=made", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1] == "made"
    assert {p.name for p in tmp_path.iterdir()} == {"pattern", "made"}
    assert {p.name for p in (tmp_path / "made").iterdir()} == {"samples.npy", "grid.png"}


def test_a_sweep_over_seeds(pattern, tmp_path):
    done = command("sample", "-m", f"run={pattern}", "count=2", "seed=0,1", "out='sheets/${seed}'", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    first, second = (np.load(tmp_path / "sheets" / seed / "samples.npy") for seed in "01")
    assert not np.allclose(first, second)


def test_help_needs_no_torch(tmp_path):
    code = "import sys; sys.modules['torch'] = None; from gan_runner.sample import main; main()"
    line = [sys.executable, "-c", code, "--help"]
    done = subprocess.run(line, cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "interpolate=[0,1,2]" in done.stdout


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("cout=3", "cout: no such key; did you mean 'count'?"),
        ("+cout=3", "cout: no such key; did you mean 'count'?"),
        ("+device.kinds=cpu", "device.kinds: no such key; did you mean 'kind'?"),
        ("count=0", "count: found 0"),
        ("frames=1001", "frames: found 1001"),
        ("count=many", "count: found 'many'"),
        (
            "count=1e18",
            "count=1000000000000000000: samples.npy would take 22,351,741,790.8 GiB, and ",
        ),  # 6 float32 each
        ("count=1e30", "count=1000000000000000019884624838656: samples.npy would take "),
        ("seed=-1", "seed: found -1"),
        ("columns=1.5", "columns: found 1.5"),
        ("interpolate=[3]", "interpolate: found [3]"),
        ("label=-1", "label=-1: the generator of RUN is unconditional"),
        ("label=[1]", "label=[1]: the generator of RUN is unconditional"),
        ("label=true", "label=true: the generator of RUN is unconditional"),
        ("label=''", "label: found ''"),
        ("label=0", "label=0: the generator of RUN is unconditional"),
        ("interpolate_labels=[0,1]", "interpolate_labels=0: the generator of RUN is unconditional"),
        ("interpolate_labels=[0]", "interpolate_labels: found ['0']"),
        ("interpolate_labels=0", "interpolate_labels: found '0'"),
        ("sheet=[0,1]", "sheet=[0, 1]: the generator of RUN is unconditional"),
        ("sheet=[]", "sheet: found []"),
        ("sheet=[-1]", "sheet.0: found -1"),
        ("truncation=0", "truncation: found 0"),
        ("truncation=-0.5", "truncation: found -0.5"),
        ("truncation=nan", "truncation: found nan"),
        ("truncation=inf", "truncation: found inf"),
        ("device=ddp", "device=ddp: this command is one process"),
        ("device=data_parallel", "device=data_parallel: this command is one process"),
        ("run=nowhere", "run=nowhere: is no run directory"),
    ],
)
def test_what_cannot_be_asked_for(pattern, override, message):
    before = contents(pattern)
    with pytest.raises(UserError, match=re.escape(message.replace("RUN", str(pattern)))):
        sample(f"run={pattern}", override)
    assert contents(pattern) == before
    assert not (pattern / "sampled").exists()


@pytest.mark.parametrize("label", ["3", "-1", "class_3", "00", "Class_1"])
def test_a_label_that_is_no_class(conditional, label):
    nearest = "(did you mean 'class_[012]'[?] )?" if "lass" in label else ""
    names = r"their names: 'class_0', 'class_1', 'class_2'"
    with pytest.raises(UserError, match=rf"label={label}: .* has the classes 0 to 2; {nearest}\({names}\)$"):
        sample(f"run={conditional}", f"label={label}")
    assert not (conditional / "sampled").exists()


def test_other_keys_that_name_classes_are_checked_too(conditional):
    with pytest.raises(UserError, match=r"interpolate_labels=cat: .* has the classes 0 to 2; \(their names: 'class_0'"):
        sample(f"run={conditional}", "interpolate_labels=[0,cat]")
    with pytest.raises(UserError, match=re.escape("sheet=[0]: shows every class, and label=1 asks for one alone")):
        sample(f"run={conditional}", "sheet=[0]", "label=1")
    assert not (conditional / "sampled").exists()


def named(run: Path, names: list[str] | None) -> None:
    """Gives the classes of a run other names; None: none, as in a run of an earlier version."""
    manifest = json.loads((run / "manifest.json").read_text())
    del manifest["data"]["class_names"], manifest["data"]["class_order"]
    if names is not None:
        manifest["data"]["class_names"] = names
    (run / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    ("names", "typed", "number"),
    [
        (["cat", "dog", "eel"], "dog", 1),
        (["cat", "dog", "eel"], "2", 2),
        (["2", "10", "007"], "2", 0),  # a name, although it could be a number
        (["2", "10", "007"], "10", 1),
        (["2", "10", "007"], "'007'", 2),
        (["2", "10", "007"], "0", 0),
        (["cafe\u0301", "Жук", "big dog"], "'café'", 0),  # typed as one character, stored as two
        (["cafe\u0301", "Жук", "big dog"], "'Жук'", 1),
        (["cafe\u0301", "Жук", "big dog"], "'big dog'", 2),
        (["a\nb", "c", "d"], "'a\nb'", 0),
        (None, "2", 2),
    ],
)
def test_a_class_is_chosen_by_its_name_or_else_by_its_number(conditional, capsys, names, typed, number):
    run = f"run={conditional}"
    expected = samples(run, "count=3", f"label=class_{number}")
    named(conditional, names)
    capsys.readouterr()
    assert np.array_equal(samples(run, "count=3", f"label={typed}"), expected)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("label=")
    assert line.endswith(f"number {number}")


def test_a_run_of_an_earlier_version_has_the_rows_that_it_had(conditional):
    run = f"run={conditional}"
    before = samples(run, "count=12", "columns=4")
    named(conditional, None)
    assert np.array_equal(samples(run, "count=12", "columns=4"), before)
    with pytest.raises(UserError, match=r"label=cat: .* has the classes 0 to 2$"):
        sample(run, "label=cat")


@pytest.mark.parametrize("names", [["a", "b"], "abc", [1, 2, 3], ["a", "b", "c", "d"]])
def test_class_names_that_do_not_fit_are_refused(conditional, names):
    named(conditional, names)
    with pytest.raises(UserError, match=r"manifest\.json: data"):
        sample(f"run={conditional}")


def test_the_grid_of_one_class_has_no_names(conditional):
    with Image.open(sample(f"run={conditional}", "count=8", "columns=4", "label=1") / "grid.png") as grid:
        assert grid.size == (4 * SIDE + 3 * 2, 2 * SIDE + 2)


@pytest.mark.parametrize("out", ["file", "file/below"])
def test_an_out_that_is_no_folder(pattern, tmp_path, out):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match=f"out={tmp_path / out}: cannot be written"):
        sample(f"run={pattern}", f"out={tmp_path / out}")
    assert (tmp_path / "file").read_text() == "mine"


def test_an_out_that_holds_other_files_keeps_them(pattern, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    sample(f"run={pattern}", f"out={tmp_path}")
    assert (tmp_path / "mine.txt").read_text() == "mine"


# Runs that anyone may have made


class Touch:
    """Leaves a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("file", ["generator.safetensors", "config.yaml", "manifest.json"])
@pytest.mark.parametrize("protocol", [0, 2, 5])
def test_a_pickle_in_place_of_a_file_is_refused_unopened(pattern, tmp_path, file, protocol):
    sentinel = tmp_path / "ran"
    (pattern / file).write_bytes(pickle.dumps(Touch(sentinel), protocol))
    with pytest.raises(UserError, match=re.escape(str(pattern / file))):
        sample(f"run={pattern}")
    assert not sentinel.exists()
    assert not (pattern / "sampled").exists()
    pickle.loads((pattern / file).read_bytes())
    assert sentinel.exists()  # it would have


def test_a_foreign_target_is_not_imported_unless_trusted(pattern, tmp_path):
    (tmp_path / "evil.py").write_text("open('ran', 'w'); from gan_runner.networks import MLPGenerator as Generator")
    config = yaml.safe_load((pattern / "config.yaml").read_text())
    config["architecture"]["generator"]["_target_"] = "evil.Generator"
    (pattern / "config.yaml").write_text(yaml.safe_dump(config))
    done = command("sample", f"run={pattern}", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: {pattern / 'config.yaml'}: architecture.generator._target_ is evil.Generator")
    assert not (tmp_path / "ran").exists()
    assert not (pattern / "sampled").exists()
    assert command("sample", f"run={pattern}", "trust=[evil]", cwd=tmp_path).returncode == 0
    assert (tmp_path / "ran").exists()


def test_a_run_without_a_trained_generator(pattern):
    (pattern / "generator.safetensors").unlink()
    with pytest.raises(UserError, match=r"generator\.safetensors: is not there; the run has trained no generator"):
        sample(f"run={pattern}")


STEP = {"values": '{"step": 1}'}


def weights_with(run: Path, change) -> None:
    tensors = safetensors.torch.load_file(run / "generator.safetensors")
    change(tensors)
    safetensors.torch.save_file(tensors, run / "generator.safetensors", STEP)


def test_tampered_weights_are_refused_by_name(pattern):
    path = pattern / "generator.safetensors"
    intact = path.read_bytes()

    def spoil_name(tensors):
        tensors["other"] = tensors.pop(next(iter(tensors)))

    def spoil_shape(tensors):
        name = next(iter(tensors))
        tensors[name] = torch.cat([tensors[name], tensors[name]])

    def spoil_value(tensors):
        tensors[next(iter(tensors))].view(-1)[0] = torch.nan

    for change, reason in (
        (spoil_name, "does not fit the run"),
        (spoil_shape, "does not fit the run: size mismatch"),
        (spoil_value, "not finite"),
    ):
        path.write_bytes(intact)
        weights_with(pattern, change)
        with pytest.raises(UserError, match=rf"^{re.escape(str(path))}: .*({reason})"):
            sample(f"run={pattern}")
    tangled = [safetensors.torch.save({}, {"values": values}) for values in ("[]", '{"a": 1, "a/b": 2}')]
    for content in (b"", intact[:-4], b"\xff" * 64, b"{}", *tangled):
        path.write_bytes(content)
        with pytest.raises(UserError, match=rf"^{re.escape(str(path))}: is no safetensors file"):
            sample(f"run={pattern}")
    assert not (pattern / "sampled").exists()


def test_weights_whose_first_bytes_look_like_a_pickle_are_weights(pattern):
    path, before = pattern / "generator.safetensors", samples(f"run={pattern}")
    tensors = safetensors.torch.load_file(path)
    contents = (safetensors.torch.save(tensors, STEP | {"note": "x" * n}) for n in range(0, 2048, 8))
    path.write_bytes(next(content for content in contents if content[0] == 0x80 and 2 <= content[1] <= 5))
    assert np.array_equal(samples(f"run={pattern}"), before)


@pytest.mark.parametrize(
    ("manifest", "message"),
    [
        ("{}", "data.shape: is missing"),
        ("[]", "is not what a run leaves"),
        ("nonsense", "cannot be read"),
        ('{"data": []}', "data: found"),
        ('{"data": {"shape": ["6"], "value_range": null, "num_classes": 0}}', "data.shape.0: found '6'"),
    ],
)
def test_a_tampered_manifest_is_refused_by_name(pattern, manifest, message):
    (pattern / "manifest.json").write_text(manifest)
    with pytest.raises(UserError, match=rf"^{re.escape(str(pattern / 'manifest.json'))}: {message}"):
        sample(f"run={pattern}")


def test_a_manifest_of_other_data_does_not_fit_the_weights(pattern):
    text = (pattern / "manifest.json").read_text()
    for shape in ("7", "-6"):
        (pattern / "manifest.json").write_text(re.sub(r'("shape": \[\s*)6', rf"\g<1>{shape}", text))
        with pytest.raises(UserError, match=r"generator\.safetensors: does not fit the run"):
            sample(f"run={pattern}")


def test_a_tampered_configuration_is_refused_by_name(pattern):
    config = yaml.safe_load((pattern / "config.yaml").read_text())
    config["architecture"]["latent"]["dim"] = "8"
    (pattern / "config.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(
        UserError, match=rf"^{re.escape(str(pattern / 'config.yaml'))}: architecture\.latent\.dim: found"
    ):
        sample(f"run={pattern}")


# Clusters


def test_clusters_are_as_frequent_as_in_the_data(trained_clusters, tmp_path):
    """No label was seen, so none is shown; one that is asked for is the number of a cluster."""
    run, generator = f"run={trained_clusters}", load_generator(trained_clusters, [], torch.device("cpu"), "newest")
    weights = torch.tensor(generator.facts.cluster_sizes)
    assert weights.tolist() == [3, 9] or weights.tolist() == [9, 3]
    of_each = np.stack(
        [samples(run, "count=640", f"label={label}", f"out={tmp_path / str(label)}") for label in (0, 1)]
    )
    mixed = samples(run, "count=640", f"out={tmp_path / 'mixed'}")
    is_of = (mixed == of_each).all(axis=(2, 3, 4))
    assert is_of.sum(axis=0).tolist() == [1] * 640
    assert is_of.sum(axis=1) == pytest.approx(640 * weights.numpy() / 12, abs=5 * (640 * 3 / 16) ** 0.5)
    assert np.array_equal(samples(run, "count=3", "columns=3", f"out={tmp_path / 'few'}"), mixed[:3])
    with Image.open(tmp_path / "few" / "grid.png") as grid:
        assert grid.size == (3 * SIDE + 2 * 2, SIDE)  # without names
