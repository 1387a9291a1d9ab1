"""The algorithm against plain loops written out here, on the same initial weights, batches and noise."""

import math
import re
import shutil

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from gan_runner.batches import learning_rate_factor
from gan_runner.config import composition
from gan_runner.config.components import Experiment, check
from gan_runner.datasets import DataFacts
from gan_runner.randomness import rng
from gan_runner.runs.building import build_state
from gan_runner.state import State
from gan_runner.status import Status
from tests.training import assert_same_end, newest_state, rows, train

# Batch norm in both networks, so that what is seen together and how often is seen in the result.
OVERRIDES = (
    "dataset=pattern",
    "architecture=mlp_points",
    "architecture.latent={dim:8,distribution:uniform,loc:-1.0,scale:2.0}",
    "architecture.generator.hidden=[8]",
    "architecture.generator.normalization=batch",
    "architecture.discriminator.hidden=[8]",
    "architecture.discriminator.normalization=batch",
    "loss=nonsaturating",
    "optimizer=sgd",
    "optimizer.generator.lr=0.1",
    "optimizer.discriminator.lr=0.3",
    "trainer.batch_size=16",
    "trainer.ema_decay=null",
    "trainer.sample_every=100",
    "device=cpu",
)
GENTLE = ("optimizer=adam", "optimizer.generator.lr=0.001", "optimizer.discriminator.lr=0.001")
STEPS = 4


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def experiment_of(*overrides: str) -> Experiment:
    return check(composition.plain(composition.compose(overrides, "train")))


def initial_state(experiment: Experiment) -> State:
    return build_state(experiment, DataFacts.of(experiment.build("dataset")), torch.device("cpu"))


