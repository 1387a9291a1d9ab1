"""Sweeps as a user types them: real processes, real digits, real signals."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from tests.training import assert_same_end, status, train

MINE = '''
import os, signal, sys, time
from pathlib import Path

from gan_runner.losses import NonSaturating


class Moody(NonSaturating):
    """Misbehaves from its 16th update on while there is a file `bad`."""

    def __init__(self, mood: str) -> None:
        super().__init__()
        self.mood, self.calls = mood, 0

    def real(self, logits):
        self.calls += 1
        if self.calls > 15 and Path("bad").exists():
            if self.mood == "raises":
                raise RuntimeError("no luck")
            if self.mood == "exits":
                sys.exit(3)
            if self.mood == "leaves":
                os._exit(3)
            if self.mood == "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            if self.mood == "hangs":
                time.sleep(1000)
            if self.mood == "slow":
                time.sleep(0.5)
            if self.mood == "spins":
                while True:
                    pass
            if self.mood == "diverges":
                return super().real(logits) * float("nan")
            if self.mood == "full":
                raise OSError(28, "No space left on device")
        return super().real(logits)
'''
STEPS = (
    "trainer.steps=30",
    "trainer.log_every=5",
    "trainer.sample_every=15",
    "trainer.evaluate_every=15",
    "trainer.checkpoint_every=10",
    "trainer.batch_size=16",
    "device=cpu",
    "doctor=none",
)
DIGITS = ("experiment=mnist_mlp", f"dataset.root={REPOSITORY / 'tests/data/mnist'}", "metric=[]", *STEPS)


def jobs(sweep: Path) -> dict[str, dict]:
    return json.loads((sweep / "sweep.json").read_text())["jobs"]


def states(sweep: Path) -> dict[str, str]:
    return {name: job["state"] for name, job in jobs(sweep).items()}


@pytest.fixture
def moody(tmp_path) -> Path:
    """A folder in which a user's loss misbehaves."""
    (tmp_path / "mine.py").write_text(MINE)
    (tmp_path / "groups/loss").mkdir(parents=True)
    (tmp_path / "groups/loss/moody.yaml").write_text("_target_: mine.Moody\nmood: good\n")
    (tmp_path / "bad").touch()
    return tmp_path


def moods(*names: str) -> tuple[str, ...]:
    return ("--config-dir=groups", "-m", "loss=moody", f"loss.mood={','.join(names)}")


def test_no_job_harms_another_and_the_table_says_why(gan_train, moody, monkeypatch):
    all_moods = ("good", "raises", "exits", "leaves", "killed", "hangs", "spins", "diverges", "fine")
    words = (*moods(*all_moods), "name=twelve", *DIGITS, "hydra.launcher.jobs=2", "hydra.launcher.heartbeat=4")
    ended = gan_train(*words)
    assert ended.returncode == 1, ended.stderr
    sweep = moody / "outputs/twelve"
    assert states(sweep) == {
        "mood-good": "completed",
        "mood-fine": "completed",
        "mood-diverges": "diverged",
        **{f"mood-{mood}": "failed" for mood in ("raises", "exits", "leaves", "killed", "hangs", "spins")},
    }
    for mood, reason in {
        "raises": "after step 15: no luck",
        "exits": "after step 15: sys.exit(3) was called",
        "leaves": "ended by itself with exit status 3",
        "killed": "was killed by SIGKILL (out of memory?)",
        "hangs": "hung: no progress for hydra.launcher.heartbeat=4 s",
        "spins": "hung: no progress for hydra.launcher.heartbeat=4 s",
        "diverges": "after step 20: loss/discriminator is nan",
    }.items():
        assert jobs(sweep)[f"mood-{mood}"]["reason"].startswith(reason)
        assert reason in ended.stdout
    assert ended.stdout.splitlines()[-1] == "outputs/twelve"
    assert "RuntimeError: no luck" in (sweep / "mood-raises/log.txt").read_text()
    assert "SystemExit: 3" in (sweep / "mood-exits/log.txt").read_text()

    with monkeypatch.context() as patch:  # alone, on as many threads
        patch.syspath_prepend(str(moody))
        sys.modules.pop("mine", None)  # of another test
        assert train(moody / "alone", "+loss.mood=good", "loss._target_=mine.Moody", "name=twelve", *DIGITS) == 0
        del sys.modules["mine"]
    assert_same_end(moody / "alone", sweep / "mood-good")

    again = gan_train(*words, "hydra.launcher.dry_run=true")
    to_do = {line.split()[1]: line.split("│")[4].strip() for line in again.stdout.splitlines() if "mood-" in line}
    assert {mood for mood, what in to_do.items() if what == "retry"} == {
        f"mood-{mood}" for mood in ("raises", "exits", "leaves", "killed", "hangs", "spins")
    }
    assert {mood for mood, what in to_do.items() if what == "nothing"} == {"mood-good", "mood-diverges", "mood-fine"}

    (moody / "bad").unlink()
    mended = gan_train(*words, "hydra.launcher.retry=[failed,diverged]")
    assert mended.returncode == 0, mended.stderr
    assert set(states(sweep).values()) == {"completed"}
    for mood in all_moods:
        assert_same_end(moody / "alone", sweep / f"mood-{mood}")


