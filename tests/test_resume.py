import fcntl
import os
import random
import re
import resource
import shlex
import shutil
import signal
import stat
import subprocess
import sys
import time
from fnmatch import fnmatch
from functools import partial
from pathlib import Path

import pytest
import torch

from gan_runner.errors import UserError
from gan_runner.runs import checkpoint
from gan_runner.status import Status
from tests.training import (
    INTRICATE,
    TINY,
    assert_same_end,
    last_step,
    newest_state,
    rows,
    start,
    status,
    train,
    write_images,
)

STEPS = 240

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return write_images(tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="module")
def intricate(images):
    return (*INTRICATE, f"dataset.root={images}", f"trainer.steps={STEPS}")


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory, intricate):
    """The run that every interrupted one has to equal."""
    directory = tmp_path_factory.mktemp("uninterrupted") / "run"
    assert train(directory, *intricate) == Status.COMPLETED
    return directory


@pytest.fixture(scope="module")
def completed(tmp_path_factory):
    """A small run of 20 steps, to be copied."""
    directory = tmp_path_factory.mktemp("completed") / "run"
    assert train(directory, *TINY, "trainer.steps=20", "trainer.checkpoint_every=10") == Status.COMPLETED
    return directory


def contents(directory: Path) -> dict[str, tuple[int, bytes]]:
    files = sorted(p for p in directory.rglob("*") if p.is_file())
    return {str(p.relative_to(directory)): (p.stat().st_mtime_ns, p.read_bytes()) for p in files}


# Killed