class ByHand:
    """The same experiment as a script: nothing of the runner but the initial networks and the streams of randomness."""

    def __init__(self, experiment: Experiment) -> None:
        self.config, self.settings = experiment.config, experiment.config.trainer
        self.data, state = experiment.build("dataset"), initial_state(experiment)
        self.generator, self.discriminator = state.generator.module, state.discriminator.module
        self.ema: list[torch.Tensor] = []
        self.clip, self.r1, self.seen = self.settings.gradient_clip, 0.0, 0
        for step in range(1, self.settings.steps + 1):
            self.step(step)

    def rate(self, step: int) -> float:
        optimizer, steps = self.config.optimizer, self.settings.steps
        decay = {"linear": 1 - (step - 1) / steps, "cosine": 0.5 * (1 + math.cos(math.pi * (step - 1) / steps))}
        return decay.get(optimizer.schedule, 1.0) * min(1.0, step / (optimizer.warmup_steps + 1))

    def draw(self, noise: torch.Generator) -> torch.Tensor:
        return torch.rand(16, 8, generator=noise) * 2 - 1

    def step(self, step: int) -> None:
        noise = rng(0, "noise", step)
        for _ in range(self.settings.discriminator_steps):
            real, _ = self.data.batch(self.seen, 16, 0)
            z = self.draw(noise)
            self.update_discriminator(real, z, 0.3 * self.rate(step))
            self.seen += 1
        if step <= self.settings.generator_start:
            return
        z = z if self.settings.generator_noise == "reused" else self.draw(noise)
        logits = self.discriminator(self.generator(z))
        self.loss_generator = F.binary_cross_entropy_with_logits(logits, torch.ones(16))
        self.descend(self.generator, self.loss_generator, 0.1 * self.rate(step))
        weights = [p.detach().clone() for p in self.generator.parameters()]
        decay = self.settings.ema_decay or 0.0
        average = self.ema or weights
        self.ema = [decay * a + (1 - decay) * w for a, w in zip(average, weights, strict=True)]

    def update_discriminator(self, real: torch.Tensor, z: torch.Tensor, rate: float) -> None:
        def real_term(logits):
            return F.binary_cross_entropy_with_logits(logits, torch.ones(16))

        def fake_term(logits):
            return F.binary_cross_entropy_with_logits(logits, torch.zeros(16))

        if self.settings.discriminator_update == "separate":
            self.real = self.discriminator(real)
            self.descend(self.discriminator, real_term(self.real), rate)
            self.fake = self.discriminator(self.generator(z).detach())
            self.descend(self.discriminator, fake_term(self.fake), rate)
            return
        fake = self.generator(z).detach()
        if self.settings.discriminator_forward == "concatenated":
            self.real, self.fake = self.discriminator(torch.cat([real, fake])).split(16)
        else:
            self.real, self.fake = self.discriminator(real), self.discriminator(fake)
        loss = real_term(self.real) + fake_term(self.fake)
        r1 = self.config.regularizer.get("r1")
        if r1 and self.seen % r1["interval"] == 0:
            x = real.clone().requires_grad_()
            (gradient,) = torch.autograd.grad(self.discriminator(x).sum(), x, create_graph=True)
            penalty = r1["weight"] / 2 * (gradient**2).sum() / 16
            loss = loss + r1["interval"] * penalty
            self.r1 = penalty.item()
        self.descend(self.discriminator, loss, rate)

    def descend(self, network: nn.Module, loss: torch.Tensor, rate: float) -> None:
        gradients = torch.autograd.grad(loss, list(network.parameters()))
        norm = math.sqrt(sum(float((g**2).sum()) for g in gradients))
        scale = 1.0 if self.clip is None else min(1.0, self.clip / norm)
        with torch.no_grad():
            for p, g in zip(network.parameters(), gradients, strict=True):
                p.sub_(rate * scale * g)
            limit = self.settings.weight_clip
            if network is self.discriminator and limit is not None:
                for p in network.parameters():
                    p.copy_(torch.where(p.abs() > limit, limit * p.sign(), p))


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("trainer.discriminator_forward=concatenated",),
        ("trainer.discriminator_update=separate",),
        ("trainer.generator_noise=reused",),
        ("trainer.discriminator_steps=3", "trainer.generator_noise=reused"),
        ("trainer.discriminator_steps=2", "regularizer=r1", "regularizer.r1.interval=3", "regularizer.r1.weight=0.01"),
        ("trainer.ema_decay=0.75",),
        ("trainer.gradient_clip=0.05",),
        ("trainer.weight_clip=0.1", "trainer.discriminator_steps=2"),
        ("trainer.weight_clip=0.1", "trainer.discriminator_update=separate"),
        ("trainer.generator_start=2",),
        ("optimizer.schedule=linear",),
        ("optimizer.schedule=cosine", "optimizer.warmup_steps=2"),
    ],
    ids=lambda options: ",".join(o.removeprefix("trainer.") for o in options) or "plain",
)
def test_it_is_the_algorithm(tmp_path, options):
    words = (*OVERRIDES, f"trainer.steps={STEPS}", *options)
    hand = ByHand(experiment_of(*words))
    assert train(tmp_path / "run", *words) == Status.COMPLETED
    state = newest_state(tmp_path / "run")
    for name in ("generator", "discriminator"):
        for key, expected in getattr(hand, name).state_dict().items():
            torch.testing.assert_close(state[f"{name}/{key}"], expected, rtol=1e-4, atol=1e-5)
    if "trainer.ema_decay=0.75" in options:
        for (key, _), expected in zip(hand.generator.named_parameters(), hand.ema, strict=True):
            torch.testing.assert_close(state[f"ema/module.{key}"], expected, rtol=1e-4, atol=1e-5)

    (row,) = rows(tmp_path / "run")
    real, fake = torch.sigmoid(hand.real.detach()), torch.sigmoid(hand.fake.detach())
    real_term, fake_term = -real.log().mean().item(), -(1 - fake).log().mean().item()
    expected_row = {
        "step": STEPS,
        "loss/discriminator": real_term + fake_term + hand.r1,
        "loss/discriminator_real": real_term,
        "loss/discriminator_fake": fake_term,
        "loss/generator": hand.loss_generator.item(),
        "score/real": real.mean().item(),
        "score/fake": fake.mean().item(),
        "divergence/jsd_estimate": 0.5 * (2 * math.log(2) - real_term - fake_term),
    } | ({"loss/r1": hand.r1} if hand.r1 else {})
    told = {k: v for k, v in row.items() if k.split("/")[0] not in ("gradient_norm", "health", "logits", "metric")}
    assert told == pytest.approx(expected_row, rel=1e-4, abs=1e-6)


