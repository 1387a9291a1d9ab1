"""A run measures its generator as it trains, and afterwards, without a trace in the training."""

import json
import math
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor

from gan_runner.commands.evaluate import evaluate_runs
from gan_runner.commands.status import Outcome, Status
from gan_runner.config import composition
from gan_runner.config.components import check
from gan_runner.datasets import ArrayDataset, DataFacts
from gan_runner.errors import UserError
from gan_runner.evaluation.evaluation import Evaluation, Looking
from gan_runner.evaluation.extractors import Classifier
from gan_runner.runs.building import build_dataset
from gan_runner.runs.checkpoint import parse
from gan_runner.runs.directory import RunDirectory, read_objective
from tests.training import TINY, newest_state, outcome, rows, train, write_images

DIGITS = Path(__file__).parent / "data" / "mnist"
MNIST = ("dataset=mnist", f"dataset.root={DIGITS}", "architecture=mlp_tanh")
STEPS = ("trainer.steps=40", "trainer.evaluate_every=10", "trainer.checkpoint_every=20", *TINY)


def judge(name: str, *, samples: int = 64) -> list[str]:
    """The overrides that measure by one of the tests' own metrics alone."""
    keys = {"_target_": f"tests.judges.{name.capitalize()}", "samples": samples}
    return ["metric=[]", *(f"+metric.{name}.{key}={value}" for key, value in keys.items())]


def evaluation(run: Path) -> dict:
    return json.loads((run / "evaluation.json").read_text())


def evaluate(*overrides: str) -> int:
    return evaluate_runs(composition.plain(composition.compose(["device=cpu", *map(str, overrides)], "evaluate")))


@pytest.fixture(scope="module")
def measured(tmp_path_factory) -> Path:
    run = tmp_path_factory.mktemp("measured") / "run"
    assert train(run, *STEPS) == Status.COMPLETED
    return run


def test_every_figure_says_what_it_rests_on(measured):
    found = evaluation(measured)
    assert found["step"] == 40
    assert found["failures"] == {}
    assert found["figures"].keys() == {"pattern_error", "pattern_distance"}
    figure = found["figures"]["pattern_error"]
    assert figure["metric"] == "pattern"
    assert figure["goal"] == "min"
    assert figure["perfect"] == 0  # no sample of the data is outside the data's range
    assert figure["samples"] == figure["perfect_samples"] == 1000
    assert figure["held_out"] == "fresh samples"
    assert figure["extractor"] is None
    assert rows(measured)[-1]["metric/pattern_error"] == figure["value"]


def test_the_figures_are_drawn_and_shown(measured, tmp_path):
    with Image.open(measured / "metrics.png") as chart:
        assert chart.size == (800, 300)
    events = EventAccumulator(str(measured))
    events.Reload()
    assert [event.step for event in events.Images("metric/chart")] == [40]
    train(tmp_path / "unmeasured", *STEPS, "metric=[]")
    assert not (tmp_path / "unmeasured" / "metrics.png").exists()


def test_it_is_measured_when_asked_and_at_the_end(tmp_path):
    train(tmp_path / "run", *STEPS, "trainer.evaluate_every=15")
    assert [row["step"] for row in rows(tmp_path / "run") if "metric/pattern_error" in row] == [15, 30, 40]


def test_measuring_leaves_no_trace_in_the_training(tmp_path, measured):
    """Weights, optimizers, average and losses, bit for bit, in a network with dropout and batch norm."""
    changes = ["architecture.generator.dropout=0.5", "architecture.generator.normalization=batch"]
    for name, more in {"with": judge("mean"), "without": ["metric=[]"]}.items():
        assert train(tmp_path / name, *STEPS, *changes, *more) == Status.COMPLETED
    one, other = (newest_state(tmp_path / name) for name in ("with", "without"))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[key], other[key]) for key in one)
    of_training = [
        [{k: v for k, v in row.items() if not k.startswith("metric/")} for row in rows(tmp_path / name)]
        for name in ("with", "without")
    ]
    assert [r for r in of_training[0] if len(r) > 1] == of_training[1]
    assert any("metric/mean" in row for row in rows(tmp_path / "with"))


def test_a_metric_that_raises_is_recorded_and_survived(tmp_path, capsys):
    run = tmp_path / "run"
    ended = outcome(run, *STEPS, *judge("broken"), *judge("mean")[1:])
    assert ended == Outcome(Status.COMPLETED, None)  # the first metric is the objective: there is none
    assert evaluation(run)["failures"] == {"broken": "ZeroDivisionError: no such luck"}
    assert evaluation(run)["figures"].keys() == {"mean_gap", "mean"}
    assert capsys.readouterr().err.count("metric broken failed: ZeroDivisionError: no such luck") == 4
    assert not any("metric/broken" in row for row in rows(run))


