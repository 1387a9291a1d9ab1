"""Searches of real trainings, killed and gone on with; what is refused; and the searches in conf/."""

import json
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import optuna
import pytest
import yaml

from gan_runner.config.components import check
from gan_runner.config.composition import SearchRequest, compose_sweep
from gan_runner.sweeps.space import dimension
from tests.conftest import REPOSITORY
from tests.training import assert_same_end

RATE = "optimizer.generator.lr=tag(log,interval(1e-4,1e-2))"
TINY = ("trainer.steps=20", "trainer.batch_size=8", "trainer.log_every=5", "trainer.evaluate_every=10", "device=cpu")
SEARCHES = sorted((REPOSITORY / "conf/hparams_search").glob("*.yaml"))
PAUSE = """
import time

class Pause:
    def __init__(self, seconds: float) -> None:
        self.seconds, self.every = seconds, 1

    def __call__(self, step, networks, row):
        time.sleep(self.seconds)
        return {}
"""


@pytest.fixture
def slow(tmp_path) -> tuple[str, ...]:
    """Words that make each step of a run take some hundredths of a second."""
    (tmp_path / "pause.py").write_text(PAUSE)
    (tmp_path / "groups/observer").mkdir(parents=True)
    (tmp_path / "groups/observer/pause.yaml").write_text("pause: {_target_: pause.Pause, seconds: 0.03}\n")
    return ("--config-dir=groups", "observer=pause")


def jobs(directory: Path) -> dict[str, dict]:
    file = directory / "sweep.json"
    return json.loads(file.read_text())["jobs"] if file.exists() else {}


def trials(directory: Path) -> list[optuna.trial.FrozenTrial]:
    backend = optuna.storages.journal.JournalFileBackend(str(directory / "study.journal"))
    return optuna.load_study(study_name=None, storage=optuna.storages.JournalStorage(backend)).trials


def folders(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir() if path.is_dir()}


