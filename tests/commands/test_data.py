"""What commands say of the data, and where it is written; and runs whose classes an earlier version numbered."""

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from gan_runner import pictures
from gan_runner.commands.sample import write_samples
from gan_runner.config import composition
from gan_runner.runs.manifest import Manifest
from gan_runner.sweeps.report.writing import write_run_report
from tests.training import assert_same_end, train, write_images

SMALL = (
    *("dataset=images", "dataset.size=8", "dataset.channels=1", "device=cpu", "doctor=none", "metric=[]"),
    *("architecture=mlp_conditional", "architecture.generator.hidden=[8]", "architecture.discriminator.hidden=[8]"),
    *("trainer.batch_size=8", "trainer.sample_columns=2", "trainer.steps=4", "trainer.checkpoint_every=2"),
    *("trainer.log_every=2", "trainer.sample_every=4"),
)


def write_classes(folder: Path, names: list[str], count: int = 4) -> Path:
    """So many noisy images of each class."""
    noise = np.random.default_rng(0)
    for name in names:
        (folder / name).mkdir(parents=True)
        for i in range(count):
            Image.fromarray(noise.integers(0, 256, (8, 8), np.uint8)).save(folder / name / f"{i}.png")
    return folder


def told(run: Path) -> dict:
    return json.loads((run / "manifest.json").read_text())["data"]


def test_a_run_says_what_its_data_are(typed, tmp_path):
    root = write_classes(tmp_path / "data", ["dog", "cat", "Жук"])
    (root / "cat" / "broken.png").write_bytes(b"no image")
    (root / "beside.png").write_bytes((root / "cat" / "0.png").read_bytes())
    ended = typed(*SMALL, f"dataset.root={root}", f"hydra.run.dir={tmp_path / 'run'}")
    assert ended.status == 0, ended.err
    line = "12 images of 14 files, 8×8, 1 channel; classes 0 = cat (4), 1 = dog (4), 2 = Жук (4)"
    lines = ended.err.splitlines()
    first = lines.index(f"data: {line}")
    assert lines[first + 1] == "warning: images that could not be used are left out (1): 'cat/broken.png'"
    assert lines[first + 2] == "data: images beside the class folders are left out (1): 'beside.png'"
    assert lines[first + 3].startswith("data: why images could not be used: 'cat/broken.png' (")
    assert lines[first + 4].endswith("from step 0 to 4 on cpu")

    data = told(tmp_path / "run")
    assert data["description"] == line
    assert (data["class_names"], data["class_counts"]) == (["cat", "dog", "Жук"], [4, 4, 4])
    assert (data["num_files"], data["skipped_files"]) == (14, ["cat/broken.png"])

    events = EventAccumulator(str(tmp_path / "run"), size_guidance={"tensors": 0}).Reload()
    (event,) = events.Tensors("data/text_summary")
    text = event.tensor_proto.string_val[0].decode()
    assert line in text
    assert "| 2      | Жук   | 4       |" in text

    for report in (text, write_run_report(tmp_path / "run").markdown):
        assert line in report
        assert "| 2      | Жук   | 4       |" in report
        assert "images beside the class folders are left out (1)" in report
    assert "Жук" in (tmp_path / "run" / "report.html").read_text()


def test_the_rows_of_the_grids_carry_the_names(tmp_path):
    root = write_classes(tmp_path / "data", ["cat", "dog", "eel"])
    assert train(tmp_path / "run", *SMALL, f"dataset.root={root}") == 0
    words = [f"run={tmp_path / 'run'}", "count=6", "columns=2", "device=cpu"]
    write_samples(composition.plain(composition.compose(words, "sample")))
    expected = pictures._names(("cat", "dog", "eel"), 3 * 12 + 2 * 2)
    for file in ("samples/step_00000004.png", "sampled/grid.png"):
        grid = np.asarray(Image.open(tmp_path / "run" / file))
        assert grid.shape == (40, expected.shape[1] + 2 * 8 + 2, 3)
        assert np.array_equal(grid[:, : expected.shape[1]], expected), file


def test_without_labels_the_pictures_stay_what_they_were(tmp_path):
    write_images(tmp_path / "data")
    words = (*SMALL, "architecture.conditional=false", f"dataset.root={tmp_path / 'data'}", "trainer.sample_rows=3")
    assert train(tmp_path / "run", *words) == 0
    with Image.open(tmp_path / "run" / "samples" / "step_00000004.png") as grid:
        assert grid.size == (2 * 8 + 2, 3 * 8 + 2 * 2)


@pytest.mark.parametrize(
    ("empty", "beside", "message"),
    [
        ("5", [], "the class '5' has no image that can be used"),
        ("", ["data/train", "data/val"], "dataset.root=data/train"),
        ("", ["data/Train", "data/TEST"], "dataset.root=data/Train"),
        ("", ["data/all/train", "data/all/valid", "data/all/test"], "dataset.root=data/all/train"),
    ],
)
def test_what_is_no_class_is_refused_in_one_line(refused, empty, beside, message):
    for folder in beside or ["data/2", "data/10"]:
        write_classes(Path(folder), ["."] if beside else [""])
    if empty:
        (Path("data") / empty).mkdir()
    assert message in refused(*SMALL, "dataset.root=data")


def test_a_data_set_without_labels_is_refused_before_it_is_described(refused, tmp_path):
    write_classes(tmp_path / "data", ["only"], count=8)
    assert "this dataset has no labels" in refused(*SMALL, f"dataset.root={tmp_path / 'data'}")


