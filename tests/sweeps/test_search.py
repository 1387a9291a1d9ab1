"""The search itself, on a pool without processes, whose jobs give what a formula says."""

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import optuna
import pytest

from gan_runner.config.composition import JobRequest, parse
from gan_runner.config.schema import Searching
from gan_runner.errors import UserError
from gan_runner.names import job_name
from gan_runner.sweeps.findings import Findings, read_findings
from gan_runner.sweeps.halving import Rungs
from gan_runner.sweeps.jobs import State, Sweep
from gan_runner.sweeps.plan import Task, plan_jobs
from gan_runner.sweeps.report.page import Table, Text
from gan_runner.sweeps.report.search import found_by_search
from gan_runner.sweeps.search import Search
from gan_runner.sweeps.space import Space, dimension
from gan_runner.sweeps.study import JOURNAL, Study, require_optuna

RATE, LOSS = "lr=tag(log,interval(1e-4,1e-2))", "loss=hinge,lsgan"
Objective = Callable[[Mapping[str, str]], float | str | None]  # a value, or the state in which the job ends


def distance(values: Mapping[str, str]) -> float:
    return abs(math.log10(float(values["lr"])) + 3)


def findings(directory: Path) -> Findings:
    found = read_findings(directory)
    assert found is not None
    return found


class Steps:
    """What `Search.watch` needs of a running job."""

    def __init__(self, task: Task) -> None:
        self.task, self.stopped_because = task, None

    def stop(self, because: str) -> None:
        self.stopped_because = because  # type: ignore[assignment]


class Laboratory:
    """A search in a directory, begun anew with each `search()` as by the same command."""

    def __init__(self, directory: Path, *space: str, steps: int = 100, **settings: Any) -> None:
        self.directory, self.sweep, self.steps = directory, Sweep(command=[], swept=[], jobs={}), steps
        self.space: Space = {word.partition("=")[0]: dimension(parse([word])[0]) for word in space}
        defaults = {"trials": 8, "sampler": "tpe", "seed": 0, "halving": None}
        self.settings = Searching.model_validate(defaults | settings)
        self.started: list[str] = []
        directory.mkdir(exist_ok=True)

    def search(self, rungs: Rungs | None = None) -> Search:
        study = Study(self.directory, self.space, self.settings)
        return Search(study, self.directory, self.sweep, self.plan, self, rungs)

    def changed(self, task: Task) -> None:
        self.sweep.jobs[task.name] = task.job

    def show(self, running: Any) -> None: ...

    def plan(self, values: Mapping[str, str]) -> Task:
        config = {**values, "trainer": {"steps": self.steps}, "optimizer": {"schedule": "constant"}}
        return plan_jobs(self.sweep, [JobRequest(dict(values), [], config)], self.directory, (), {*values})[0]

    def start(self, search: Search) -> Task | None:
        task = search.next()
        if task is not None:
            self.started.append(task.name)
            task.job.state = "running"
            self.changed(task)
            (self.directory / task.name / "checkpoints").mkdir(parents=True, exist_ok=True)
            (self.directory / task.name / "config.yaml").touch()
        return task

    def write(self, task: Task, value: float | None, goal: str = "min", step: int = 100) -> None:
        """As a run writes its figures."""
        directory, row = self.directory / task.name, {"step": step, "metric/m": value}
        with (directory / "metrics.jsonl").open("a") as file:
            file.write(json.dumps(row) + "\n")
        objective = {"figure": "metric/m", "goal": goal, "step": step}
        value = None if value is not None and math.isnan(value) else value
        (directory / "evaluation.json").write_text(json.dumps({"objective": {**objective, "value": value}}))

    def end(self, search: Search, task: Task, value: float | str | None, goal: str = "min") -> None:
        task.job.state = value if isinstance(value, str) else "completed"  # type: ignore[assignment]
        task.job.step = self.steps
        status = {"state": task.job.state, "step": self.steps}
        (self.directory / task.name / "status.json").write_text(json.dumps(status))
        if value is not None and not isinstance(value, str):
            self.write(task, value, goal)
        search.ended(task)

    def run(self, objective: Objective, goal: str = "min", jobs: int = 1, ends: int = 1000) -> Search:
        """So many jobs at a time, until so many have ended."""
        search, running = self.search(), list[Task]()
        while ends:
            while len(running) < jobs and (task := self.start(search)) is not None:
                running.append(task)
            if not running:
                search.finish()
                break
            task = running.pop(0)
            self.end(search, task, objective(task.job.swept), goal)
            ends -= 1
        return search

    @property
    def trials(self) -> list[optuna.trial.FrozenTrial]:
        backend = optuna.storages.journal.JournalFileBackend(str(self.directory / JOURNAL))
        storage = optuna.storages.JournalStorage(backend)
        return optuna.load_study(study_name=None, storage=storage).trials