@contextmanager
def at_work(folder: Path, environment, *words: str) -> Iterator["subprocess.Popen[str]"]:
    """A sweep of two seeds at once, when both have saved something; after the block, no process may be left of it."""
    command = [sys.executable, "-m", "gan_runner.train", "-m", "seed=0,1", "name=pair", "hydra.launcher.jobs=2", *words]

    def answer_ctrl_c() -> None:  # a shell's background job, as the tests may be, ignores it
        signal.signal(signal.SIGINT, signal.default_int_handler)

    process = subprocess.Popen(
        command,
        cwd=folder,
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=answer_ctrl_c,  # noqa: PLW1509
    )
    folders = [folder / "outputs/pair" / name / "checkpoints" for name in ("seed-0", "seed-1")]
    end = time.monotonic() + 60
    while not all(saved.is_dir() and any(saved.iterdir()) for saved in folders):
        assert time.monotonic() < end
        assert process.poll() is None
        time.sleep(0.02)
    yield process
    process.wait(30)
    end = time.monotonic() + 30
    while left := processes_in(folder):
        assert time.monotonic() < end, left
        time.sleep(0.1)


def processes_in(folder: Path) -> list[str]:
    """The processes whose working directory is `folder`."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "cwd").resolve() == folder and int(process.name) != os.getpid():
                found.append((process / "cmdline").read_bytes().decode(errors="replace"))
        except OSError:
            continue
    return found


LONG = (
    "trainer.steps=3000",
    "trainer.log_every=50",
    "trainer.sample_every=1500",
    "trainer.evaluate_every=1500",
    "trainer.checkpoint_every=100",
    "device=cpu",
    "doctor=none",
    "metric=[]",
)


def test_a_sweep_that_is_killed_goes_on_where_it_was(gan_train, tmp_path, environment):
    for delay in (0.0, 0.7):
        with at_work(tmp_path, environment, *LONG) as process:
            time.sleep(delay)
            process.kill()
    assert gan_train("-m", "seed=0,1", "name=pair", "hydra.launcher.jobs=2", *LONG).returncode == 0
    for seed in (0, 1):
        assert train(tmp_path / f"alone_{seed}", f"seed={seed}", "name=pair", *LONG) == 0
        assert_same_end(tmp_path / f"alone_{seed}", tmp_path / f"outputs/pair/seed-{seed}")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_sweep_that_is_asked_to_stop_saves_its_jobs(tmp_path, environment, number):
    with at_work(tmp_path, environment, *LONG) as process:
        process.send_signal(number)
        _, err = process.communicate(timeout=30)
    assert process.returncode == 75
    assert "running jobs save themselves" in err
    assert "the same command goes on with this sweep" in err
    assert states(tmp_path / "outputs/pair") == {"seed-0": "interrupted", "seed-1": "interrupted"}
    for seed in (0, 1):
        assert status(tmp_path / f"outputs/pair/seed-{seed}")["state"] == "interrupted"


def test_two_commands_do_not_share_a_sweep(gan_train, tmp_path, environment):
    with at_work(tmp_path, environment, *LONG) as process:
        second = gan_train("-m", "seed=0,1", "name=pair", *LONG)
        process.terminate()
    assert second.returncode == 2
    assert f"another command is at work on this sweep (process {process.pid})" in second.stderr


def test_limits_and_retries(gan_train, moody):
    limited = gan_train(*moods("slow"), "name=limited", *DIGITS, "hydra.launcher.timeout=4")
    assert limited.returncode == 1
    (job,) = jobs(moody / "outputs/limited").values()
    assert job["reason"] == "took longer than hydra.launcher.timeout=4 s"

    again = gan_train(*moods("raises"), "name=again", *DIGITS, "hydra.launcher.retries=2")
    assert again.returncode == 0  # each attempt comes fifteen steps further
    assert again.stderr.count("is tried again") == 2
    (job,) = jobs(moody / "outputs/again").values()
    assert job["attempts"] == 3

    fast = gan_train(*moods("raises", "good"), "name=fast", *DIGITS, "hydra.launcher.fail_fast=true")
    assert fast.returncode == 1
    assert states(moody / "outputs/fast") == {"mood-raises": "failed", "mood-good": "waiting"}


def test_a_full_disk_ends_the_sweep_with_what_is_done_kept(gan_train, moody):
    ended = gan_train(*moods("good", "full", "fine"), "name=full", *DIGITS)
    assert ended.returncode == 1
    assert "the sweep cannot go on: after step 15: [Errno 28] No space left on device" in ended.stderr
    assert states(moody / "outputs/full") == {"mood-good": "completed", "mood-full": "failed", "mood-fine": "waiting"}


def test_jobs_share_out_the_threads_and_keep_their_number(tmp_path, environment):
    del environment["OMP_NUM_THREADS"]
    large = ("experiment=ring_plain", "trainer.batch_size=1000")  # enough work for a hundred threads
    command = [sys.executable, "-m", "gan_runner.train", "-m", "seed=0,1", "name=threads", *large, *STEPS]

    def threads(*words: str) -> list[int]:
        subprocess.run([*command, *words], cwd=tmp_path, env=environment, check=True, capture_output=True)
        manifests = [tmp_path / f"outputs/threads/seed-{seed}/manifest.json" for seed in (0, 1)]
        return [json.loads(manifest.read_text())["machine"]["threads"] for manifest in manifests]

    share = max(1, len(os.sched_getaffinity(0)) // 2)
    assert threads("hydra.launcher.jobs=2") == [share, share]
    assert threads("hydra.launcher.jobs=1", "trainer.steps=40") == [share, share]


def test_a_failed_job_that_has_no_run_directory_keeps_its_log(gan_train, moody):
    (moody / "mine.py").write_text("import os\nprint('farewell', flush=True)\nos._exit(5)\n")
    ended = gan_train(*moods("good"), "name=early", *DIGITS)
    assert ended.returncode == 1
    assert "job: failed after 0 s: ended by itself with exit status 5: farewell" in ended.stderr
    assert [file.name for file in (moody / "outputs/early/job").iterdir()] == ["log.txt"]
    assert (moody / "outputs/early/job/log.txt").read_text() == "farewell\n"


def test_the_same_command_runs_what_is_new(gan_train, tmp_path):
    def told(*words: str) -> list[str]:
        ended = gan_train("-m", "name=grows", *DIGITS, *words)
        assert ended.returncode == 0, ended.stderr
        return [line.partition(": ")[0] for line in ended.stderr.splitlines() if line.endswith((": begins", "goes on"))]

    assert told("loss=lsgan,hinge") == ["loss-lsgan", "loss-hinge"]
    assert told("loss=lsgan,hinge") == []
    assert told("loss=lsgan,hinge", "seed=0,1") == ["loss-lsgan_seed-1", "loss-hinge_seed-1"]
    assert told("loss=hinge,wasserstein") == ["loss-wasserstein"]
    assert told("loss=lsgan", "seed=0,1", "trainer.steps=40") == ["loss-lsgan", "loss-lsgan_seed-1"]
    sweep = tmp_path / "outputs/grows"
    assert {name: job["step"] for name, job in jobs(sweep).items()} == {
        "loss-lsgan": 40,
        "loss-hinge": 30,
        "loss-lsgan_seed-1": 40,
        "loss-hinge_seed-1": 30,
        "loss-wasserstein": 30,
    }


def test_a_folder_for_each_of_two_roots_and_no_fixed_key_in_a_name(gan_train, tmp_path):
    for name in ("data/cats", "data-cats"):
        (tmp_path / name).mkdir(parents=True)
    fixed = [f"{word.split('=')[0]}={word.split('=')[1]}" for word in STEPS]
    ended = gan_train("-m", "dataset=images", "dataset.root=data/cats,data-cats", "dataset.size=16", *fixed)
    assert ended.returncode == 2  # both are empty
    assert "data/cats" in ended.stderr
    roots = ("dataset=images", "dataset.root=data/cats,data-cats")
    planned = gan_train("-m", *roots, *fixed, "hydra.launcher.dry_run=true")
    names = [line.split()[1] for line in planned.stdout.splitlines() if line.startswith("│")]
    assert len(set(names)) == 2
    assert all(name.startswith("root-data-cats") for name in names)
    assert not (tmp_path / "outputs").exists()


def test_a_sweep_without_a_name_is_named_by_the_time(gan_train, tmp_path):
    assert gan_train("-m", "seed=0", *DIGITS).returncode == 0
    (sweep,) = (tmp_path / "outputs").iterdir()
    assert sweep.name.startswith("mnist_mlp_20")
    assert [path.name for path in sweep.iterdir() if path.is_dir()] == ["job"]