def test_ten_kills_at_random_moments_change_nothing(tmp_path, intricate, uninterrupted):
    seed = random.SystemRandom().randrange(10**6)
    print("seed of the moments:", seed)  # shown where the test fails
    moments = random.Random(seed)
    directory = tmp_path / "run"
    for _ in range(10):
        process = start(directory, *intricate)
        until = last_step(directory) + moments.randint(0, STEPS // 12)
        while process.is_alive() and last_step(directory) < until:
            time.sleep(0.001)
        time.sleep(moments.uniform(0, 0.03))
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL
    assert train(directory, *intricate) == Status.COMPLETED
    assert_same_end(uninterrupted, directory)


def test_a_kill_inside_any_write_changes_nothing(tmp_path, intricate, uninterrupted):
    def die_at(write: int) -> None:
        """The process dies half-way into its `write`-th file, or when that is whole but does not have its name yet."""
        rename, fsync = Path.replace, os.fsync
        written = 0

        def dying_fsync(descriptor):
            half_way = write % 2 and written == write - 1
            appended = fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_APPEND  # metrics.jsonl, on the disk already
            if half_way and not appended and stat.S_ISREG(os.fstat(descriptor).st_mode):
                os.ftruncate(descriptor, os.fstat(descriptor).st_size // 2)
                os.kill(os.getpid(), signal.SIGKILL)
            fsync(descriptor)

        def dying_rename(self, target):
            nonlocal written
            written += 1
            if written == write:
                os.kill(os.getpid(), signal.SIGKILL)
            return rename(self, target)

        setattr(Path, "replace", dying_rename)  # noqa: B010
        setattr(os, "fsync", dying_fsync)  # noqa: B010

    directory = tmp_path / "run"
    for write in range(1, 18):
        process = start(directory, *intricate, before=partial(die_at, write))
        process.join()
        assert process.exitcode == -signal.SIGKILL
    assert train(directory, *intricate) == Status.COMPLETED
    assert_same_end(uninterrupted, directory)


@pytest.mark.parametrize("file", ["generator.safetensors", "step_*.safetensors", "status.json"])
def test_a_kill_in_the_last_save_loses_nothing(tmp_path, file):
    """Before the file of that name replaces the one of the step before."""

    def die_at_the_end() -> None:
        rename = Path.replace

        def dying_rename(self, target):
            last = checkpoint.checkpoints(tmp_path / "run" / "checkpoints")[-1:]
            if last and fnmatch(Path(target).name, file) and last_step(tmp_path / "run") == 15:
                os.kill(os.getpid(), signal.SIGKILL)
            return rename(self, target)

        setattr(Path, "replace", dying_rename)  # noqa: B010

    overrides = (*TINY, "trainer.steps=20", "trainer.checkpoint_every=10")
    assert train(tmp_path / "whole", *overrides) == Status.COMPLETED
    process = start(tmp_path / "run", *overrides, before=die_at_the_end)
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert train(tmp_path / "run", *overrides) == Status.COMPLETED
    assert_same_end(tmp_path / "whole", tmp_path / "run")


def test_a_kill_after_the_last_checkpoint_loses_nothing(tmp_path):
    overrides = (*TINY, "trainer.steps=17", "trainer.checkpoint_every=10")  # 17 is off every schedule
    assert train(tmp_path / "whole", *overrides) == Status.COMPLETED
    shutil.copytree(tmp_path / "whole", tmp_path / "killed")
    (tmp_path / "killed" / "status.json").write_text('{"state": "running", "step": 17}')
    assert train(tmp_path / "killed", *overrides) == Status.COMPLETED
    assert status(tmp_path / "killed")["state"] == "completed"
    assert rows(tmp_path / "killed")[-1]["step"] == 17
    assert_same_end(tmp_path / "whole", tmp_path / "killed")


def test_the_command_itself_killed_and_typed_again(tmp_path, intricate, uninterrupted, environment):
    run = tmp_path / "run"
    command = [sys.executable, "-m", "gan_runner.train", *intricate, f"hydra.run.dir={run}"]
    process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
    while process.poll() is None and last_step(run) < 60:
        time.sleep(0.002)
    process.kill()
    process.wait()
    assert status(run)["state"] == "running"
    assert 50 <= status(run)["step"] < STEPS
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == str(run)
    assert_same_end(uninterrupted, run)


@pytest.mark.parametrize("damage", ["flipped", "truncated", "empty"])
def test_a_damaged_checkpoint_gives_way_to_the_one_before(tmp_path, completed, damage, capsys):
    run = shutil.copytree(completed, tmp_path / "run")
    (run / "status.json").write_text('{"state": "running", "step": 20}')
    newest = checkpoint.checkpoints(run / "checkpoints")[-1]
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1
    newest.write_bytes({"flipped": content, "truncated": content[:-100], "empty": bytearray()}[damage])
    assert train(run, *TINY, "trainer.steps=20", "trainer.checkpoint_every=10") == Status.COMPLETED
    said = capsys.readouterr().err
    assert f"warning: {newest} is damaged; going on from step 10" in said
    assert_same_end(completed, run)


def test_without_any_intact_checkpoint_the_run_is_refused(tmp_path, completed, capsys):
    run = shutil.copytree(completed, tmp_path / "run")
    (run / "status.json").write_text('{"state": "running", "step": 20}')
    for path in checkpoint.checkpoints(run / "checkpoints"):
        path.write_bytes(b"no")
    before = contents(run)
    assert train(run, *TINY, "trainer.steps=20", "trainer.checkpoint_every=10") == Status.REFUSED
    assert "every checkpoint in it is damaged" in capsys.readouterr().err
    assert contents(run) == before


def test_a_run_whose_checkpoints_are_gone_does_not_begin_anew(tmp_path, completed, capsys):
    run = shutil.copytree(completed, tmp_path / "run")
    shutil.rmtree(run / "checkpoints")
    before = contents(run)
    assert train(run, *TINY, "trainer.steps=30", "trainer.checkpoint_every=10") == Status.REFUSED
    assert f"{run / 'checkpoints'}: are gone" in capsys.readouterr().err
    assert contents(run) == before


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("metrics.jsonl", '{"step": Infinity}\n', "line 1 is no row of metrics"),
        ("metrics.jsonl", '{"step": 5, "metric/pattern_error": "x"}\n', "line 1 is no row of metrics"),
        ("metrics.jsonl", '{"step": 5, "loss/generator": null}\n', "line 1 is no row of metrics"),
        ("metrics.jsonl", "[5]\n", "line 1 is no row of metrics"),
        ("manifest.json", '{"wall_seconds": "x"}', "wall_seconds"),
        ("manifest.json", '{"extractor": 5}', "extractor"),
    ],
)
def test_a_damaged_record_is_refused_before_anything_is_written(tmp_path, completed, capsys, file, content, said):
    run = shutil.copytree(completed, tmp_path / "run")
    (run / file).write_text(content)
    before = contents(run)
    assert train(run, *TINY, "trainer.steps=30", "trainer.checkpoint_every=10") == Status.REFUSED
    assert f"{run / file}" in (told := capsys.readouterr().err)
    assert said in told
    assert contents(run) == before