def test_a_search_asks_and_tells_until_its_budget_is_used_up(tmp_path):
    lab = Laboratory(tmp_path, RATE, LOSS)
    lab.run(distance)
    assert len(lab.started) == len(set(lab.started)) == 8
    assert [trial.state.name for trial in lab.trials] == ["COMPLETE"] * 8
    for trial, name in zip(lab.trials, lab.started, strict=True):
        values = {"lr": repr(float(f"{trial.params['lr']:.4g}")), "loss": trial.params["loss"]}
        assert name == job_name(values)
        assert trial.value == distance(values)
    best = min(lab.trials, key=lambda trial: trial.value or 0)
    found = findings(tmp_path)
    assert (found.figure, found.goal) == ("metric/m", "min")
    assert found.space == {"lr": "tag(log,interval(1e-4,1e-2))", "loss": "hinge,lsgan"}
    assert found.best_trial is not None
    assert (found.best, found.best_trial.value) == (best.number, best.value)
    assert [trial.job for trial in found.trials] == lab.started
    assert found.importances["lr"] > 0.9


def test_the_larger_figure_is_better_where_its_goal_says_so(tmp_path):
    lab = Laboratory(tmp_path, RATE)
    lab.run(lambda values: 10 - distance(values), goal="max")
    best = min(lab.started, key=lambda name: distance(lab.sweep.jobs[name].swept))
    found = findings(tmp_path).best_trial
    assert found is not None
    assert found.job == best
    assert found.value == 10 - distance(lab.sweep.jobs[best].swept)


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_the_same_command_goes_on_as_if_it_had_not_been_ended(tmp_path, sampler):
    """With one job at a time all that a trial draws depends on is its number and what was told."""
    one, other = (Laboratory(tmp_path / name, RATE, LOSS, trials=14, sampler=sampler) for name in "ab")
    one.run(distance)
    for ends in (3, 1, 7, 100):
        other.run(distance, ends=ends)
    assert other.started == one.started
    assert [trial.value for trial in other.trials] == [trial.value for trial in one.trials]
    other.settings = other.settings.model_copy(update={"trials": 16})
    other.run(distance)
    assert len(set(other.started)) == len(other.started) == 16


def test_another_seed_is_another_search(tmp_path):
    one, other = Laboratory(tmp_path / "a", RATE, seed=0), Laboratory(tmp_path / "b", RATE, seed=1)
    one.run(distance)
    other.run(distance)
    assert not {*one.started} & {*other.started}


def test_trials_that_ran_when_it_was_killed_are_taken_on_first(tmp_path):
    lab = Laboratory(tmp_path, RATE, trials=6)
    search = lab.search()
    first, second, _ = (lab.start(search) for _ in range(3))
    assert first is not None
    assert second is not None
    lab.end(search, first, 1.0)
    del search  # killed: two are running
    begun = list(lab.started)
    lab.run(distance)
    assert lab.started[3:5] == begun[1:3]
    assert len(lab.started) == 8  # six trials, of which two were started twice
    assert len({*lab.started}) == len(lab.trials) == 6
    assert lab.trials[0].value == 1.0  # not told again


def test_a_job_that_ended_before_its_trial_was_told_is_told_now(tmp_path):
    lab = Laboratory(tmp_path, RATE, trials=1)
    task = lab.start(lab.search())
    assert task is not None
    lab.write(task, 0.25)
    (tmp_path / task.name / "status.json").write_text(json.dumps({"state": "completed", "step": 100}))
    lab.run(distance)
    assert lab.started == [task.name]
    assert lab.sweep.jobs[task.name].state == "completed"
    assert [trial.value for trial in lab.trials] == [0.25]


def test_a_trial_that_was_killed_while_it_was_drawn_is_drawn_to_its_end(tmp_path):
    lab = Laboratory(tmp_path, RATE, LOSS, trials=2)
    study = lab.search().study
    study._study.ask()  # and killed: it has no values yet
    lab.run(distance)
    assert len(lab.started) == len(lab.trials) == 2


