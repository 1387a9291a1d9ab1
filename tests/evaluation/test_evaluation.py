"""A run measures its generator as it trains, and the training is the same as without."""

import json
import math
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor

from gan_runner import console
from gan_runner.config import composition
from gan_runner.config.components import check
from gan_runner.datasets import ArrayDataset, DataFacts
from gan_runner.datasets.mnist import read_idx
from gan_runner.errors import UserError
from gan_runner.evaluation.evaluation import Evaluation
from gan_runner.evaluation.extractors import Classifier, extract, extract_cached
from gan_runner.overrides import command
from gan_runner.runs.directory import read_objective
from gan_runner.status import Outcome, Status
from gan_runner.tensor_files import parse
from tests.conftest import REPOSITORY
from tests.datasets.made_up import idx
from tests.evaluation.conftest import STEPS, evaluate, evaluation
from tests.training import TINY, newest_state, outcome, rows, train, write_images

DIGITS = REPOSITORY / "tests" / "data" / "mnist"

MNIST = ("dataset=mnist", f"dataset.root={DIGITS}", "architecture=mlp_tanh")


def judge(name: str, *, samples: int = 64) -> list[str]:
    """The overrides that measure by one of the tests' own metrics alone."""
    keys = {"_target_": f"tests.judges.{name.capitalize()}", "samples": samples}
    return ["metric=[]", *(f"+metric.{name}.{key}={value}" for key, value in keys.items())]


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
    experiment = check(composition.plain(composition.compose([], "train")))
    evaluation = Evaluation(experiment, experiment.build("dataset"), torch.device("cpu"))
    report = evaluation(lambda z, labels: torch.full((len(z), 6), math.nan), seed=0, with_pictures=True)
    assert report.failures == {"pattern": "ValueError: 1000 of 1000 samples are not finite"}
    assert report.figures == report.pictures == {}


def test_the_traceback_of_a_metric_that_raises_goes_to_the_log_alone(tmp_path, capsys):
    experiment = check(composition.plain(composition.compose(judge("broken"), "train")))
    evaluation = Evaluation(experiment, experiment.build("dataset"), torch.device("cpu"))
    with console.logged() as log:
        evaluation(lambda z, labels: torch.zeros(len(z), 6), seed=0, with_pictures=False)
        log.open(tmp_path / "log.txt")
    written = (tmp_path / "log.txt").read_text()
    assert "judges.py" in written
    assert " ZeroDivisionError: no such luck\n" in written
    assert "Traceback" not in capsys.readouterr().err


def test_an_extractor_that_raises_fails_the_metrics_that_need_it_and_no_other(monkeypatch):
    def fails(*_: object) -> None:
        raise RuntimeError("no eyes")

    monkeypatch.setattr(Classifier, "__call__", fails)
    words = [*MNIST, "metric=[fid,class_balance,neighbours]", "metric.fid.samples=80"]
    experiment = check(composition.plain(composition.compose(words, "train")))
    evaluation = Evaluation(experiment, experiment.build("dataset"), torch.device("cpu"))
    report = evaluation(lambda z, labels: torch.rand(len(z), 1, 28, 28), seed=0, with_pictures=False)
    assert report.failures == dict.fromkeys(("fid", "class_balance"), "RuntimeError: no eyes")
    assert report.figures.keys() == {"memorised", "nearest_distance"}


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


def test_a_sweeper_that_is_not_ours_gets_the_objective(tmp_path, gan_train):
    (tmp_path / "hydra_plugins").mkdir()
    (tmp_path / "hydra_plugins/listening.py").write_text(
        "from hydra.core.plugins import Plugins\n"
        "from hydra.plugins.sweeper import Sweeper\n"
        "class Listening(Sweeper):\n"
        "    def setup(self, *, hydra_context, task_function, config):\n"
        "        self.launcher = Plugins.instance().instantiate_launcher(hydra_context, task_function, config)\n"
        "    def sweep(self, arguments):\n"
        "        for job in self.launcher.launch([[*arguments, f'seed={seed}'] for seed in (0, 1)], 0):\n"
        "            print('returned', job.return_value)\n"
    )
    (tmp_path / "groups/hydra/sweeper").mkdir(parents=True)
    (tmp_path / "groups/hydra/sweeper/listening.yaml").write_text("_target_: hydra_plugins.listening.Listening\n")
    words = ["-m", "hydra/sweeper=listening", "hydra.sweep.dir=sweep", "trainer.steps=10", *TINY]
    done = gan_train("--config-dir=groups", *words)
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
        ([*MNIST, "evaluation.real=held_out"], "evaluation.real=held_out: nothing is held out from these data"),
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


