"""The step in its three ways: eagerly, as one compiled graph, and for several stacked runs at once."""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from gan_runner.config import composition
from gan_runner.config.components import check
from gan_runner.datasets import DataFacts
from gan_runner.functional import by_members
from gan_runner.game import UpdateBatch
from gan_runner.machine.compiling import CompiledStep, why_not_compiled
from gan_runner.machine.ranks import Ranks
from gan_runner.optimizers import AsFunction, make_optimizer
from gan_runner.runs.building import build_batches, build_game, build_schedule, build_state
from gan_runner.state import State, stack
from gan_runner.step import Rates, StepBatch, newest_penalties, step
from tests.compare_checkouts import VARIANTS, words_of
from tests.training import write_images

STEPS = 20
ONE_PROCESS = [variant for variant in VARIANTS if variant not in ("two_processes", "mnist_lsgan")]


class Run:
    """A run of so many steps in float64, in which rounding does not grow to what could be taken for a mistake."""

    def __init__(self, *words: str, seed: int = 0, ranks: Ranks | None = None) -> None:
        experiment = check(composition.plain(composition.compose([*words, f"seed={seed}"], "train")))
        dataset, ranks = experiment.build("dataset"), ranks or Ranks()
        facts = DataFacts.of(dataset)
        self.game, self.state = build_game(experiment, dataset), build_state(experiment, facts, ranks.device)
        for network in (self.state.generator, self.state.discriminator):
            network.module.double()
            network.buffers = dict(network.module.named_buffers())
            for moments in getattr(network._optimizer, "moments", {}).values():
                moments[:] = [moment.double() for moment in moments]
        if self.state.average is not None:
            self.state.average.module.double()
            self.state.average.buffers = dict(self.state.average.module.named_buffers())
        self.batches = build_batches(experiment, dataset, self.game, self.state, ranks)
        self.schedule = build_schedule(experiment, self.state)

    def batch(self, number: int) -> StepBatch:
        drawn = self.batches.at(number)
        updates = [_double(update) for update in drawn.discriminator]
        return StepBatch(updates, None if drawn.generator is None else _double(drawn.generator))

    def eagerly(self, state: State, batch: StepBatch, rates: Rates, measure: bool) -> tuple[State, dict[str, Tensor]]:
        state, computed = step(state, batch, rates, self.game, measure)
        state.penalties |= newest_penalties(batch, computed)
        return state, computed

    def losses(self, take_step: Callable[..., Any]) -> list[dict[str, float]]:
        """The mean of all that is computed at each step."""
        logged = []
        for number in range(1, STEPS + 1):
            batch, rates = self.batch(number), self.schedule(number)
            _, computed = take_step(self.state, batch, rates, True)
            logged.append({name: float(tensor.mean()) for name, tensor in computed.items()})
        return logged


def _double(batch: UpdateBatch) -> UpdateBatch:
    drawn = {name: value for name, value in batch._asdict().items() if isinstance(value, Tensor)}
    doubled: dict[str, Any] = {name: value.double() for name, value in drawn.items() if value.is_floating_point()}
    return batch._replace(**doubled)


def weights(state: State) -> dict[str, Tensor]:
    return {f"{name}.{key}": t for name, n in state.networks() for key, t in n.module.state_dict().items()}


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
    torch.compiler.reset()


def compare(words: list[str], backend: str) -> None:
    eager, compiled = Run(*words), Run(*words)
    if backend == "aot_eager":  # which takes the strides of float64 convolutions for others than they are
        for network in (compiled.state.generator, compiled.state.discriminator):
            network.module.to(memory_format=torch.contiguous_format)
    take_step = CompiledStep(compiled.state, compiled.game, Ranks(), compiled.eagerly, backend)
    expected, found = eager.losses(eager.eagerly), compiled.losses(take_step)
    assert take_step.kinds  # it was compiled
    assert not take_step.gave_up
    for ours, theirs in zip(found, expected, strict=True):
        assert ours == pytest.approx(theirs, abs=1e-8, rel=1e-8)
    for name, weight in weights(eager.state).items():
        torch.testing.assert_close(weights(compiled.state)[name], weight, rtol=1e-7, atol=1e-8)
    if eager.state.average is not None:
        assert compiled.state.average is not None
        for mine, weight in zip(compiled.state.average.parameters, eager.state.average.parameters, strict=True):
            torch.testing.assert_close(mine, weight, rtol=1e-7, atol=1e-8)
    assert compiled.state.penalties.keys() == eager.state.penalties.keys()
    assert compiled.state.adaptive == eager.state.adaptive


