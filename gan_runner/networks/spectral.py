"""Spectral normalization (Miyato et al. 2018, arXiv:1802.05957), in operations that vmap and torch.compile take.

It computes what `torch.nn.utils.parametrizations.spectral_norm` does, bit for bit, and has its names in a checkpoint.
"""

from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize

Layer = TypeVar("Layer", bound=nn.Module)


class SpectralNorm(nn.Module):
    """W / σ(W), where σ = uᵀWv estimates the largest singular value of W, whose rows belong to the outputs.

    In training, each use takes u and v one step of the power iteration further: u ← Wv / ‖Wv‖, v ← Wᵀu / ‖Wᵀu‖.
    """

    def __init__(self, weight: Tensor, dim: int) -> None:
        super().__init__()
        self.dim = dim  # of the outputs
        matrix = self._as_matrix(weight.detach())
        self._u: Tensor
        self._v: Tensor
        for name, size in zip(("_u", "_v"), matrix.shape, strict=True):
            self.register_buffer(name, F.normalize(matrix.new_empty(size).normal_(), dim=0))
        for _ in range(15):
            self._iterate(matrix)

    def forward(self, weight: Tensor) -> Tensor:
        """The weight, of its shape."""
        matrix = self._as_matrix(weight)
        if self.training:
            self._iterate(matrix.detach())
        u, v = self._u.clone(), self._v.clone()  # the next forward changes them before the backward of this one
        return weight / torch.dot(u, torch.mv(matrix, v))

    def _as_matrix(self, weight: Tensor) -> Tensor:
        return weight.movedim(self.dim, 0).flatten(1)

    @torch.no_grad()
    def _iterate(self, matrix: Tensor) -> None:
        """In place: DataParallel's first replica has the buffers of the module, and functional_call returns its own."""
        self._u.copy_(F.normalize(torch.mv(matrix, self._v), dim=0))
        self._v.copy_(F.normalize(torch.mv(matrix.T, self._u), dim=0))


def spectral_norm(layer: Layer) -> Layer:
    """A linear layer, convolution or embedding, whose weight is normalized from now on."""
    dim = 1 if isinstance(layer, nn.modules.conv._ConvTransposeNd) else 0
    parametrize.register_parametrization(layer, "weight", SpectralNorm(layer.get_parameter("weight"), dim))
    return layer
