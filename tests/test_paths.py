"""A path that no file can have is refused in one line, whichever key of whichever command it was typed for."""

import shlex
from pathlib import Path

import pytest

from gan_runner.config import composition
from gan_runner.errors import UserError
from gan_runner.overrides import command
from gan_runner.paths import as_path, cache_folder
from gan_runner.runs.directory import read_run
from gan_runner.runs.plan import Plan, refuse_changes, with_places
from tests.fuzz.running import drop_capabilities, in_fork
from tests.training import TINY, write_images

NO_PATHS = {
    "~nobodyhere/x": "there is no such user",
    "~nobodyhere": "there is no such user",
    "loop": "Too many levels of symbolic links",
    "loop/x": "Too many levels of symbolic links",
    "x" * 300: "File name too long",
    "y/" * 3000: "File name too long",
    "a\nb": "control characters",
    "a\0b": "control characters",
    "a\udcffb": "in UTF-8",
}


@pytest.mark.parametrize("mode", [0o000, 0o100, 0o400])
def test_a_folder_that_may_not_be_read(mode, tmp_path):
    """Root may read it all the same, but for a fork that has given this up."""
    folder = tmp_path / "locked"
    folder.mkdir(mode=mode)

    def refusal() -> str:
        drop_capabilities()
        with pytest.raises(UserError) as refused:
            as_path("run", str(folder))
        return str(refused.value)

    assert in_fork(refusal) == f"run={folder}: Permission denied"
    folder.chmod(0o500)
    assert as_path("run", str(folder)) == folder