@pytest.mark.parametrize("variant", ONE_PROCESS)
def test_one_graph_computes_what_eager_steps_do(variant, tmp_path):
    words = [*words_of(variant, write_images(tmp_path / "images", side=16), STEPS, 1), "device=cpu"]
    words += ["trainer.discriminator_steps=2"] if variant == "theory_1d" else []  # tracing five updates takes long
    compare(words, "aot_eager")


# Networks and layers that no variant above has, under a penalty.
SMALL_IMAGES = ("dataset=images", "dataset.size=16", "dataset.channels=1", "trainer.batch_size=8", "device=cpu")
NETWORKS: dict[str, tuple[str, ...]] = {
    "attention": (
        *("architecture=resnet", "architecture.generator.channels=4", "architecture.discriminator.channels=4"),
        *("architecture.generator.attention=8", "architecture.discriminator.attention=8"),
        *("architecture.discriminator.minibatch_stddev=4", "loss=hinge", "regularizer=r1"),
    ),
    "r3gan": (
        *("architecture=r3gan", "architecture.generator.widths=[8,8,4]", "architecture.discriminator.widths=[8,8,4]"),
        *("architecture.generator.group_width=4", "architecture.discriminator.group_width=4"),
        *("architecture.conditional=true", "loss=relativistic", "regularizer=[r1,r2]"),
    ),
    "auxiliary": (
        *("architecture=mlp_tanh", "architecture.generator.hidden=[16]", "architecture.discriminator.hidden=[16]"),
        *("architecture.conditional=true", "architecture.discriminator.conditioning=auxiliary", "regularizer=r1"),
        *("architecture.generator.normalization=batch", "architecture.generator.conditioning=batch_norm"),
    ),
}


def words_for(networks: str, tmp_path: Path) -> list[str]:
    root = write_images(tmp_path / "images", side=16)
    return [*SMALL_IMAGES, f"dataset.root={root}", *NETWORKS[networks]]


@pytest.mark.parametrize("networks", NETWORKS)
def test_other_networks_are_the_same_as_one_graph(networks, tmp_path):
    compare(words_for(networks, tmp_path), "aot_eager")


AUGMENTED = {
    "diffaugment": ("augmentation=diffaugment", "loss=relativistic"),  # whose real samples the generator's update sees
    "ada": ("augmentation=ada", "augmentation.interval=3", "augmentation.images=240", "augmentation.target=0.0"),
    "instance_noise": ("augmentation=instance_noise", "trainer.discriminator_update=separate"),
}
FEW_PIXELS = (
    *("dataset=images", "dataset.size=8", "architecture=mlp_layernorm", "architecture.latent.dim=4", "device=cpu"),
    *("architecture.generator.hidden=[16]", "architecture.discriminator.hidden=[16]", "trainer.batch_size=8"),
    *("regularizer=[r1,gradient_penalty]", "regularizer.r1.interval=2", "trainer.discriminator_steps=2"),
)


@pytest.mark.parametrize("augmentation", AUGMENTED)
def test_so_does_the_graph_of_an_augmented_step(augmentation, tmp_path):
    root = f"dataset.root={write_images(tmp_path / 'images')}"
    compare([*FEW_PIXELS, root, *AUGMENTED[augmentation]], "aot_eager")