def signal_when(is_time, number: int, words: list[str], environment: dict[str, str], cwd: Path) -> int:
    """Starts the command and sends it a signal as soon as `is_time()`; returns its exit status."""
    command = [sys.executable, "-m", "gan_runner.train", *words]
    process = subprocess.Popen(command, cwd=cwd, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    end = time.monotonic() + 60
    while not is_time():
        assert process.poll() is None
        assert time.monotonic() < end
        time.sleep(0.02)
    process.send_signal(number)
    return process.wait(60)


def test_a_killed_search_goes_on_to_its_budget(gan_train, environment, tmp_path, slow):
    words = ["-m", *slow, "hydra/sweeper=search", "name=s", RATE, "loss=hinge,lsgan", *TINY]
    words += ["hydra.sweeper.trials=5", "hydra.launcher.jobs=2", "observer.pause.seconds=0.1"]
    directory = tmp_path / "outputs/s"

    def two_run_after_one() -> bool:
        states = [job["state"] for job in jobs(directory).values()]
        return "completed" in states and states.count("running") == 2

    assert signal_when(two_run_after_one, signal.SIGKILL, words, environment, tmp_path) == -signal.SIGKILL
    running = [name for name, job in jobs(directory).items() if job["state"] == "running"]
    before = trials(directory)
    planned = gan_train(*words, "hydra.launcher.dry_run=true")
    assert planned.returncode == 0, planned.stderr
    left, to_go_on = 5 - len(before), sum(not trial.state.is_finished() for trial in before)
    assert to_go_on >= 2
    assert f"outputs/s: {left} of 5 trials are still to begin, {to_go_on} to go on" in planned.stdout
    assert RATE.partition("=")[2] in planned.stdout

    ended = gan_train(*words)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.splitlines()[-1] == "outputs/s"
    after = trials(directory)
    assert [trial.state.name for trial in after] == ["COMPLETE"] * 5
    assert [trial.params for trial in after[: len(before)]] == [trial.params for trial in before]
    assert {trial.user_attrs["job"] for trial in after} == folders(directory) == set(jobs(directory))
    assert len(folders(directory)) == 5
    attempts = {name: job["attempts"] for name, job in jobs(directory).items()}
    assert attempts.pop(running[-1]) == 2  # it had only begun, and was taken on
    assert attempts.pop(running[0]) in (1, 2)  # the other may have come to its end while it was told to stop
    assert set(attempts.values()) == {1}

    found = json.loads((directory / "search.json").read_text())
    values = [json.loads((directory / t.user_attrs["job"] / "evaluation.json").read_text())["objective"] for t in after]
    assert [row["value"] for row in found["trials"]] == [trial.value for trial in after]
    assert [row["value"] for row in found["trials"]] == [value["value"] for value in values]
    best = found["trials"][found["best"]]
    assert best["value"] == min(value["value"] for value in values)
    assert f"5 of 5 trials (tpe); the best is trial {found['best']} " in (directory / "report.md").read_text()

    again = next(line for line in ended.stdout.splitlines() if line.startswith("again: gan-train "))
    alone = gan_train(*shlex.split(again)[2:], "name=s", "hydra.run.dir=alone")
    assert alone.returncode == 0, alone.stderr
    assert_same_end(directory / best["job"], tmp_path / "alone")


def test_a_promoted_trial_ends_as_if_it_had_not_been_stopped(gan_train, environment, tmp_path, slow):
    """Four rates, the best first, and one rung: the first goes on, the others wait, the fourth promotes the second.

    Ctrl-C stops the search while the fourth runs.
    """
    words = ["-m", *slow, "hydra/sweeper=search", "hydra.sweeper.sampler=grid", "name=s", "device=cpu"]
    words += ["optimizer.generator.lr=1e-3,3e-4,1e-4,1e-5", "hydra.sweeper.halving={factor: 2, first: 0.5}"]
    words += ["trainer.steps=120", "trainer.evaluate_every=30", "trainer.objective=metric/pattern_distance"]
    words += ["trainer.checkpoint_every=50", "trainer.log_every=10", "trainer.ema_decay=null"]
    directory = tmp_path / "outputs/s"

    def fourth_runs() -> bool:
        file = directory / "lr-1e-05/metrics.jsonl"
        return file.exists() and file.stat().st_size > 0

    assert signal_when(fourth_runs, signal.SIGINT, words, environment, tmp_path) == 75
    stopped = jobs(directory)["lr-0.0003"]
    assert (stopped["state"], stopped["reason"]) == ("interrupted", "not among the best 1/2 at step 60")
    assert 60 <= stopped["step"] < 120
    ended = gan_train(*words)
    assert ended.returncode == 0, ended.stderr
    states = {name: job["state"] for name, job in jobs(directory).items()}
    assert states == {"lr-0.001": "completed", "lr-0.0003": "completed", "lr-0.0001": "pruned", "lr-1e-05": "pruned"}
    assert jobs(directory)["lr-0.0003"]["attempts"] == 2
    for name in ("lr-0.0001", "lr-1e-05"):
        assert (directory / name / "generator.safetensors").exists()
        assert not (directory / name / "checkpoints").exists()
    overrides = jobs(directory)["lr-0.0003"]["overrides"]
    alone = gan_train(slow[0], *overrides, "hydra.run.dir=alone")
    assert alone.returncode == 0, alone.stderr
    assert_same_end(directory / "lr-0.0003", tmp_path / "alone")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([RATE], "optimizer.generator.lr=tag(log,interval(1e-4,1e-2)): has no end of values, which needs a search"),
        (["hydra/sweeper=search", RATE, "hydra.sweeper.sampler=grid"], "optimizer.generator.lr: tag(log,"),
        (["hydra/sweeper=search"], "hydra.sweeper.params: "),
        (["hydra/sweeper=search", RATE, "hydra.sweeper.trials=0"], "hydra.sweeper.trials: "),
        (["hydra/sweeper=search", RATE, "hydra.sweeper.trails=5"], "hydra.sweeper.trails: no such key; did you mean"),
        (
            ["hydra/sweeper=search", RATE, "hydra.sweeper.halving={factor: 3, first: 5}"],
            "hydra.sweeper.halving.first=5",
        ),
        (["hydra/sweeper=search", RATE, "loss=hinge,hing"], "loss=hing: no such loss; did you mean 'hinge'"),
        (["hydra/sweeper=search", RATE, "metric=[]"], "trainer.objective: "),
        (["hydra/sweeper=search", RATE, "resume=a"], "resume: "),
        (["hydra/sweeper=search", RATE, "trainer.steps=many"], "trainer.steps: found 'many'"),
        (["hydra/sweeper=search", RATE, "trainer.batch_size=8,0"], "trainer.batch_size: found 0"),
        (["hydra/sweeper=search", RATE, "hydra/launcher=basic"], "hydra/launcher: a search "),
        (["hparams_search=rings"], "hparams_search=rings: no such hparams_search; did you mean 'ring'"),
    ],
)
def test_what_cannot_be_searched_is_refused(refused, words, said):
    assert said in refused("-m", "name=s", *words)


def test_a_search_without_optuna_is_refused(refused, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    assert refused("-m", "hydra/sweeper=search", RATE).endswith("pip install 'gan_runner[search]'")


def test_other_commands_do_not_search(typed):
    ended = typed("-m", "hydra/sweeper=search", "run=a,b", command="sample")
    assert ended.status == 2
    assert ended.err.startswith("error: hydra/sweeper=search: ")


def test_a_dry_run_leaves_nothing(typed):
    ended = typed("-m", "hparams_search=ring", "name=s", "hydra.launcher.dry_run=true")
    assert (ended.status, list(Path().iterdir())) == (0, [])
    assert "outputs/s: 20 of 20 trials are still to begin, 0 to go on" in ended.out


@pytest.mark.parametrize("path", SEARCHES, ids=lambda path: path.stem)
def test_every_search_composes_with_each_of_its_values(path):
    request = compose_sweep([f"hparams_search={path.stem}"], "train", None)
    assert isinstance(request, SearchRequest)
    params = yaml.safe_load(path.read_text())["hydra"]["sweeper"]["params"]
    assert [*request.space] == [*params]
    ends = {}
    for key, override in request.space.items():
        some = dimension(override)
        ends[key] = [*map(some.word, some.values or [some.low, some.high])]  # type: ignore[union-attr, arg-type]
    first = {key: values[0] for key, values in ends.items()}
    for key, values in ends.items():
        for value in values:
            config = check(request.job(first | {key: value}).plain).config
            assert config.trainer.objective is not None
    assert path.read_text().splitlines()[1].startswith(f"# gan-train -m hparams_search={path.stem} ")
