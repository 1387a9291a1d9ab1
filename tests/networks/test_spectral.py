"""Spectral normalization, held against torch's own."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.utils import parametrizations

from gan_runner.networks.spectral import spectral_norm
from gan_runner.state import MovingAverage, NetworkState

LAYERS = {
    "linear": (lambda: nn.Linear(5, 3), (4, 5)),
    "convolution": (lambda: nn.Conv2d(2, 6, 3), (4, 2, 8, 8)),
    "transposed": (lambda: nn.ConvTranspose2d(2, 6, 4, 2, 1), (4, 2, 8, 8)),
    "grouped": (lambda: nn.Conv2d(4, 8, 3, groups=2), (4, 4, 8, 8)),
}


def trained(normalize, layer, shape, steps=5) -> nn.Module:
    """The layer after some steps, each of two forwards and one backward."""
    torch.manual_seed(0)
    module = normalize(layer())
    for _ in range(steps):
        loss = module(torch.randn(shape)).square().mean() - module(torch.randn(shape)).mean()
        for parameter, gradient in zip(
            module.parameters(), torch.autograd.grad(loss, list(module.parameters())), strict=True
        ):
            parameter.data -= 0.1 * gradient
    return module


@pytest.mark.parametrize("name", LAYERS)
def test_it_trains_bit_for_bit_like_that_of_torch(name):
    layer, shape = LAYERS[name]
    ours, theirs = trained(spectral_norm, layer, shape), trained(parametrizations.spectral_norm, layer, shape)
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    for key, tensor in theirs.state_dict().items():
        assert torch.equal(ours.state_dict()[key], tensor), key
    x = torch.randn(shape)
    for module in (ours, theirs):
        module.eval()
    assert torch.equal(ours(x), theirs(x))


def test_the_power_iteration_by_hand():
    module: Any = spectral_norm(nn.Linear(4, 3, bias=False))
    weight = module.parametrizations.weight.original.detach().numpy()
    v = module.parametrizations.weight[0]._v.numpy().copy()
    u = weight @ v / np.linalg.norm(weight @ v)
    v = weight.T @ u / np.linalg.norm(weight.T @ u)
    np.testing.assert_allclose(module.weight.detach(), weight / (u @ weight @ v), rtol=1e-5)


def test_in_eval_mode_it_does_not_iterate():
    module = spectral_norm(nn.Linear(4, 3))
    for name, moves in (("eval", False), ("train", True)):
        getattr(module, name)()
        before = copy.deepcopy(module.state_dict())
        module(torch.randn(2, 4))
        after = module.state_dict()
        assert any(not torch.equal(before[key], after[key]) for key in before) == moves


def test_a_moving_average_copies_its_vectors():
    module = nn.Sequential(spectral_norm(nn.Linear(4, 3)))
    average = MovingAverage(module, decay=0.9)
    module(torch.randn(2, 4))
    with torch.no_grad():
        average.update(NetworkState(module, None), 0.1)
    for key, buffer in module.named_buffers():
        assert torch.equal(dict(average.module.named_buffers())[key], buffer)


def test_members_at_once_are_members_one_by_one():
    members = [nn.Sequential(spectral_norm(nn.Conv2d(2, 3, 3)), nn.Flatten(), nn.Linear(3, 1)) for _ in range(3)]
    x = torch.randn(3, 4, 2, 3, 3)

    def gradient(
        parameters: dict[str, Tensor], buffers: dict[str, Tensor], x: Tensor
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        def loss(parameters: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
            new = {name: buffer.clone() for name, buffer in buffers.items()}
            return functional_call(members[0], (parameters, new), (x,)).square().sum(), new

        return torch.func.grad(loss, has_aux=True)(parameters)

    gradients, buffers = torch.vmap(gradient)(*torch.func.stack_module_state(members), x)
    for i, member in enumerate(members):
        expected = torch.autograd.grad(member(x[i]).square().sum(), list(member.parameters()))
        for found, one in zip(gradients.values(), expected, strict=True):
            torch.testing.assert_close(found[i], one)
        for name, buffer in member.named_buffers():
            torch.testing.assert_close(buffers[name][i], buffer)