def test_samples_that_are_not_finite_fail_every_metric_and_nothing_else():
    config = check(composition.plain(composition.compose([], "train"))).config
    evaluation = Evaluation(config, build_dataset(config), torch.device("cpu"))
    report = evaluation(lambda z, labels: torch.full((len(z), 6), math.nan), seed=0, with_pictures=True)
    assert report.failures == {"pattern": "ValueError: 1000 of 1000 samples are not finite"}
    assert report.figures == report.pictures == {}


def test_an_undefined_figure_is_no_failure(tmp_path):
    run = tmp_path / "run"
    ended = outcome(run, *STEPS, *judge("undefined"))
    assert ended.status == Status.COMPLETED
    assert ended.objective is not None
    assert math.isnan(ended.objective)
    found = evaluation(run)
    assert found["failures"] == {}
    assert found["figures"]["undefined"]["value"] is None
    json.loads((run / "evaluation.json").read_text(), parse_constant=pytest.fail)  # JSON has no NaN


@pytest.mark.parametrize("every", [10, 15, 100])
def test_the_objective_is_returned_and_its_best_checkpoint_kept(tmp_path, every):
    run = tmp_path / "run"
    words = [f"trainer.evaluate_every={every}", "trainer.objective=metric/mean_gap", *judge("mean")]
    ended = outcome(run, *STEPS, *words)
    values = {row["step"]: row["metric/mean_gap"] for row in rows(run) if "metric/mean_gap" in row}
    assert max(values) == 40
    best = min(values, key=lambda step: (values[step], -step))
    assert ended == Outcome(Status.COMPLETED, values[best])
    assert read_objective(run) == values[best]
    assert evaluation(run)["objective"] == {
        "figure": "metric/mean_gap",
        "goal": "min",
        "value": values[best],
        "step": best,
    }
    file = run / "checkpoints" / "best.safetensors"
    in_turn = [step for step in values if step % every == 0]
    assert file.exists() == bool(in_turn)
    if in_turn:  # a longer run would not have had the last one
        assert parse(file.read_bytes(), file)["step"] == min(in_turn, key=lambda step: (values[step], -step))
    # What is measured of that checkpoint afterwards is what was measured when it was written.
    assert evaluate(f"run={run}", "checkpoint=best", "trust=[tests]") == Status.COMPLETED
    again = evaluation(run)
    assert again["step"] == best
    assert again["figures"]["mean_gap"]["value"] == pytest.approx(values[best])
    assert again["objective"]["value"] == values[best]  # what the training found stays


def test_a_sweep_gets_the_objective(tmp_path, gan_train):
    """What Hydra's sweepers optimize is what a job returns, of which a callback hears."""
    (tmp_path / "listening.py").write_text(
        "from hydra.experimental.callback import Callback\n"
        "class Listening(Callback):\n"
        "    def on_job_end(self, config, job_return, **_):\n"
        "        print('returned', job_return.return_value)\n"
    )
    words = ["-m", "seed=0,1", "hydra.sweep.dir=sweep", "trainer.steps=10", *TINY]
    done = gan_train(*words, "+hydra.callbacks.listening._target_=listening.Listening")
    assert done.returncode == 0, done.stderr
    for run in (tmp_path / "sweep").glob("seed*"):
        assert f"returned {read_objective(run)}\n" in done.stdout
    assert done.stdout.count("returned ") == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["metric=[modes]"], "metric.modes: "),
        (["trainer.objective=metric/pattern_eror"], "did you mean 'metric/pattern_error'?"),
        (["trainer.objective=loss/generator"], "trainer.objective=loss/generator: no such figure"),
        (["metric.pattern.samples=0"], "metric.pattern.samples: found 0"),
        (["+metric.pattern.sample=3"], "metric.pattern.sample: PatternError has no such key; did you mean 'samples'?"),
        (["evaluation.extractor=nowhere.safetensors"], "evaluation.extractor=nowhere.safetensors: cannot be read"),
        (["evaluation.extractor=digits"], "evaluation.extractor=digits: allowed: auto, a classifier (.safetensors)"),
        ([*MNIST, "metric=[fid]", "metric.fid.samples=50"], "metric.fid.samples is 50; allowed: at least 65"),
        ([*MNIST, "metric=[fid]", "evaluation.real_samples=3"], "evaluation.real_samples is 3; metric.fid needs"),
        (
            [*MNIST, "metric=[fid]", "+metric.other={_target_:gan_runner.metrics.FID,samples:200}"],
            "metric.other: computes 'fid', and so does metric.fid",
        ),
        (
            judge("goalless"),
            "metric.goalless._target_: tests.judges.Goalless does not define what every Metric must: goals",
        ),
    ],
)
def test_a_mistake_is_refused_before_anything_is_written(tmp_path, capsys, words, message):
    try:
        assert train(tmp_path / "run", *TINY, *words) == Status.REFUSED
        said = capsys.readouterr().err
    except UserError as error:
        said = str(error)
    assert message in said
    assert not (tmp_path / "run").exists()