def test_images_that_nothing_knows_are_left_unmeasured_and_it_is_said_what_makes_an_extractor(tmp_path, capsys):
    root = write_images(tmp_path / "images")
    words = ["dataset=images", f"dataset.root={root}", "dataset.size=8", "dataset.channels=1"]
    architecture = ["architecture=mlp_layernorm", "architecture.generator.hidden=[4]"]
    assert train(tmp_path / "run", *words, *architecture, *STEPS) == Status.COMPLETED
    said = capsys.readouterr().err
    assert f"left out for want of an extractor: fid; {command('classifier')} dataset=" in said
    assert not any(tag.startswith("metric/") for row in rows(tmp_path / "run") for tag in row)


def test_digits_are_measured_through_the_classifier_that_ships(tmp_path):
    """The 200 digits have no test split: half of them take the place of a perfect sampler's."""
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


def test_clusters_of_digits_are_measured_as_digits_and_not_by_their_labels(tmp_path):
    """Images are asked for of each cluster, as often as it occurs in the data."""
    words = ["dataset=mnist", f"dataset.root={DIGITS}", "dataset.clusters=7", "architecture=mlp_conditional"]
    words += ["metric=[fid,class_balance]", "metric.fid.samples=200", "metric.class_balance.samples=200"]
    experiment = check(composition.plain(composition.compose(words, "train")))
    dataset, asked = experiment.build("dataset"), []

    def drawn(z, labels):
        asked.append(labels)
        return torch.rand(len(z), 1, 28, 28)

    figures = Evaluation(experiment, dataset, torch.device("cpu"))(drawn, 0, False).figures
    assert figures.keys() == {"fid", "class_kl", "classes_found"}
    assert torch.cat(asked).bincount(minlength=7).tolist() == list(dataset.cluster_sizes)
    experiment = check(composition.plain(composition.compose([*words[:4], "metric=[label_accuracy]"], "train")))
    with pytest.raises(UserError, match=r"label_accuracy: compares .* labels asked for, and these are clusters"):
        Evaluation(experiment, dataset, torch.device("cpu"))


@pytest.fixture
def split_digits(tmp_path):
    """80 digits to train on and 80 others, held out."""
    root = tmp_path / "digits"
    root.mkdir()
    for part, kept in (("train", slice(0, 80)), ("t10k", slice(80, 160))):
        for name, dimensions in (("images-idx3", 3), ("labels-idx1", 1)):
            content = read_idx(DIGITS / f"train-{name}-ubyte.gz", dimensions)[kept].numpy()
            (root / f"{part}-{name}-ubyte").write_bytes(idx(content))
    return root