def test_the_noise_of_each_update_is_its_own(tmp_path):
    """Fresh and reused noise, and one update more, are four different experiments."""
    ends = set()
    for noise in ("fresh", "reused"):
        for count in (1, 2):
            run = tmp_path / f"{noise}{count}"
            choice = (f"trainer.generator_noise={noise}", f"trainer.discriminator_steps={count}")
            assert train(run, *OVERRIDES, "trainer.steps=1", *choice) == Status.COMPLETED
            ends.add(newest_state(run)["generator/layers.0.weight"].sum().item())
    assert len(ends) == 4


@pytest.mark.parametrize(
    ("schedule", "warmup", "factors"),
    [
        ("constant", 0, [1, 1, 1, 1]),
        ("constant", 3, [0.25, 0.5, 0.75, 1]),
        ("linear", 0, [1, 0.75, 0.5, 0.25]),
        ("linear", 1, [0.5, 0.75, 0.5, 0.25]),
        ("cosine", 0, [1, (1 + math.sqrt(0.5)) / 2, 0.5, (1 - math.sqrt(0.5)) / 2]),
    ],
)
def test_learning_rates_follow_their_schedule(schedule, warmup, factors):
    found = [learning_rate_factor(schedule, warmup, step, 4) for step in (1, 2, 3, 4)]
    assert found == pytest.approx(factors)


def test_the_clip_is_to_the_norm_of_a_whole_network(tmp_path):
    """Plain descent at rate 1 moves a network by its clipped gradient; what is logged is the norm before clipping."""
    clip = ("trainer.gradient_clip=0.01", "optimizer.generator.lr=1", "optimizer.discriminator.lr=1")
    words = (*OVERRIDES, "trainer.steps=1", *clip)
    before = initial_state(experiment_of(*words)).generator.module
    assert train(tmp_path / "run", *words) == Status.COMPLETED
    after = newest_state(tmp_path / "run")
    moved = [(after[f"generator/{key}"] - p).flatten() for key, p in before.named_parameters()]
    assert torch.cat(moved).norm().item() == pytest.approx(0.01, rel=1e-3)
    assert rows(tmp_path / "run")[0]["gradient_norm/generator"] > 0.01


def test_a_step_that_logs_nothing_waits_for_nothing(tmp_path, monkeypatch):
    """What reads a value off the device is as often called in a long run as in a short one."""
    calls = 0

    def counted(name):
        original = getattr(torch.Tensor, name)

        def call(self, *arguments, **keywords):
            nonlocal calls
            calls += 1
            return original(self, *arguments, **keywords)

        return call

    for name in ("item", "tolist", "cpu", "numpy", "__bool__", "__float__", "__int__"):
        monkeypatch.setattr(torch.Tensor, name, counted(name))
    rare = ["trainer.log_every=1000", "trainer.checkpoint_every=1000", "trainer.gradient_clip=1", *GENTLE]
    rare += ["regularizer=[gradient_penalty,r1]", "regularizer.r1.interval=2"]
    counts = []
    for steps in (2, 30):
        calls = 0
        assert train(tmp_path / str(steps), *OVERRIDES, *rare, f"trainer.steps={steps}") == Status.COMPLETED
        counts.append(calls)
    assert 0 < counts[0] == counts[1]


