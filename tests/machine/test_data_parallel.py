"""`nn.DataParallel` over two devices computes what one device computes: on two GPUs, or on the CPU in two parts.

On the CPU, torch's own code scatters the batch, replicates the networks, runs each replica in a thread and gathers what
they return; only its operations between GPUs are replaced.
"""

import sys
from contextlib import nullcontext
from itertools import chain
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from gan_runner.config import composition
from gan_runner.config.components import check
from gan_runner.datasets import ArrayDataset, DataFacts
from gan_runner.game import Game, UpdateBatch, discriminator_terms, fake_terms, generator_terms, real_terms
from gan_runner.machine.data_parallel import by_data_parallel
from gan_runner.runs.building import build_game, build_state
from gan_runner.state import State
from gan_runner.step import Differentiate, TermsOf, by_autograd

PIXELS = torch.arange(20 * 16, dtype=torch.uint8).view(20, 1, 4, 4)
DATASET = ArrayDataset(PIXELS, torch.arange(20) % 3, value_range=(-1.0, 1.0), num_classes=3)
FACTS = DataFacts.of(DATASET)
BATCH = 7  # in parts of 4 and 3
# Layer norm, because batch norm sees each part apart.
OVERRIDES = (
    "dataset=images",
    "dataset.root=unused",
    "architecture=mlp_layernorm",
    "architecture.latent.dim=5",
    "architecture.generator.hidden=[16]",
    "architecture.discriminator.hidden=[16]",
    "regularizer=[gradient_penalty,r1,r2]",
    *(f"regularizer.{name}.weight=0.1" for name in ("gradient_penalty", "r1", "r2")),  # gradients of about 1
)


@pytest.fixture
def two_cpu_devices(monkeypatch):
    """Lets `nn.DataParallel(module, device_ids=[0, 1])` run on the CPU, whose two devices are the same."""
    functions = sys.modules["torch.nn.parallel._functions"]
    scatter_gather = sys.modules["torch.nn.parallel.scatter_gather"]

    # The three operations between GPUs. The broadcast has a second form, for what needs no gradient.
    def scatter(devices, chunk_sizes, dim: int, whole: Tensor) -> tuple[Tensor, ...]:
        return whole.chunk(len(devices), dim)

    def gather(device, dim: int, *parts: Tensor) -> Tensor:
        return torch.cat(parts, dim)

    def broadcast(devices, *tensors: Tensor) -> tuple[Tensor, ...]:
        return tuple(chain.from_iterable([t.clone() for t in tensors] for _ in devices))

    def broadcast_without_gradient(tensors, devices) -> list[list[Tensor]]:
        return [list(tensors), *([t.detach().clone() for t in tensors] for _ in devices[1:])]

    monkeypatch.setattr(scatter_gather, "Scatter", SimpleNamespace(apply=scatter))
    monkeypatch.setattr(scatter_gather, "Gather", SimpleNamespace(apply=gather))
    monkeypatch.setattr(functions, "Broadcast", SimpleNamespace(apply=broadcast))
    monkeypatch.setattr(nn.parallel.comm, "broadcast_coalesced", broadcast_without_gradient)

    # Where torch asks which devices there are, and makes one of them (and a stream of it) the current one of a thread.
    cpu = torch.device("cpu")
    monkeypatch.setattr(sys.modules["torch.nn.parallel.data_parallel"], "_get_available_device_type", lambda: "cpu")
    monkeypatch.setattr(nn.DataParallel, "src_device_obj", property(lambda _: cpu, lambda *_: None), raising=False)
    of_accelerator = {
        "is_available": lambda: True,
        "current_accelerator": lambda: cpu,
        "current_stream": nullcontext,
        "device_index": nullcontext,
    }
    of_cuda = {"current_stream": nullcontext, "device": nullcontext, "stream": nullcontext}  # torch 2.6
    for name, stand_in in of_accelerator.items():
        monkeypatch.setattr(torch.accelerator, name, stand_in)
    for name, stand_in in of_cuda.items():
        monkeypatch.setattr(torch.cuda, name, stand_in)


@pytest.fixture(params=["cpu", "cuda"])
def device(request) -> torch.device:
    if request.param == "cpu":
        request.getfixturevalue("two_cpu_devices")
        return torch.device("cpu")
    if torch.cuda.device_count() < 2:
        pytest.skip("needs two GPUs")
    return torch.device("cuda", 0)


def game_and_state(device: torch.device, *overrides: str) -> tuple[Game, State]:
    experiment = check(composition.plain(composition.compose([*OVERRIDES, *overrides], "train")))
    return build_game(experiment, DATASET), build_state(experiment, FACTS, device)