def test_what_is_measured_afterwards_is_what_was_measured_at_the_end(measured, capsys):
    before = evaluation(measured)
    assert evaluate(f"run={measured}") == Status.COMPLETED
    after = evaluation(measured)
    assert after["figures"] == before["figures"]
    out = capsys.readouterr().out
    assert "pattern_error" in out
    assert out.splitlines()[-1] == str(measured)


def test_another_seed_and_another_number_of_samples(measured):
    assert evaluate(f"run={measured}", "metric=pattern", "metric.pattern.samples=50", "seed=3") == Status.COMPLETED
    assert evaluation(measured)["figures"]["pattern_distance"]["samples"] == 50
    assert evaluation(measured)["seed"] == 3


def test_several_runs_make_a_table(tmp_path, capsys):
    for seed in range(2):
        train(tmp_path / f"seed_{seed}", *STEPS, f"seed={seed}")
    train(tmp_path / "broken", *STEPS)
    (tmp_path / "broken" / "generator.safetensors").unlink()
    assert evaluate(f"runs={tmp_path}") == Status.FAILED
    lines = capsys.readouterr().out.splitlines()
    for seed in range(2):
        value = evaluation(tmp_path / f"seed_{seed}")["figures"]["pattern_distance"]["value"]
        assert any(f"seed_{seed}" in line and f"{value:.4g}" in line for line in lines)
    assert any("broken" in line and "not measured" in line for line in lines)
    assert any("a perfect sampler" in line for line in lines)


def test_the_table_shows_paths_as_they_are_and_what_was_not_asked_for_as_nothing(tmp_path, capsys):
    train(tmp_path / "one", *STEPS)
    (tmp_path / "one").rename(tmp_path / "one[old]")
    train(tmp_path / "other", *STEPS, "dataset=ring", "architecture=mlp_points", "metric.modes.samples=50")
    assert evaluate(f"runs={tmp_path}") == Status.COMPLETED
    one, other, perfect = (
        [cell.strip() for cell in line.split("│")[1:-1]] for line in capsys.readouterr().out.splitlines() if "│" in line
    )
    figures = evaluation(tmp_path / "other")["figures"]
    assert one[0].endswith("one[old]")
    assert one[3:] == [""] * len(figures)
    assert other[1:4] == ["", "", f"{figures['modes']['value']:.4g}"]
    assert perfect[:4] == ["a perfect sampler", "0", "0", f"{figures['modes']['perfect']:.4g}"]


def test_a_damaged_evaluation_is_refused_before_the_work(tmp_path, capsys):
    train(tmp_path / "run", *STEPS)
    (tmp_path / "run" / "evaluation.json").write_text('{"objective": ')
    capsys.readouterr()
    with pytest.raises(UserError, match=r"evaluation\.json: cannot be read"):
        evaluate(f"run={tmp_path / 'run'}")
    assert capsys.readouterr().err == ""


def test_the_step_is_that_of_the_weights(tmp_path):
    """A run that failed or diverged has come further than its last save."""
    train(tmp_path / "run", *STEPS)
    (tmp_path / "run" / "status.json").write_text('{"state": "diverged", "step": 57}')
    evaluate(f"run={tmp_path / 'run'}")
    assert evaluation(tmp_path / "run")["step"] == 40


def test_a_run_at_work_is_left_to_measure_itself(tmp_path):
    run = tmp_path / "run"
    train(run, *STEPS)
    before = evaluation(run)
    directory = RunDirectory(run)
    with pytest.raises(UserError, match="is in use by another run"):
        evaluate(f"run={run}", "metric=[pattern]", "metric.pattern.samples=5")
    directory.release()
    assert evaluation(run) == before
    assert evaluate(f"run={run}") == Status.COMPLETED