@pytest.mark.parametrize("file", ["metrics.jsonl", "manifest.json", "summary.txt", "log.txt", "generator.safetensors"])
def test_a_folder_in_place_of_a_file_is_refused_before_the_work(tmp_path, completed, capsys, file):
    run = shutil.copytree(completed, tmp_path / "run")
    kept = (run / file).rename(tmp_path / file)
    (run / file).mkdir()
    (run / "notes").mkdir()
    before = contents(run)
    words = [*TINY, "trainer.steps=30", "trainer.checkpoint_every=10"]
    assert train(run, *words) == Status.REFUSED
    assert f"{run / file}: is a folder" in capsys.readouterr().err
    assert contents(run) == before
    (run / file).rmdir()
    kept.rename(run / file)
    assert train(run, *words) == Status.COMPLETED


def test_a_folder_in_place_of_the_status_is_refused(tmp_path, completed, capsys):
    run = shutil.copytree(completed, tmp_path / "run")
    (run / "status.json").unlink()
    (run / "status.json").mkdir()
    assert train(run, *TINY, "trainer.steps=30", "trainer.checkpoint_every=10") == Status.REFUSED
    assert f"{run / 'status.json'}: cannot be read" in capsys.readouterr().err


# Extended


@pytest.mark.parametrize(("log_every", "sample_every"), [(5, 10), (3, 7)])
def test_an_extended_run_is_the_longer_run(tmp_path, log_every, sample_every):
    schedule = [*TINY, "trainer.ema_decay=0.9", "trainer.checkpoint_every=15"]
    schedule += [f"trainer.log_every={log_every}", f"trainer.sample_every={sample_every}"]
    assert train(tmp_path / "long", *schedule, "trainer.steps=40") == Status.COMPLETED
    assert train(tmp_path / "extended", *schedule, "trainer.steps=20") == Status.COMPLETED
    assert train(tmp_path / "extended", *schedule, "trainer.steps=40") == Status.COMPLETED
    assert rows(tmp_path / "extended") == rows(tmp_path / "long")
    short, long = newest_state(tmp_path / "extended"), newest_state(tmp_path / "long")
    assert short.keys() == long.keys()
    assert all(torch.equal(short[k], v) if isinstance(v, torch.Tensor) else short[k] == v for k, v in long.items())


def test_resume_extends_the_run_it_names(tmp_path, completed, gan_train):
    run = shutil.copytree(completed, tmp_path / "run")
    done = gan_train(f"resume={run}", "trainer.steps=40")
    assert done.returncode == Status.COMPLETED, done.stderr
    assert done.stdout.splitlines()[-1] == str(run)
    assert train(tmp_path / "long", *TINY, "trainer.steps=40", "trainer.checkpoint_every=10") == Status.COMPLETED
    assert rows(run) == rows(tmp_path / "long")
    assert torch.equal(
        newest_state(run)["generator/layers.0.weight"],
        newest_state(tmp_path / "long")["generator/layers.0.weight"],
    )
    assert status(run)["step"] == 40