def test_bf16_keeps_its_weights_in_fp32(tmp_path):
    words = (*OVERRIDES, *GENTLE, "regularizer=gradient_penalty", "trainer.log_every=1", "trainer.steps=5")
    for precision in ("fp32", "bf16"):
        assert train(tmp_path / precision, *words, f"trainer.precision={precision}") == Status.COMPLETED
    state = newest_state(tmp_path / "bf16")
    assert {v.dtype for v in state.values() if isinstance(v, torch.Tensor) and v.is_floating_point()} == {torch.float32}
    exact, rounded = rows(tmp_path / "fp32")[0], rows(tmp_path / "bf16")[0]
    assert rounded["loss/discriminator"] == pytest.approx(exact["loss/discriminator"], rel=0.02)
    assert rounded["loss/discriminator"] != exact["loss/discriminator"]


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile on a CPU needs g++")
def test_a_compiled_run_has_the_losses_of_an_eager_one(tmp_path):
    words = (
        *OVERRIDES,
        *GENTLE,
        "regularizer=gradient_penalty",
        "trainer.log_every=1",
        "trainer.steps=4",
        "trainer.sample_every=2",
        "doctor=none",
    )
    for choice in ("false", "true"):
        assert train(tmp_path / choice, *words, f"trainer.compile={choice}") == Status.COMPLETED
    for eager, compiled in zip(rows(tmp_path / "false"), rows(tmp_path / "true"), strict=True):
        assert compiled == pytest.approx(eager, abs=1e-4, rel=1e-4)
    assert newest_state(tmp_path / "true").keys() == newest_state(tmp_path / "false").keys()
    log = (tmp_path / "true" / "log.txt").read_text()
    assert "compiling the step" in log
    assert re.search(r"compiled in \d+\.\d s", log)

    # One that was stopped after two steps and goes on ends bit for bit the same.
    steps = [word for word in words if word != "trainer.steps=4"]
    for count in (2, 4):
        assert train(tmp_path / "stopped", *steps, "trainer.compile=true", f"trainer.steps={count}") == Status.COMPLETED
    assert_same_end(tmp_path / "true", tmp_path / "stopped")


def test_an_average_begins_with_the_weights_of_a_run_without_one():
    plain = initial_state(experiment_of(*OVERRIDES, "seed=1"))
    forked = initial_state(experiment_of(*OVERRIDES, "trainer.ema_decay=0.9"))
    forked.load_weights(plain.to_checkpoint())
    kept, average = plain.generator.module.state_dict(), forked.sampled.state_dict()
    assert forked.sampled is not forked.generator.module
    assert kept.keys() == average.keys()
    assert all(torch.equal(kept[name], average[name]) for name in kept)


def test_an_optimizer_that_cannot_be_compiled_is_named(tmp_path, capsys):
    own = "optimizer.generator={_target_:torch.optim.Adagrad,lr:0.01}"
    words = [word for word in OVERRIDES if not word.startswith("optimizer.generator")]
    words += [own, "~optimizer.generator.momentum", "trainer.compile=true", "trainer.steps=2"]
    assert train(tmp_path / "run", *words) == Status.COMPLETED
    said = capsys.readouterr().err
    assert "warning: trainer.compile=true: optimizer.generator: Adagrad has no form that can be compiled" in said
    assert "optimizer/generator/0/sum" in newest_state(tmp_path / "run")  # Adagrad's own step


def test_batch_norm_over_a_single_sample_is_refused_before_anything_is_written(tmp_path, capsys):
    assert train(tmp_path / "run", *OVERRIDES, "trainer.batch_size=1") == Status.REFUSED
    assert "error: architecture.generator: MLPGenerator cannot take a batch of shape 1 × 8" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("size", [8, 9, 10])
def test_a_grid_of_more_samples_than_there_are_points(size, tmp_path):
    """Nine samples, drawn among eight points, too: the run is completed."""
    words = ("dataset=ring", f"dataset.size={size}", "metric=[]", "doctor=none", "device=cpu", "trainer.steps=2")
    grid = ("trainer.sample_rows=3", "trainer.sample_columns=3", "trainer.batch_size=2")
    assert train(tmp_path / "run", *words, *grid) == Status.COMPLETED
    assert (tmp_path / "run/samples/step_00000002.png").stat().st_size > 0