RING = (
    *("dataset=ring", "architecture.latent.distribution=normal", "architecture.latent.dim=4", "device=cpu"),
    *("architecture.generator.hidden=[16]", "architecture.discriminator.hidden=[16]", "trainer.batch_size=8"),
    *("trainer.discriminator_steps=2", "trainer.ema_decay=0.9"),
)
TECHNIQUES = {
    "weight_clip": ("loss=wasserstein", "optimizer=rmsprop", "trainer.weight_clip=0.01"),
    "dragan": ("regularizer=dragan", "regularizer.dragan.interval=3", "trainer.discriminator_update=separate"),
    "label_smoothing": ("loss.label_smoothing=0.1",),
    "packing": (
        *("trainer.packing=2", "regularizer=[r1,dragan,gradient_penalty]", "loss=relativistic"),
        *("architecture.discriminator.normalization=spectral", "augmentation=instance_noise"),
    ),
    "lecam": ("regularizer=[lecam,gradient_penalty]", "regularizer.lecam.decay=0.5", "loss=hinge"),
}


@pytest.mark.parametrize("technique", TECHNIQUES)
def test_so_are_the_techniques_of_papers(technique):
    compare([*RING, *TECHNIQUES[technique]], "aot_eager")


@pytest.mark.parametrize("technique", TECHNIQUES)
def test_so_are_stacked_runs_of_them(technique):
    compare_stacked(*RING, *TECHNIQUES[technique])


def test_two_may_adapt_at_once(tmp_path):
    root = f"dataset.root={write_images(tmp_path / 'images')}"
    both = ("regularizer=lecam", "regularizer.lecam.decay=0.5")
    words = [word for word in FEW_PIXELS if not word.startswith("regularizer")]
    compare([*words, root, *both, *AUGMENTED["ada"]], "aot_eager")
    compare_stacked(*words, root, *both, *AUGMENTED["ada"])


@pytest.mark.skipif(shutil.which("g++") is None, reason="Inductor needs a C++ compiler")
@pytest.mark.parametrize("variant", ["pattern_fixed", "mnist_cnn"])
def test_so_does_what_inductor_makes_of_it(variant, tmp_path):
    compare([*words_of(variant, write_images(tmp_path / "images", side=16), STEPS, 1), "device=cpu"], "inductor")


def stacked(batches: list[StepBatch]) -> StepBatch:
    """One batch of the batches of several runs."""
    updates = [_stack(alike) for alike in zip(*(batch.discriminator for batch in batches), strict=True)]
    return StepBatch(updates, _stack([batch.generator for batch in batches if batch.generator is not None]))


def _stack(updates: Sequence[UpdateBatch]) -> UpdateBatch:
    drawn: dict[str, Any] = {
        name: torch.stack([getattr(update, name) for update in updates])
        for name, value in updates[0]._asdict().items()
        if isinstance(value, Tensor)
    }
    return updates[0]._replace(**drawn)


@pytest.mark.parametrize("options", [(), ("trainer.gradient_clip=0.05", "optimizer=rmsprop", "trainer.ema_decay=null")])
def test_three_stacked_runs_are_three_runs(options):
    compare_stacked(
        *("dataset=ring", "architecture.latent.distribution=normal", "architecture.latent.dim=4", "device=cpu"),
        *("architecture.generator.hidden=[16]", "architecture.generator.normalization=batch"),
        *("architecture.discriminator.hidden=[16]", "regularizer=r1", "regularizer.r1.interval=2"),
        *("trainer.discriminator_steps=2", "trainer.ema_decay=0.9", "trainer.batch_size=8", *options),
    )


def test_so_are_stacked_residual_networks_under_spectral_norm(tmp_path):
    words = words_of("resnet", write_images(tmp_path / "images", side=16), STEPS, 1)
    compare_stacked(*words, "regularizer=r1", "device=cpu")


@pytest.mark.parametrize("networks", NETWORKS)
def test_so_are_other_networks(networks, tmp_path):
    compare_stacked(*words_for(networks, tmp_path))


@pytest.mark.parametrize("augmentation", AUGMENTED)
def test_so_are_stacked_runs_that_are_augmented(augmentation, tmp_path):
    root = f"dataset.root={write_images(tmp_path / 'images')}"
    compare_stacked(*FEW_PIXELS, root, *AUGMENTED[augmentation])