def test_figures_are_held_against_training_data_or_against_what_is_held_out(split_digits):
    """Of a generator that gives the held-out digits, one by one; copies are looked for in the training data alone."""
    words = ["dataset=mnist", f"dataset.root={split_digits}", "architecture=mlp_tanh", "metric=[fid,neighbours]"]
    words += ["metric.fid.samples=80", "metric.neighbours.samples=80"]
    reports = {}
    for real in ("training", "held_out"):
        experiment = check(composition.plain(composition.compose([*words, f"evaluation.real={real}"], "train")))
        dataset = experiment.build("dataset")
        held_out = dataset.held_out()[torch.arange(80)][0]
        reports[real] = Evaluation(experiment, dataset, torch.device("cpu"))(lambda *_: held_out, 0, False).figures  # noqa: B023
    of_training, of_held_out = reports["training"]["fid"], reports["held_out"]["fid"]
    assert of_held_out.value == pytest.approx(0, abs=1e-3)
    assert of_training.value == pytest.approx(of_held_out.perfect, rel=1e-4)  # the same two sets, the other way round
    assert of_training.value == pytest.approx(of_training.perfect, rel=1e-4)
    assert of_training.value > 1
    assert [(f.real, f.held_out) for f in (of_training, of_held_out)] == [
        ("training data", "data held out from training"),
        ("data held out from training", "training data"),
    ]
    assert [f.real_samples for f in (of_training, of_held_out)] == [80, 80]
    copies = [report["memorised"] for report in reports.values()]
    assert [f.real for f in copies] == ["training data"] * 2
    assert copies[0].value == copies[1].value < 0.2


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
        found = extract_cached(images, Counting(), lambda count, text: told.append(count))
        return [part.tolist() for part in found if part is not None]

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
    for _ in range(2):  # generated ones
        extract(images, Counting(), lambda *_: None)
    assert looks[4:] == [5, 5]


def test_an_evaluation_looks_at_real_images_once_though_nothing_can_be_kept(monkeypatch):
    monkeypatch.setenv("GAN_RUNNER_CACHE", "/dev/null/nowhere")
    looks, look = [], Classifier.__call__

    def counted(classifier: Classifier, images: Tensor) -> tuple[Tensor, Tensor]:
        looks.append(len(images))
        return look(classifier, images)

    monkeypatch.setattr(Classifier, "__call__", counted)
    words = [*MNIST, "metric=[fid,class_balance]", "metric.fid.samples=80", "metric.class_balance.samples=80"]
    experiment = check(composition.plain(composition.compose(words, "train")))
    evaluation = Evaluation(experiment, experiment.build("dataset"), torch.device("cpu"))
    for _ in range(3):
        assert not evaluation(lambda z, labels: torch.rand(len(z), 1, 28, 28), 0, with_pictures=False).failures
    assert sorted(looks) == [
        80,
        80,
        80,
        80,
        200,
    ]  # generated at each; of one half 80; all real ones, the other half too


def test_copies_are_found_whatever_half_of_the_training_data_they_are_of():
    words = [*MNIST, "metric=[neighbours]", "metric.neighbours.samples=100"]
    experiment = check(composition.plain(composition.compose(words, "train")))
    dataset = experiment.build("dataset")
    assert isinstance(dataset, ArrayDataset)
    evaluation = Evaluation(experiment, dataset, torch.device("cpu"))
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
    """A `Progress` that records its calls."""

    heard: ClassVar[list[tuple[int, int, str]]] = []

    def __init__(self, unit: str, total: int, parent: object = None) -> None:
        self.total = total

    def show(self, done: int, text: str) -> None:
        self.heard.append((done, self.total, text))

    def close(self) -> None:
        self.heard.append((-1, self.total, "closed"))


def test_the_work_of_an_evaluation_is_known_before_it_starts(tmp_path, monkeypatch):
    """The steps of the progress add up to its total, in the first evaluation and later."""
    monkeypatch.setenv("GAN_RUNNER_CACHE", str(tmp_path))
    monkeypatch.setattr("gan_runner.evaluation.evaluation.Progress", Hears)
    words = [*MNIST, "metric=[fid,class_balance,neighbours]"]
    words += [f"metric.{name}.samples={n}" for name, n in (("fid", 100), ("class_balance", 100), ("neighbours", 20))]
    experiment = check(composition.plain(composition.compose(words, "train")))
    evaluation = Evaluation(experiment, experiment.build("dataset"), torch.device("cpu"))
    for _ in range(2):
        Hears.heard = []
        report = evaluation(lambda z, labels: torch.rand(len(z), 1, 28, 28), seed=0, with_pictures=False)
        assert report.failures == {}
        *told, (done, total, _), last = Hears.heard
        assert done == total
        assert {announced for _, announced, _ in told} == {total}
        assert [done for done, *_ in told] == sorted(done for done, *_ in told)
        assert last == (-1, total, "closed")
