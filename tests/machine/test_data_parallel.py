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
from gan_runner.config.schema import Config
from gan_runner.datasets import DataFacts
from gan_runner.runs.building import Parts, build_parts
from gan_runner.runs.objectives import DiscriminatorObjective, GeneratorObjective

FACTS = DataFacts(shape=(1, 4, 4), value_range=(-1.0, 1.0), num_classes=3)
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


def config_of(*overrides: str) -> Config:
    return check(composition.plain(composition.compose([*OVERRIDES, *overrides], "train"))).config


def batch(conditional: bool, device: torch.device) -> tuple[Tensor | None, ...]:
    """Real samples and their labels, latents and theirs."""
    noise = torch.Generator().manual_seed(0)
    real = torch.rand(BATCH, *FACTS.shape, generator=noise) * 2 - 1
    z = torch.randn(BATCH, 5, generator=noise)
    labels = torch.arange(BATCH, device=device) % FACTS.num_classes if conditional else None
    return real.to(device), labels, z.to(device), None if labels is None else labels.flip(0)


def losses_and_gradients(objective, parameters, *inputs) -> dict[str, Tensor]:
    """The mean of each term that `objective` returns, the gradient of their sum, and the logits."""
    terms = objective(*inputs)
    losses = {name: term.mean() for name, term in terms.items()}
    gradients = torch.autograd.grad(torch.stack(list(losses.values())).sum(), parameters)
    logits = {f"each of {name}": term for name, term in terms.items() if "logits" in name}
    return losses | logits | {f"gradient {i}": gradient for i, gradient in enumerate(gradients)}


def compare(objective: nn.Module, parts: Parts, network: nn.Module, *inputs) -> None:
    """Holds what two devices compute, and the gradients of `network`, against what one does."""
    sizes: list[int] = []  # of what the generator is given
    parts.generator.register_forward_pre_hook(lambda _, arguments: sizes.append(len(arguments[0])))
    parameters = list(network.parameters())
    expected = losses_and_gradients(objective, parameters, *inputs)
    assert sizes == [BATCH]
    sizes.clear()
    found = losses_and_gradients(nn.DataParallel(objective, device_ids=[0, 1]), parameters, *inputs)
    assert sorted(sizes) == [3, 4]
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.allclose(found[name], value, rtol=1e-6, atol=1e-6), name


@pytest.fixture(params=["nonsaturating", "relativistic"])
def loss(request) -> str:
    return f"loss={request.param}"


@pytest.fixture(params=[False, True], ids=["unlabelled", "conditional"])
def conditional(request) -> bool:
    return request.param


@pytest.mark.parametrize("forward", ["separate", "concatenated"])
@pytest.mark.parametrize("penalties", [[], ["gradient_penalty", "r1", "r2"]], ids=["plain", "penalized"])
def test_the_discriminator_learns_as_on_one_device(device, loss, conditional, forward, penalties):
    config = config_of(loss, f"architecture.conditional={conditional}", f"trainer.discriminator_forward={forward}")
    parts = build_parts(config, FACTS, device)
    uniform = torch.linspace(0, 0.9, BATCH, device=device) if penalties else None
    inputs = (*batch(conditional, device), uniform, ("real", "fake"), penalties)
    compare(DiscriminatorObjective(parts, config.trainer), parts, parts.discriminator, *inputs)


def test_the_generator_learns_as_on_one_device(device, loss, conditional):
    config = config_of(loss, f"architecture.conditional={conditional}")
    parts = build_parts(config, FACTS, device)
    compare(GeneratorObjective(parts, config.trainer), parts, parts.generator, *batch(conditional, device))