def test_figures_that_cannot_be_kept_are_shown(tmp_path, capsys, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    train(tmp_path / "run", *STEPS)
    monkeypatch.setattr(RunDirectory, "write_json", full)
    capsys.readouterr()
    assert evaluate(f"run={tmp_path / 'run'}") == Status.FAILED
    told = capsys.readouterr()
    assert "pattern_distance" in told.out
    assert "the evaluation is not kept: No space left on device" in told.err


def test_a_place_where_nothing_can_be_written_is_told_before_the_work(tmp_path, capsys):
    run = tmp_path / "run"
    train(run, *STEPS)
    (run / ".lock").unlink()
    (run / ".lock").mkdir()
    capsys.readouterr()
    with pytest.raises(UserError, match="nothing can be written there"):
        evaluate(f"run={run}")


def test_a_path_may_begin_at_home_or_be_a_number(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    train(tmp_path / "7", *STEPS)
    for words in (["run='~/7'"], ["runs='~/7'"], ["run=7"], ["runs=[7]"]):
        assert evaluate(*words) == Status.COMPLETED


def test_other_data_than_the_run_was_trained_on_are_refused(tmp_path):
    run = tmp_path / "run"
    train(run, *STEPS)
    manifest = json.loads((run / "manifest.json").read_text())
    manifest["data"]["fingerprint"] = "0" * 64
    (run / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(UserError, match="other data"):
        evaluate(f"run={run}")


@pytest.mark.parametrize(
    "words",
    [[], ["run=a", "runs=b"], ["runs=nowhere"], ["run=nowhere"], ["runs=[]"], ["run="], ["runs="], ["runs=['']"]],
)
def test_what_is_to_be_measured_must_be_said(words):
    with pytest.raises(UserError):
        evaluate(*words)


def test_images_that_nothing_knows_are_left_unmeasured_and_it_is_said_what_makes_an_extractor(tmp_path, capsys):
    root = write_images(tmp_path / "images")
    words = ["dataset=images", f"dataset.root={root}", "dataset.size=8", "dataset.channels=1"]
    architecture = ["architecture=mlp_layernorm", "architecture.generator.hidden=[4]"]
    assert train(tmp_path / "run", *words, *architecture, *STEPS) == Status.COMPLETED
    said = capsys.readouterr().err
    assert "left out for want of an extractor: fid; python -m gan_runner.classifier dataset=" in said
    assert not any(tag.startswith("metric/") for row in rows(tmp_path / "run") for tag in row)


def test_digits_are_measured_through_the_classifier_that_ships(tmp_path):
    """The 200 digits have no test split: half of them stand for what a perfect sampler would have drawn."""
    run = tmp_path / "run"
    metrics = ["fid", "class_balance", "label_accuracy"]
    words = ["dataset=mnist", f"dataset.root={DIGITS}", "architecture=mlp_conditional"]
    words += [f"metric=[{','.join(metrics)}]", *(f"metric.{name}.samples=90" for name in metrics)]
    assert train(run, *words, *STEPS, "trainer.steps=10") == Status.COMPLETED
    figures = evaluation(run)["figures"]
    assert figures.keys() == {"fid", "class_kl", "classes_found", "label_accuracy", "class_diversity"}
    assert all(figure["extractor"] == "digits" and len(figure["extractor_hash"]) == 64 for figure in figures.values())
    assert {figure["held_out"] for figure in figures.values()} == {
        "half of the training data, held against the other half"
    }
    assert {name: (figure["samples"], figure["real_samples"]) for name, figure in figures.items()} == {
        "fid": (90, 200),
        "class_kl": (90, 200),
        "classes_found": (90, 200),
        "label_accuracy": (90, 90),
        "class_diversity": (90, 90),
    }
    assert figures["label_accuracy"]["perfect"] > 0.98  # real digits, read as what they are
    assert figures["label_accuracy"]["value"] < 0.5  # noise, after ten steps
    assert figures["fid"]["value"] > 10 * figures["fid"]["perfect"]
    assert (run / "evaluation" / "samples.png").exists()


def test_real_images_are_looked_at_once(tmp_path, monkeypatch):
    monkeypatch.setenv("GAN_RUNNER_CACHE", str(tmp_path))
    looks = []

    class Counting:
        name, hash, features, classes = "counting", "1" * 64, 2, 3

        def __call__(self, images: Tensor) -> tuple[Tensor, Tensor]:
            looks.append(len(images))
            return images.flatten(1)[:, :2].contiguous(), torch.arange(len(images)) % 3

    images, told = torch.rand(5, 1, 4, 4), []

    def look(images: Tensor) -> list[list[float]]:
        extractor = Looking(Counting(), lambda count, text: told.append(count), remembers=True)  # of another run each
        return [part.tolist() for part in extractor(images) if part is not None]

    first, again = look(images), look(images)
    assert looks == [5]
    assert first == again == [images.flatten(1)[:, :2].tolist(), [0, 1, 2, 0, 1]]
    look(images[:4])
    images[0, 0, 0, 0] += 1e-6
    look(images)
    assert looks == [5, 4, 5]
    for file in (tmp_path / "features").iterdir():
        file.write_bytes(b"damaged")
    look(images)
    assert looks == [5, 4, 5, 5]
    assert told == [5, 5, 4, 5, 5]  # what is remembered is done, too
    generated = Looking(Counting(), lambda *_: None, remembers=False)
    generated(images)
    generated(images)
    assert looks[4:] == [5, 5]


def test_an_evaluation_looks_at_real_images_once_though_nothing_can_be_kept(monkeypatch):
    monkeypatch.setenv("GAN_RUNNER_CACHE", "/dev/null/nowhere")
    looks, look = [], Classifier.__call__

    def counted(classifier: Classifier, images: Tensor) -> tuple[Tensor, Tensor]:
        looks.append(len(images))
        return look(classifier, images)

    monkeypatch.setattr(Classifier, "__call__", counted)
    words = [*MNIST, "metric=[fid,class_balance]", "metric.fid.samples=80", "metric.class_balance.samples=80"]
    config = check(composition.plain(composition.compose(words, "train"))).config
    evaluation = Evaluation(config, build_dataset(config), torch.device("cpu"))
    for _ in range(3):
        assert not evaluation(lambda z, labels: torch.rand(len(z), 1, 28, 28), 0, with_pictures=False).failures
    assert sorted(looks) == [80, 80, 80, 80, 100, 200]  # generated at each; all real ones, one half and of the other 80


def test_copies_are_found_whatever_half_of_the_training_data_they_are_of():
    words = [*MNIST, "metric=[neighbours]", "metric.neighbours.samples=100"]
    config = check(composition.plain(composition.compose(words, "train"))).config
    dataset = build_dataset(config)
    assert isinstance(dataset, ArrayDataset)
    evaluation = Evaluation(config, dataset, torch.device("cpu"))
    for half in dataset.order(0, 0).split(100):
        copies = DataFacts.of(dataset).in_data_units(dataset[half][0])
        memorised = evaluation(lambda *_, half=copies: half, 0, with_pictures=False).figures["memorised"]
        assert memorised.value == 1
        assert memorised.perfect == pytest.approx(0.02)


def test_a_perfect_sampler_of_fewer_samples_is_said_to_be_one(tmp_path, capsys):
    words = ["metric=[fid]", "metric.fid.samples=150", "trainer.steps=5"]
    train(tmp_path / "run", *MNIST, *TINY, *words)
    perfect = evaluation(tmp_path / "run")["figures"]["fid"]["perfect"]
    assert f"(a perfect sampler {perfect:.4g} at N 100, N 150, digits" in capsys.readouterr().out


class Hears:
    """A `Progress` that keeps what it is shown."""

    heard: ClassVar[list[tuple[int, int, str]]] = []

    def __init__(self, unit: str, total: int, part_of: object = None) -> None:
        self.total = total

    def show(self, done: int, text: str) -> None:
        self.heard.append((done, self.total, text))

    def close(self) -> None:
        self.heard.append((-1, self.total, "closed"))


def test_the_work_of_an_evaluation_is_known_before_it_starts(tmp_path, monkeypatch):
    """All that is drawn, looked at and measured adds up to what was announced, in the first evaluation and later."""
    monkeypatch.setenv("GAN_RUNNER_CACHE", str(tmp_path))
    monkeypatch.setattr("gan_runner.evaluation.evaluation.Progress", Hears)
    words = [*MNIST, "metric=[fid,class_balance,neighbours]"]
    words += [f"metric.{name}.samples={n}" for name, n in (("fid", 100), ("class_balance", 100), ("neighbours", 20))]
    config = check(composition.plain(composition.compose(words, "train"))).config
    evaluation = Evaluation(config, build_dataset(config), torch.device("cpu"))
    for _ in range(2):
        Hears.heard = []
        report = evaluation(lambda z, labels: torch.rand(len(z), 1, 28, 28), seed=0, with_pictures=False)
        assert report.failures == {}
        *told, (done, total, _), last = Hears.heard
        assert done == total
        assert {announced for _, announced, _ in told} == {total}
        assert [done for done, *_ in told] == sorted(done for done, *_ in told)
        assert last == (-1, total, "closed")