def test_what_depends_on_the_length_cannot_be_extended(tmp_path, completed):
    with pytest.raises(UserError, match=r"trainer\.steps=10.*only be extended"):
        train(completed, *TINY, "trainer.steps=10", "trainer.checkpoint_every=10")
    run = tmp_path / "run"
    assert train(run, *TINY, "trainer.steps=5", "optimizer.schedule=linear") == Status.COMPLETED
    with pytest.raises(UserError, match=r"trainer\.steps=10: the linear schedule"):
        train(run, *TINY, "trainer.steps=10", "optimizer.schedule=linear")


# Stopped


def test_sigterm_interrupts_and_the_printed_command_goes_on(tmp_path, environment):
    overrides = (*TINY, "trainer.steps=1500", "trainer.checkpoint_every=1000")
    run = tmp_path / "run"
    command = [sys.executable, "-m", "gan_runner.train", *overrides, f"hydra.run.dir={run}"]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while process.poll() is None and not (run / "status.json").exists():
        time.sleep(0.002)
    process.terminate()  # perhaps before the first step
    out, err = process.communicate(timeout=60)
    assert process.returncode == Status.INTERRUPTED, err
    assert "Traceback" not in err
    stopped = status(run)
    assert stopped["state"] == "interrupted"
    assert 0 < stopped["step"] < 1500
    assert checkpoint.step_of(checkpoint.checkpoints(run / "checkpoints")[-1]) == stopped["step"]
    *_, hint, last = out.splitlines()
    assert last == str(run)
    words = shlex.split(hint.removeprefix("go on with: "))
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == str(run)
    assert status(run)["state"] == "completed"
    assert train(tmp_path / "whole", *overrides) == Status.COMPLETED
    assert_same_end(tmp_path / "whole", run)


def test_sigint_interrupts_at_any_step(tmp_path, intricate, uninterrupted):
    def listen() -> None:  # tests that run in the background ignore it, and so would their child
        signal.signal(signal.SIGINT, signal.default_int_handler)

    run = tmp_path / "run"
    process = start(run, *intricate, before=listen)
    while process.is_alive() and last_step(run) < 30:
        time.sleep(0.001)
    time.sleep(random.uniform(0, 0.02))
    assert process.pid is not None
    os.kill(process.pid, signal.SIGINT)
    process.join(60)
    assert process.exitcode == Status.INTERRUPTED
    assert status(run)["state"] == "interrupted"
    assert status(run)["step"] == checkpoint.step_of(checkpoint.checkpoints(run / "checkpoints")[-1])
    assert train(run, *intricate) == Status.COMPLETED
    assert_same_end(uninterrupted, run)


def test_a_second_signal_kills(tmp_path):
    ready = tmp_path / "ready"

    def never_ending_step() -> None:
        from gan_runner.losses import NonSaturating

        def wait(self, *_):
            ready.touch()
            while True:
                time.sleep(0.01)

        setattr(NonSaturating, "generator", wait)  # noqa: B010

    process = start(tmp_path / "run", *TINY, before=never_ending_step)
    while not ready.exists():
        time.sleep(0.01)
    process.terminate()
    process.join(0.3)
    assert process.is_alive()
    process.terminate()
    process.join(10)
    assert process.exitcode == -signal.SIGTERM
    assert status(tmp_path / "run")["state"] == "running"


def test_a_completed_run_is_left_as_it_is(tmp_path, completed, capsys):
    before = contents(completed)
    assert train(completed, *TINY, "trainer.steps=20", "trainer.checkpoint_every=10") == Status.COMPLETED
    captured = capsys.readouterr()
    assert "is completed (20 steps) and left as it is" in captured.err
    assert captured.out.splitlines()[-1] == str(completed)
    assert contents(completed) == before


