"""The networks of PyTorch-GAN (github.com/eriklindernoren/PyTorch-GAN), to be measured beside others.

Its batch norm has the second argument 0.8, which is ε, and is kept. Its discriminators end in a sigmoid; these return
logits, like all others.
"""

import math

from torch import Tensor, nn

from gan_runner.errors import UserError

_EPS = 0.8


class PyTorchGANGenerator(nn.Sequential):
    """gan.py: linear layers of 128, 256, 512 and 1024 features, and tanh."""

    def __init__(self, latent_dim: int, shape: tuple[int, ...]) -> None:
        layers: list[nn.Module] = [nn.Linear(latent_dim, 128), nn.LeakyReLU(0.2)]
        for before, after in ((128, 256), (256, 512), (512, 1024)):
            layers += [nn.Linear(before, after), nn.BatchNorm1d(after, _EPS), nn.LeakyReLU(0.2)]
        super().__init__(*layers, nn.Linear(1024, math.prod(shape)), nn.Tanh(), nn.Unflatten(1, shape))


class PyTorchGANDiscriminator(nn.Sequential):
    """gan.py: linear layers of 512 and 256 features."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        hidden = [nn.Linear(math.prod(shape), 512), nn.LeakyReLU(0.2), nn.Linear(512, 256), nn.LeakyReLU(0.2)]
        super().__init__(nn.Flatten(), *hidden, nn.Linear(256, 1), nn.Flatten(0))


class PyTorchGANConvGenerator(nn.Module):
    """dcgan.py: 128 maps of a quarter of the size, twice enlarged by repetition and convolved, and tanh."""

    def __init__(self, latent_dim: int, shape: tuple[int, ...]) -> None:
        channels, height, width = _image(shape, 4)
        super().__init__()
        self.first = nn.Linear(latent_dim, 128 * (height // 4) * (width // 4))
        self.layers = nn.Sequential(
            nn.Unflatten(1, (128, height // 4, width // 4)),
            nn.BatchNorm2d(128),
            nn.Upsample(scale_factor=2),
            nn.Conv2d(128, 128, 3, padding=1),
            nn.BatchNorm2d(128, _EPS),
            nn.LeakyReLU(0.2),
            nn.Upsample(scale_factor=2),
            nn.Conv2d(128, 64, 3, padding=1),
            nn.BatchNorm2d(64, _EPS),
            nn.LeakyReLU(0.2),
            nn.Conv2d(64, channels, 3, padding=1),
            nn.Tanh(),
        )
        self.apply(_initialize)

    def forward(self, z: Tensor) -> Tensor:
        return self.layers(self.first(z))


class PyTorchGANConvDiscriminator(nn.Sequential):
    """dcgan.py: convolutions of stride 2 to 16, 32, 64 and 128 maps, each with dropout of whole maps."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        channels, height, width = _image(shape, 16)
        layers: list[nn.Module] = []
        for before, after in ((channels, 16), (16, 32), (32, 64), (64, 128)):
            layers += [nn.Conv2d(before, after, 3, stride=2, padding=1), nn.LeakyReLU(0.2), nn.Dropout2d(0.25)]
            layers += [nn.BatchNorm2d(after, _EPS)] if after > 16 else []
        super().__init__(*layers, nn.Flatten(), nn.Linear(128 * (height // 16) * (width // 16), 1), nn.Flatten(0))
        self.apply(_initialize)


def _image(shape: tuple[int, ...], factor: int) -> tuple[int, int, int]:
    if len(shape) != 3 or shape[1] % factor or shape[2] % factor:
        raise UserError(
            f"architecture=peer_dcgan: needs images whose sides are multiples of {factor}; these are {shape}"
        )
    channels, height, width = shape
    return channels, height, width


def _initialize(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        nn.init.normal_(module.weight, 0.0, 0.02)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, 0.02)
        nn.init.zeros_(module.bias)