def test_a_record_that_a_full_disk_cut_short_is_left_out(tmp_path):
    lab = Laboratory(tmp_path, RATE, trials=4)
    lab.run(distance, ends=2)
    with (tmp_path / JOURNAL).open("ab") as file:
        file.write(b'{"op_code":4,"wor')
    (tmp_path / f"{JOURNAL}.lock").touch()  # which Optuna would wait for
    lab.run(distance)
    assert len(lab.started) == len(lab.trials) == 4


@pytest.mark.parametrize(
    ("ends", "state", "value"),
    [
        ("failed", "FAIL", None),
        ("refused", "FAIL", None),
        (None, "FAIL", None),  # completed without the figure
        ("diverged", "COMPLETE", math.inf),  # the values to keep away from
        (math.nan, "COMPLETE", math.inf),
    ],
)
def test_what_gave_no_figure_is_told_as_such(tmp_path, ends, state, value):
    lab = Laboratory(tmp_path, RATE, trials=4)
    values: list[float | str | None] = [2.0, ends, 1.0, ends]
    lab.run(lambda _: values.pop(0))
    told = [(trial.state.name, trial.value) for trial in lab.trials]
    assert told == [("COMPLETE", 2.0), (state, value), ("COMPLETE", 1.0), (state, value)]
    found = findings(tmp_path)
    assert found.best == 2
    assert [trial.value for trial in found.trials] == [2.0, None, 1.0, None]
    assert found.importances == {}  # of two trials nothing can be said
    lab.run(distance)  # nothing is left, and nothing is tried again
    assert len(lab.started) == 4


@pytest.mark.parametrize("goal", ["min", "max"])
def test_tpe_keeps_away_from_what_diverges(tmp_path, goal):
    """Figures are the better the larger the rate, up to where it diverges; told as failures, all 20 would diverge."""
    lab, sign = Laboratory(tmp_path, RATE, trials=40), -1 if goal == "min" else 1
    lab.run(lambda v: "diverged" if float(v["lr"]) > 1e-3 else sign * math.log10(float(v["lr"])), goal=goal)
    late = [float(lab.sweep.jobs[name].swept["lr"]) > 1e-3 for name in lab.started[-20:]]
    assert sum(late) <= 12


def test_the_same_values_drawn_twice_are_one_job(tmp_path):
    lab = Laboratory(tmp_path, LOSS, "n=range(1,3)", trials=12, sampler="random")
    lab.run(lambda values: float(values["n"]), jobs=3)
    assert len(lab.started) == len({*lab.started}) == len({*lab.sweep.jobs})
    assert len(lab.started) <= 4
    assert len(lab.trials) == 12
    for trial in lab.trials:
        assert trial.value == trial.params["n"]


def test_a_grid_ends_when_all_combinations_were_tried(tmp_path):
    lab = Laboratory(tmp_path, LOSS, "n=range(1,4)", "b=range(0.1,0.4,0.2)", trials=100, sampler="grid")
    lab.run(lambda values: float(values["n"]), ends=5)
    lab.run(lambda values: float(values["n"]), jobs=2)
    expected = [
        {"loss": loss, "n": n, "b": b} for loss in ("hinge", "lsgan") for n in ("1", "2", "3") for b in ("0.1", "0.3")
    ]
    assert lab.started == [job_name(values) for values in expected]


def test_a_combination_that_does_not_compose_is_no_end(tmp_path, capfd):
    lab = Laboratory(tmp_path, LOSS, sampler="grid")
    plan = lab.plan

    def refusing(values: Mapping[str, str]) -> Task:
        if values["loss"] == "hinge":
            raise UserError("loss: does not go with the rest")
        return plan(values)

    lab.plan = refusing  # type: ignore[method-assign]
    lab.run(lambda _: 1.0)
    assert [trial.state.name for trial in lab.trials] == ["FAIL", "COMPLETE"]
    assert "trial 0: refused: loss: does not go with the rest" in capfd.readouterr().err


@pytest.mark.parametrize("words", [("lr=tag(log,interval(1e-4,1e-1))", LOSS), (RATE,), (RATE, LOSS, "n=1,2")])
def test_a_search_of_something_else_is_refused(tmp_path, words):
    lab = Laboratory(tmp_path, RATE, LOSS)
    lab.run(distance, ends=2)
    lab.space = {word.partition("=")[0]: dimension(parse([word])[0]) for word in words}
    with pytest.raises(UserError, match=r"^(lr|loss|n): this search chooses from .*, found "):
        lab.search()