# Ended badly


def test_divergence_keeps_the_last_good_checkpoint(tmp_path, capsys):
    run = tmp_path / "run"
    overrides = (*TINY, "optimizer=sgd", "loss=wasserstein", "trainer.checkpoint_every=1", "trainer.log_every=1")
    huge = ("optimizer.generator.lr=1e6", "optimizer.discriminator.lr=1e6")
    assert train(run, *overrides, *huge) == Status.DIVERGED
    assert status(run)["state"] == "diverged"
    assert re.search(r"error: diverged after step \d+: ", capsys.readouterr().err)
    state = newest_state(run)
    assert all(bool(torch.isfinite(v).all()) for v in state.values() if isinstance(v, torch.Tensor))
    assert all(abs(v) < float("inf") for row in rows(run) for v in row.values())


def test_a_class_that_raises_fails_the_run(tmp_path, monkeypatch, capsys):
    from gan_runner.losses import NonSaturating

    monkeypatch.setattr(NonSaturating, "generator", lambda self, logits: 1 / 0)
    assert train(tmp_path / "run", *TINY) == Status.FAILED
    assert status(tmp_path / "run") == {
        "state": "failed",
        "step": 0,
        "message": "after step 0: division by zero",
    }
    assert "ZeroDivisionError" in capsys.readouterr().err  # whose fault it is takes a traceback to tell
    log = (tmp_path / "run" / "log.txt").read_text()
    assert "Traceback" in log
    assert "test_resume.py" in log
    assert "ZeroDivisionError: division by zero" in log


class TestFullDisk:
    SCHEDULE = (*TINY, "trainer.log_every=1", "trainer.sample_every=20", "trainer.checkpoint_every=20")
    OVERRIDES = (*SCHEDULE, "trainer.steps=400")

    @pytest.fixture
    def whole(self, tmp_path):
        assert train(tmp_path / "whole", *self.OVERRIDES) == Status.COMPLETED
        return tmp_path / "whole"

    @pytest.fixture
    def small_disk(self, tmp_path):
        disk = tmp_path / "disk"
        disk.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", "size=500k", "tmpfs", disk]
        if subprocess.run(mount, capture_output=True, check=False).returncode:
            pytest.skip("mounting a small disk takes root")
        yield disk
        subprocess.run(["umount", "--lazy", disk], check=True)

    def goes_on(self, run, whole):
        assert train(run, *self.OVERRIDES) == Status.COMPLETED
        assert_same_end(whole, run)

    def test_a_disk_that_fills_up(self, whole, small_disk, gan_train):
        run = small_disk / "run"
        failed = gan_train(*self.OVERRIDES, f"hydra.run.dir={run}")
        assert failed.returncode == Status.FAILED
        assert "warning: no checkpoint at step" in failed.stderr  # the first to fit no more, and can be done without
        assert "No space left on device" in failed.stderr
        assert "Traceback" not in failed.stderr
        assert status(run)["state"] in ("failed", "running")  # the words for it may not have fitted either
        assert newest_state(run)
        subprocess.run(["mount", "-o", "remount,size=32m", small_disk], check=True)
        self.goes_on(run, whole)

    def test_going_on_with_a_full_disk_harms_nothing(self, whole, small_disk):
        subprocess.run(["mount", "-o", "remount,size=32m", small_disk], check=True)
        run, filler = small_disk / "run", small_disk / "filler"
        assert train(run, *self.SCHEDULE, "trainer.steps=40") == Status.COMPLETED
        with filler.open("wb", buffering=0) as file:
            while file.write(bytes(4096)) == 4096 and os.statvfs(small_disk).f_bavail:
                pass
        assert train(run, *self.OVERRIDES) == Status.FAILED
        assert checkpoint.step_of(checkpoint.checkpoints(run / "checkpoints")[-1]) == 40
        filler.unlink()
        self.goes_on(run, whole)

    def test_a_limit_on_file_sizes(self, tmp_path, whole):
        """Without root: the events outgrow what a file may hold, in the middle of the run."""

        def limit() -> None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (140_000, resource.RLIM_INFINITY))

        process = start(tmp_path / "run", *self.OVERRIDES, before=limit)
        process.join(60)
        assert process.exitcode == Status.FAILED
        failed = status(tmp_path / "run")
        assert failed["state"] == "failed"
        assert "File too large" in failed["message"]
        assert newest_state(tmp_path / "run")
        self.goes_on(tmp_path / "run", whole)