def batch(conditional: bool, device: torch.device, due: tuple[str, ...] = ()) -> UpdateBatch:
    """Real samples and latents, with labels or without; for the discriminator or the generator."""
    noise = torch.Generator().manual_seed(0)
    real = torch.rand(BATCH, *FACTS.shape, generator=noise) * 2 - 1
    z = torch.randn(BATCH, 5, generator=noise)
    labels = torch.arange(BATCH, device=device) % FACTS.num_classes if conditional else None
    uniform = torch.rand(BATCH, 17, generator=noise).to(device) if due else None
    fake_labels = None if labels is None else labels.flip(0)
    update = UpdateBatch(real.to(device), z.to(device), labels, fake_labels, uniform, due)
    real_drawn, fake_drawn = torch.rand(2, BATCH, 7, generator=noise).to(device)  # as many as diffaugment takes
    return update._replace(real_drawn=real_drawn, fake_drawn=fake_drawn, strength=torch.ones(BATCH, device=device))


def compare(game: Game, state: State, name: str, terms_of: TermsOf, batch: UpdateBatch) -> None:
    """Holds what two devices compute, and the gradients of network `name`, against what one does."""

    def losses_and_gradients(by: Differentiate) -> dict[str, Tensor]:
        gradients, computed = by(game, state, name, terms_of, batch)
        return computed | {f"gradient {i}": gradient for i, gradient in enumerate(gradients)}

    sizes: list[int] = []  # of what the discriminator is given at first
    hook = lambda _, arguments: sizes.append(len(arguments[0]))  # noqa: E731
    state.discriminator.module.register_forward_pre_hook(hook)
    expected = losses_and_gradients(by_autograd)
    seen = len(sizes)
    found = losses_and_gradients(by_data_parallel(state, [0, 1]))
    assert len(sizes) == 3 * seen  # each of the two parts
    assert max(sizes[seen:]) < max(sizes[:seen])
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        assert torch.allclose(found[key], value, rtol=1e-6, atol=1e-6), key


@pytest.fixture(params=["nonsaturating", "relativistic"])
def loss(request) -> str:
    return f"loss={request.param}"


@pytest.fixture(params=[False, True], ids=["unlabelled", "conditional"])
def conditional(request) -> bool:
    return request.param


@pytest.mark.parametrize("forward", ["separate", "concatenated"])
@pytest.mark.parametrize("due", [(), ("gradient_penalty", "r1", "r2")], ids=["plain", "penalized"])
def test_the_discriminator_learns_as_on_one_device(device, loss, conditional, forward, due):
    words = (loss, f"architecture.conditional={conditional}", f"trainer.discriminator_forward={forward}")
    game, state = game_and_state(device, *words)
    compare(game, state, "discriminator", discriminator_terms, batch(conditional, device, due))


@pytest.mark.parametrize(
    ("name", "terms_of"), {"discriminator": discriminator_terms, "generator": generator_terms}.items()
)
def test_so_they_do_with_an_augmentation(device, name, terms_of):
    game, state = game_and_state(device, "augmentation=diffaugment", "loss=relativistic")
    compare(game, state, name, terms_of, batch(False, device, ("r1",) if name == "discriminator" else ()))


def test_so_it_does_with_penalties_that_draw_much_or_adapt(device):
    words = (
        "regularizer=[gradient_penalty,r1,r2,dragan,lecam]",
        "trainer.batch_size=8",
        "regularizer.dragan.weight=0.1",
    )
    game, state = game_and_state(device, *words)
    update = batch(False, device, ("dragan", "lecam"))
    averages = {"real": torch.full((BATCH,), 0.5, device=device), "fake": torch.full((BATCH,), -0.5, device=device)}
    update = update._replace(adapted={"regularizer.lecam": averages})
    compare(game, state, "discriminator", discriminator_terms, update)


def test_so_it_does_from_packs(device):
    words = ("regularizer=[gradient_penalty,r1,r2,dragan]", "trainer.batch_size=8", "regularizer.dragan.weight=0.1")
    game, state = game_and_state(device, *words, "trainer.packing=2")
    seven = batch(False, device, ("r1", "dragan"))
    assert seven.uniform is not None
    update = UpdateBatch(
        torch.cat([seven.real, seven.real[:1]]),
        torch.cat([seven.z, seven.z[:1]]),
        uniform=torch.cat([seven.uniform, seven.uniform[:1]]),
        due=seven.due,
    )
    compare(game, state, "discriminator", discriminator_terms, update)


@pytest.mark.parametrize("terms_of", [real_terms, fake_terms])
def test_so_it_does_from_real_and_fake_samples_apart(device, conditional, terms_of):
    game, state = game_and_state(device, f"architecture.conditional={conditional}")
    due = ("r2",) if terms_of is fake_terms else ()
    compare(game, state, "discriminator", terms_of, batch(conditional, device, due))


def test_the_generator_learns_as_on_one_device(device, loss, conditional):
    game, state = game_and_state(device, loss, f"architecture.conditional={conditional}")
    compare(game, state, "generator", generator_terms, batch(conditional, device))