def test_without_optuna_one_sentence_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "optuna", None)
    with pytest.raises(UserError, match=r"pip install 'gan_runner\[search\]'$"):
        require_optuna()


def test_halving_stops_promotes_and_prunes(tmp_path):
    """Four jobs with one rung, factor 2: by hand, the first goes on, b and c wait, and d lets b go on."""
    lab = Laboratory(tmp_path, "n=range(0,4)", sampler="grid", steps=100)
    search = lab.search(Rungs(2, [10]))
    costs, tasks = [1.0, 2.0, 3.0, 4.0], []
    for cost in costs[:3]:
        task = lab.start(search)
        assert task is not None
        tasks.append(task)
        assert come_to_a_rung(lab, search, task, cost) == (cost > 1)
    lab.end(search, tasks[0], 0.5)
    search = lab.search(Rungs(2, [10]))  # as after a kill: b and c still wait
    d = lab.start(search)
    assert d is not None
    assert d.name == "n-3"
    assert come_to_a_rung(lab, search, d, costs[3])
    b = lab.start(search)  # two of four may go on
    assert b is not None
    assert b.name == "n-1"
    assert lab.start(search) is None
    assert not search.finish()  # b is running
    lab.end(search, b, 0.25)
    assert lab.start(search) is None
    assert search.finish()
    assert [(trial.state.name, trial.value) for trial in lab.trials] == [
        ("COMPLETE", 0.5),
        ("COMPLETE", 0.25),
        ("PRUNED", 3.0),
        ("PRUNED", 4.0),
    ]
    kept = [(tmp_path / f"n-{number}" / "checkpoints").exists() for number in range(4)]
    assert kept == [True, True, False, False]
    states: list[State] = ["completed", "completed", "pruned", "pruned"]
    assert [job.state for job in lab.sweep.jobs.values()] == states
    assert findings(tmp_path).best == 1
    lab.sweep.jobs["n-2"].state = "interrupted"  # killed after it was told, before sweep.json was written
    (tmp_path / "n-2" / "checkpoints").mkdir()
    assert lab.search(Rungs(2, [10])).next() is None
    assert lab.sweep.jobs["n-2"].state == "pruned"
    assert not (tmp_path / "n-2" / "checkpoints").exists()


def come_to_a_rung(lab: Laboratory, search: Search, task: Task, cost: float) -> bool:
    """Whether the job was stopped there."""
    lab.write(task, cost, step=10)
    task.job.step, running = 12, Steps(task)
    search.watch([running])  # type: ignore[list-item]
    if running.stopped_because is None:
        return False
    assert running.stopped_because == ""
    task.job.state = "interrupted"
    search.ended(task)
    return True


@pytest.mark.parametrize("goal", ["min", "max"])
def test_the_report_tells_the_best_first_and_what_mattered(tmp_path, goal):
    lab = Laboratory(tmp_path, RATE, LOSS, trials=7)
    values: list[float | str | None] = [5.0, 3.0, "failed", 4.0, 1.0, 2.0, 6.0]
    lab.run(lambda _: values.pop(0), goal=goal)
    said, keys, trials = found_by_search(tmp_path)
    assert isinstance(said, Text)
    assert isinstance(keys, Table)
    assert isinstance(trials, Table)
    best = {"min": 4, "max": 6}[goal]
    drawn = findings(tmp_path).trials[best].values
    assert said.text == (
        f"7 of 7 trials (tpe); the best is trial {best} with metric/m { ({'min': 1, 'max': 6}[goal]) }: "
        f"lr={drawn['lr']}, loss={drawn['loss']}."
    )
    assert [row[:2] for row in keys.rows] == [["lr", "tag(log,interval(1e-4,1e-2))"], ["loss", "hinge,lsgan"]]
    assert sum(int(row[2].removesuffix(" %")) for row in keys.rows) in (99, 100, 101)
    order = [4, 5, 1, 3, 0, 6] if goal == "min" else [6, 0, 3, 1, 5, 4]
    assert [int(row[0]) for row in trials.rows] == [*order, 2]
    assert trials.rows[-1][-2:] == ["failed", ""]
    assert found_by_search(tmp_path / "elsewhere") == []
