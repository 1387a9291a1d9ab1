"""Groups of images that look alike, for networks to be conditioned on where there are no labels.

Source: Sage et al., "Logo Synthesis and Manipulation with Clustered Generative Adversarial Networks" (2018,
arXiv:1712.04407).
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from gan_runner.randomness import rng

_SIDE = 14  # of small copies, in values 0 … 63: fp32 then holds every sum of products exactly
_VALUES_AT_ONCE = 2**24
_FITTED_TO = 20_000  # images at most
_ROUNDS = 20
MOST_CLUSTERS = 1000  # and cells, which are compared two by two


def clusters(images: Tensor, count: int) -> Tensor:
    """The cluster (N,) of each of the images (N, C, H, W) of uint8: numbers below `count`.

    k-means (Lloyd 1982) divides the images into cells, up to a thousand of twenty images or more. Then the two cells
    that are most alike become one, until `count` are left. Alike are cells with many images that are near both, for
    their sizes (after Martinetz and Schulten, "Topology representing networks", 1994); where no image is, the two whose
    centres are nearest. It computes in whole numbers, so that every machine finds the same, with any number of threads.
    """
    small = torch.cat([_small(part) for part in images.split(max(1, _VALUES_AT_ONCE // images[0].numel()))])
    centres = _k_means(small, max(count, min(MOST_CLUSTERS, len(small) // 20)))
    return _merged(_nearest(small, centres, min(4, len(centres))), centres, count)


def _small(images: Tensor) -> Tensor:
    """Copies (N, D) of images in at most 14×14 pixels."""
    height, width = (min(side, _SIDE) for side in images.shape[2:])
    return F.adaptive_avg_pool2d(images.float(), (height, width)).div_(4).floor_().to(torch.uint8).flatten(1)


def _k_means(small: Tensor, count: int) -> Tensor:
    """The centres (count, D) of cells, which start at images."""
    sample = small[torch.randperm(len(small), generator=rng(0, "clusters"))[: max(count, _FITTED_TO)]]
    centres = sample[:count].long()
    for _ in range(_ROUNDS):
        cells = _nearest(sample, centres, 1)[:, 0]
        sums = torch.zeros_like(centres).index_add_(0, cells, sample.long())
        sizes = cells.bincount(minlength=count).unsqueeze(1)
        centres = torch.where(sizes > 0, (2 * sums + sizes) // (2 * sizes).clamp_min(1), centres)
    return centres


def _nearest(small: Tensor, centres: Tensor, count: int) -> Tensor:
    """The numbers (N, count) of the centres that are nearest to each small copy, the nearest first."""
    squares, towards = centres.float().square().sum(1), 2 * centres.float().T

    def nearest_to(part: Tensor) -> Tensor:
        distances, found = squares - part.float() @ towards, []
        for _ in range(count):  # of several that are as near, the first
            found.append(distances.argmin(1, keepdim=True))
            distances.scatter_(1, found[-1], torch.inf)
        return torch.cat(found, dim=1)

    return torch.cat([nearest_to(part) for part in small.split(_VALUES_AT_ONCE // len(centres))])


def _merged(nearest: Tensor, centres: Tensor, count: int) -> Tensor:
    """The cluster (N,) of each image, from the cells (N, …) that it is nearest to, the nearest first."""
    cell, cells = nearest[:, 0], len(centres)
    pairs = torch.cat([cell * cells + other for other in nearest[:, 1:].unbind(1)])
    between = pairs.bincount(minlength=cells**2).view(cells, cells).double()  # how many images, of each two cells
    between += between.T.clone()
    sizes = cell.bincount(minlength=cells).double()
    likeness = (between / (sizes[:, None] * sizes)).nan_to_num(-1, posinf=-1).fill_diagonal_(-1)  # -1: no such pair
    squares = centres.double().square().sum(1)
    distance = squares[:, None] + squares - 2 * centres.double() @ centres.double().T
    became = torch.arange(cells)
    for _ in range(count, int((sizes > 0).sum())):
        kept, gone = divmod(int(likeness.argmax()), cells)
        if likeness[kept, gone] == 0:
            kept, gone = divmod(int(torch.where(likeness == 0, distance, torch.inf).argmin()), cells)
        became[became == gone] = kept
        sizes[kept] += sizes[gone]
        between[kept] += between[gone]
        between[:, kept] = between[kept]
        distance[kept] = torch.minimum(distance[kept], distance[gone])
        distance[:, kept] = distance[kept]
        likeness[kept] = torch.where(likeness[kept] < 0, -1, between[kept] / (sizes[kept] * sizes))
        likeness[:, kept] = likeness[kept]
        likeness[gone] = likeness[:, gone] = -1
    return became[cell].unique(return_inverse=True)[1]