def test_the_classifier_and_the_evaluation_say_it_too(typed, tmp_path):
    root = write_classes(tmp_path / "data", ["2", "10"], count=10)
    line = "data: 20 images of 20 files, 8×8, 1 channel; classes 0 = 2 (10), 1 = 10 (10)"
    keys = ("dataset=images", f"dataset.root={root}", "dataset.size=8", "dataset.channels=1", "device=cpu")
    ended = typed(
        *keys, "steps=2", "batch_size=4", "width=2", f"out={tmp_path / 'c.safetensors'}", command="classifier"
    )
    assert ended.status == 0, ended.err
    assert line in ended.err.splitlines()
    assert train(tmp_path / "run", *SMALL, f"dataset.root={root}") == 0
    measured = ("metric=[neighbours]", "metric.neighbours.samples=16", "device=cpu")
    ended = typed(f"run={tmp_path / 'run'}", *measured, command="evaluate")
    assert ended.status == 0, ended.err
    assert line in ended.err.splitlines()


# Runs of earlier versions, whose numbered folders have the numbers of the text


@pytest.fixture
def numbered(tmp_path) -> Path:
    """Classes 0 to 11; 5 is empty, and had no number."""
    root = write_classes(tmp_path / "data", [str(n) for n in range(12) if n != 5])
    (root / "5").mkdir()
    return root


def as_earlier(run: Path) -> Path:
    """The run as an earlier version would have left it."""
    manifest = json.loads((run / "manifest.json").read_text())
    for key in ("class_names", "class_counts", "class_order", "description", "num_files", "remarks"):
        del manifest["data"][key]
    (run / "manifest.json").write_text(json.dumps(manifest))
    config = yaml.safe_load((run / "config.yaml").read_text())
    del config["dataset"]["allow_empty"]
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    return run


@pytest.fixture
def earlier(numbered, tmp_path, monkeypatch) -> Path:
    """A run of four steps by an earlier version; beside it `straight`, of twelve steps at once."""
    with monkeypatch.context() as patch:
        patch.setattr(Manifest, "class_order", "text")
        for name, steps in (("run", 4), ("straight", 12)):
            assert train(tmp_path / name, *SMALL, f"dataset.root={numbered}", f"trainer.steps={steps}") == 0
    assert told(tmp_path / "run")["class_names"] == ["0", "1", "10", "11", *"2346789"]
    return as_earlier(tmp_path / "run")


@pytest.mark.parametrize("way", ["resume", "same directory"])
def test_a_run_of_an_earlier_version_keeps_the_numbers_of_its_classes(typed, earlier, numbered, way):
    for steps in (8, 12):  # the second time, its manifest is of this version
        words = {
            "resume": [f"resume={earlier}"],
            "same directory": [*SMALL, f"hydra.run.dir={earlier}", f"dataset.root={numbered}"],
        }[way]
        ended = typed(*words, f"trainer.steps={steps}")
        assert ended.status == 0, ended.err
        assert "2 = 10 (4), 3 = 11 (4), 4 = 2 (4)" in ended.err
        assert told(earlier)["class_order"] == "text"
    assert_same_end(earlier.parent / "straight", earlier)


def test_a_run_of_an_earlier_version_is_measured_and_sampled_by_its_own_numbers(typed, earlier):
    measured = ("metric=[neighbours]", "metric.neighbours.samples=16", "device=cpu")
    ended = typed(f"run={earlier}", *measured, command="evaluate")
    assert ended.status == 0, ended.err

    def sampled(label: str) -> bytes:
        ended = typed(f"run={earlier}", f"label={label}", "out=sampled", "device=cpu", command="sample")
        assert ended.err == f"label={label}: class '{label}', number 2\n"
        return Path("sampled", "samples.npy").read_bytes()

    by_number, weights = sampled("2"), (earlier / "generator.safetensors").read_bytes()
    assert typed(f"resume={earlier}", "trainer.steps=6").status == 0  # from now on its classes have names
    (earlier / "generator.safetensors").write_bytes(weights)
    assert sampled("10") == by_number


def test_a_new_run_from_its_weights_is_told_that_numbers_mean_other_classes(typed, earlier, numbered):
    (numbered / "5").rmdir()
    ended = typed(*SMALL, f"dataset.root={numbered}", f"fork_from={earlier}", "trainer.steps=2")
    assert ended.status == 0, ended.err
    assert "its classes are '0', '1', '10', '11', '2' …, and here '0', '1', '2', '3', '4' …" in ended.err
    assert told(Path(ended.out.splitlines()[-1]))["class_order"] == "number"


def test_other_classes_are_told_when_a_run_is_refused(tmp_path, capsys):
    root = write_classes(tmp_path / "data", ["cat", "dog"])
    words = (*SMALL, f"dataset.root={root}")
    assert train(tmp_path / "run", *words) == 0
    allowed = (*words, "dataset.allow_empty=true")  # may be typed anew, because it changes no number
    assert train(tmp_path / "run", *allowed, "trainer.steps=6") == 0
    for added in ("bee", "fox"):
        (root / added).mkdir()
        assert train(tmp_path / "run", *allowed, "trainer.steps=8") == 2
        now = ", ".join(repr(name) for name in sorted(["cat", "dog", added]))
        (root / added).rmdir()
        error = capsys.readouterr().err.splitlines()[-1]
        assert error.endswith(f"run was started with; its classes are 'cat', 'dog', and here {now}")