@pytest.mark.parametrize("text", NO_PATHS)
def test_no_path(text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("loop").symlink_to("loop")
    with pytest.raises(UserError) as refusal:
        as_path("key", text)
    assert str(refusal.value).startswith("key=")
    assert NO_PATHS[text] in str(refusal.value)
    assert str(refusal.value).isprintable()
    if "\0" not in text:
        monkeypatch.setenv("GAN_RUNNER_CACHE", text)
        with pytest.raises(UserError, match=r"^GAN_RUNNER_CACHE="):
            cache_folder()


def test_paths(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "file").touch()
    for text, path in [
        ("~", tmp_path),
        ("~/x", tmp_path / "x"),
        ("./~x", Path("~x")),
        ("a~", Path("a~")),
        ("1.10", "1.10"),
    ]:
        assert as_path("key", text) == Path(path)
    assert as_path("key", "~/file/below") == tmp_path / "file/below"  # who needs it there will say so
    assert as_path("key", "Å/猫 \u200d") == Path("Å/猫 \u200d")


def test_without_a_home(monkeypatch):
    monkeypatch.delenv("HOME")
    monkeypatch.setattr("pwd.getpwuid", lambda uid: {}[uid])
    monkeypatch.delenv("GAN_RUNNER_CACHE", raising=False)
    with pytest.raises(UserError, match="set HOME"):
        cache_folder()
    with pytest.raises(UserError, match="set HOME"):
        as_path("resume", "~/x")


WHERE = [
    ("train", "resume={}"),
    ("train", "fork_from={}"),
    ("train", "hydra.run.dir={} trainer.steps=2"),
    ("train", "-m hydra.sweep.dir={} seed=0,1"),
    ("train", "-m hydra.sweep.dir={} seed=0,1 hydra.launcher.dry_run=true"),
    ("train", "--config-dir={}"),
    ("train", "--config-dir={} --cfg job"),
    ("train", "dataset=images dataset.root={}"),
    ("train", "dataset=mnist dataset.root={} architecture=mlp_layernorm"),
    ("train", "dataset=celeba dataset.root={}"),
    ("sample", "run={}"),
    ("export", "run={}"),
    ("evaluate", "run={}"),
    ("evaluate", "runs={}"),
    ("evaluate", "runs=[{}]"),
    ("report", "run={}"),
    ("report", "runs={}"),
    ("classifier", "dataset=images dataset.root={}"),
]


@pytest.mark.parametrize("text", ["~nobodyhere/x", "loop", "file/x", "n" * 300])
@pytest.mark.parametrize(("command", "words"), WHERE)
def test_every_command_refuses_it(refused, command, words, text):
    Path("loop").symlink_to("loop")
    Path("file").touch()
    key = next(word.partition("=")[0] for word in words.split(" ") if "{}" in word).removeprefix("-m ")
    line = refused(*words.replace("{}", text).split(" "), command=command)
    assert text in line
    assert key in line or key == "hydra.sweep.dir" or "cannot make the run directory" in line


def test_the_folder_to_write_to(typed, refused):
    assert typed("hydra.run.dir=run", *TINY, "trainer.steps=1").status == 0
    Path("loop").symlink_to("loop")
    Path("file").touch()
    for text in ("~nobodyhere/x", "loop", "file", "file/x", "n" * 300):
        assert "out=" in refused("run=run", "count=1", f"out={text}", command="sample")
    images = ("dataset=images", "dataset.size=8", "dataset.channels=1", "steps=1", "batch_size=8", "width=2")
    write_images(Path("images"))
    for text in ("~nobodyhere/x.safetensors", "file/x.safetensors", "loop/x.safetensors"):
        assert "out=" in refused(*images, "dataset.root=images", f"out={text}", command="classifier")


IMAGES = (
    *("dataset=images", "dataset.size=8", "dataset.channels=1", "architecture=mlp_layernorm", "doctor=none"),
    *("metric=[neighbours]", "metric.neighbours.samples=16", *TINY),
)


def test_a_run_keeps_the_place_of_its_data(typed, refused, monkeypatch, tmp_path):
    here = Path.cwd()
    write_images(Path("my data"))
    assert typed(*IMAGES, "dataset.root=my data", "hydra.run.dir=run", "trainer.steps=1").status == 0
    assert read_run(Path("run"), [], "run")["dataset"]["root"] == str(here / "my data")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert typed(f"resume={here}/run", "trainer.steps=2").status == 0
    assert typed(f"run={here}/run", "device=cpu", command="evaluate").status == 0
    monkeypatch.chdir(here)
    Path("my data").rename("moved, to here")
    line = refused("resume=run", "trainer.steps=3")
    assert line.endswith(f"are elsewhere now: {command('train')} resume=run dataset.root=…")
    assert "dataset.root=…" in refused("run=run", "device=cpu", command="evaluate")
    assert typed("resume=run", "trainer.steps=3", "dataset.root='moved, to here'").status == 0
    assert typed("resume=run", "trainer.steps=4").status == 0


def test_an_extractor_is_found_from_elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("mine.pth").touch()
    Path("auto").touch()
    path, plain = tmp_path / "run", composition.plain(composition.compose([], "train"))
    typed, other = (plain | {"evaluation": plain["evaluation"] | {"extractor": e}} for e in ("mine.pth", "other.pth"))
    kept = with_places(typed)
    assert kept["evaluation"]["extractor"] == str(tmp_path / "mine.pth")
    assert with_places(plain) == plain
    for stored in (typed, kept):  # an earlier version kept it as typed
        refuse_changes(Plan(typed, path, stored=stored))
    with pytest.raises(UserError, match=r"another configuration \(evaluation\.extractor\)"):
        refuse_changes(Plan(other, path, stored=kept))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    refuse_changes(Plan(kept, path, stored=kept))
    assert with_places(kept) == kept


def test_a_completed_run_is_not_completed_on_other_data(typed, refused):
    write_images(Path("data"))
    write_images(Path("copy"))
    write_images(Path("other"))
    next(Path("other").rglob("*.png")).unlink()
    words = (*IMAGES, "hydra.run.dir=run", "trainer.steps=1")
    assert typed(*words, "dataset.root=data").status == 0
    for same in ("data", "./data", str(Path("data").absolute()), "copy"):
        ended = typed(*words, f"dataset.root={same}")
        assert (ended.status, ended.out) == (0, "run\n")
        assert "is completed (1 steps)" in ended.err
    assert "other data than run was started with" in refused(*words, "dataset.root=other")
    assert "other data than run was started with" in refused("resume=run", "dataset.root=other")
    assert "'nowhere' does not exist" in refused(*words, "dataset.root=nowhere")
    next(Path("data").rglob("*.png")).unlink()
    assert typed(*words, "dataset.root=data").status == 0  # of the same place nothing is read again


def test_nor_is_a_job_of_a_sweep(gan_train, tmp_path):
    for name in ("data", "copy", "other"):
        write_images(tmp_path / name)
    next((tmp_path / "other").rglob("*.png")).unlink()
    words = ("-m", *IMAGES, "trainer.steps=1", "name=sweep", "seed=0,1")
    assert gan_train(*words, "dataset.root=data").returncode == 0
    ended = gan_train(*words, "dataset.root=other")
    assert ended.returncode == 2
    assert ended.stderr.count("other data than outputs/sweep/seed-") >= 2
    ended = gan_train(*words, "dataset.root=copy")
    assert ended.returncode == 0, ended.stderr
    assert "seed-0: completed, nothing is left to do" in gan_train(*words, "dataset.root=copy").stderr


def test_a_folder_called_like_nobody_s_home(typed):
    write_images(Path("~x"))
    words = (*IMAGES, "dataset.root=./~x", "trainer.steps=1", "hydra.run.dir=./~run")
    assert typed(*words).out.splitlines()[-1] == "~run"
    assert typed(*shlex.split("resume=./~run trainer.steps=2")).status == 0