# What may change and what may not


def test_fork_from_starts_a_new_run_from_the_weights(tmp_path, completed):
    fork = ("optimizer.generator.lr=0", "optimizer.discriminator.lr=0", f"fork_from={completed}")
    assert train(tmp_path / "fork", *TINY, *fork, "trainer.steps=5") == Status.COMPLETED
    source, forked = newest_state(completed), newest_state(tmp_path / "fork")
    weights = [name for name in source if name.split("/")[0] in ("generator", "discriminator")]
    assert weights
    assert all(torch.equal(source[name], forked[name]) for name in weights)
    assert [row["step"] for row in rows(tmp_path / "fork")] == [5]
    assert forked["optimizer/generator/0/step"].item() == 5


def test_fork_from_refuses_another_architecture(tmp_path, completed, capsys):
    fork = (f"fork_from={completed}", "architecture.generator.hidden=[8]")
    assert train(tmp_path / "fork", *TINY, *fork) == Status.REFUSED
    assert "its weights do not fit MLPGenerator: size mismatch for layers" in capsys.readouterr().err
    assert not (tmp_path / "fork").exists()


def test_a_run_goes_on_only_as_what_it_was(completed):
    before = contents(completed)
    changed = ("optimizer.generator.lr=0.1", "seed=3", "loss=hinge")
    with pytest.raises(UserError, match=r"\(loss\._target_, optimizer\.generator\.lr, seed\).*fork_from="):
        train(completed, *TINY, "trainer.steps=20", "trainer.checkpoint_every=10", *changed)
    assert contents(completed) == before


def test_data_may_move_but_not_change(tmp_path, images, capsys):
    run, moved, other = tmp_path / "run", tmp_path / "moved", tmp_path / "other"
    shutil.copytree(images, moved)
    shutil.copytree(images, other)
    next(other.rglob("*.png")).unlink()
    assert train(run, *INTRICATE, f"dataset.root={images}", "trainer.steps=10") == Status.COMPLETED
    before = contents(run)
    assert train(run, *INTRICATE, f"dataset.root={other}", "trainer.steps=20") == Status.REFUSED
    refused = capsys.readouterr().err
    assert "dataset.root: these are other data" in refused
    assert re.search(r"it had 50 images of 50 files.*, and here are 49 images of 49 files", refused)
    assert contents(run) == before
    assert train(run, *INTRICATE, f"dataset.root={moved}", "trainer.steps=20") == Status.COMPLETED
    assert status(run)["step"] == 20


def test_the_device_may_change(tmp_path, completed):
    run = shutil.copytree(completed, tmp_path / "run")
    extended = ("trainer.steps=25", "trainer.checkpoint_every=10", "device=data_parallel")
    assert train(run, *TINY, *extended) == Status.COMPLETED
    assert status(run)["step"] == 25


def test_a_directory_in_use_is_refused(tmp_path, completed, capsys):
    from gan_runner.runs.directory import RunDirectory

    run = shutil.copytree(completed, tmp_path / "run")
    held = RunDirectory(run)
    held.write_pid()
    before = contents(run)
    assert train(run, *TINY, "trainer.steps=30", "trainer.checkpoint_every=10") == Status.REFUSED
    assert f"in use by another run (process {os.getpid()})" in capsys.readouterr().err
    assert contents(run) == before
    held.close()