def compare_stacked(*words: str) -> None:
    runs = [Run(*words, seed=seed) for seed in range(3)]
    state, together = stack([run.state for run in runs]), []
    for number in range(1, STEPS + 1):
        batch, rates = stacked([run.batch(number) for run in runs]), runs[0].schedule(number)
        state, computed = step(state, batch, rates, runs[0].game, True, by_members)
        together.append(computed)

    runs = [Run(*words, seed=seed) for seed in range(3)]
    for member, run in enumerate(runs):
        alone = run.losses(run.eagerly)
        for ours, theirs in zip(together, alone, strict=True):
            of_member = {name: float(tensor[member].mean()) for name, tensor in ours.items()}
            assert of_member == pytest.approx(theirs, abs=1e-6, rel=1e-6)
        for name, network in run.state.networks():
            for weight, expected in zip(state[name].parameters, network.parameters, strict=True):
                torch.testing.assert_close(weight[member], expected.detach(), rtol=1e-6, atol=1e-6)
            for key, buffer in network.buffers.items():
                torch.testing.assert_close(state[name].buffers[key][member], buffer, rtol=1e-6, atol=1e-6)
        for key, numbers in run.state.adaptive.items():
            for kind, adapted in numbers.items():
                torch.testing.assert_close(state.adaptive[key][kind][member], adapted, rtol=1e-6, atol=1e-6)
        if run.state.average is not None:
            assert state.average is not None
            for weight, expected in zip(state.average.parameters, run.state.average.parameters, strict=True):
                torch.testing.assert_close(weight[member], expected, rtol=1e-6, atol=1e-6)


def test_a_step_that_cannot_be_compiled_is_taken_eagerly(tmp_path, capsys):
    def fails(*_: object) -> None:
        raise RuntimeError("no such instruction")

    words = ("dataset=ring", "trainer.batch_size=8", "device=cpu")
    eager, other = Run(*words), Run(*words)
    take_step = CompiledStep(other.state, other.game, Ranks(), other.eagerly, fails)
    assert other.losses(take_step) == eager.losses(eager.eagerly)
    said = capsys.readouterr().err
    assert said.count("the step cannot be compiled and is taken eagerly: ") == 1
    assert "no such instruction" in said


def test_without_a_compiler_it_is_taken_eagerly(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda _: None)
    assert "there is no C++ compiler" in (why_not_compiled(Run("device=cpu").state) or "")


@pytest.mark.parametrize("values", [{}, {"amsgrad": True}, {"fused": True}])
def test_adam_can_count_its_steps_where_a_graph_on_a_gpu_needs_them(values, monkeypatch):
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    with FakeTensorMode():  # tensors that have a device, and no numbers
        parameters = [torch.empty(3, device="cuda")]
        optimizer = make_optimizer(torch.optim.Adam, {"lr": 0.1, **values}, parameters)
        assert isinstance(optimizer, AsFunction)
        optimizer.count_on(torch.device("cuda"))
        optimizer.update(parameters, [torch.empty(3, device="cuda")], torch.empty(1, device="cuda"))
        assert {step.device.type for step in optimizer.steps} == {"cuda"}


def test_a_number_that_a_module_changes_is_seen_by_its_graph():
    words = ("dataset=ring", "architecture.generator.hidden=[4]", "architecture.discriminator.hidden=[4]", "device=cpu")
    eager, compiled = Run(*words), Run(*words)
    take_step = CompiledStep(compiled.state, compiled.game, Ranks(), compiled.eagerly, "aot_eager")
    for number in range(1, 4):
        logged = []
        for run, way in ((eager, eager.eagerly), (compiled, take_step)):
            for activation in (m for m in run.state.discriminator.module.modules() if isinstance(m, nn.LeakyReLU)):
                activation.negative_slope = 0.1 * number
            _, computed = way(run.state, run.batch(number), run.schedule(number), True)
            logged.append({name: float(tensor.mean()) for name, tensor in computed.items()})
        assert logged[1] == pytest.approx(logged[0], abs=1e-8, rel=1e-8)
    assert not take_step.gave_up
