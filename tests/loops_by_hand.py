"""Training loops written by hand, which `make bench` compares gan_runner's with. Each trains on for so many steps."""

import copy
import random
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from gan_runner.batches import draw_latent
from gan_runner.commands.training import Training
from gan_runner.datasets import ArrayDataset

Loop = Callable[[int], object]


def notes_pattern() -> Loop:
    """The pattern as in a notebook: one sample at a time, three updates an iteration, plain Adam."""
    generator = nn.Sequential(
        *(nn.Linear(1, 3), nn.LeakyReLU(0.02), nn.LayerNorm(3)),
        *(nn.Linear(3, 3), nn.LeakyReLU(0.02), nn.LayerNorm(3)),
        *(nn.Linear(3, 3), nn.LeakyReLU(0.02), nn.LayerNorm(3)),
        *(nn.Linear(3, 6), nn.LeakyReLU(0.02)),
    )
    discriminator = nn.Sequential(
        *(nn.Linear(6, 3), nn.Sigmoid(), nn.LayerNorm(3)),
        *(nn.Linear(3, 3), nn.Sigmoid(), nn.LayerNorm(3)),
        *(nn.Linear(3, 1), nn.Sigmoid()),
    )
    criterion = nn.BCELoss()
    generator_optimizer = torch.optim.Adam(generator.parameters(), lr=0.01)
    discriminator_optimizer = torch.optim.Adam(discriminator.parameters(), lr=0.001)
    losses, samples = [], []

    def draw_real() -> Tensor:
        ranges = [(0.8, 1.0), (0.0, 0.2)] * 3
        return torch.FloatTensor([random.uniform(low, high) for low, high in ranges])

    def update(optimizer: torch.optim.Optimizer, output: Tensor, target: float) -> Tensor:
        loss = criterion(output, torch.FloatTensor([target]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    def train(steps: int) -> None:
        for i in range(steps):
            constant = torch.FloatTensor([0.5])
            update(discriminator_optimizer, discriminator(draw_real()), 1.0)
            fake_loss = update(discriminator_optimizer, discriminator(generator(constant).detach()), 0.0)
            generator_loss = update(generator_optimizer, discriminator(generator(constant)), 1.0)
            if i % 10 == 0:
                losses.append((fake_loss.item(), generator_loss.item()))
            if i % 100 == 0:
                samples.append(generator(constant).detach().numpy())

    return train


def notes_lsgan(folder: Path) -> Loop:
    """LSGAN on digits as in a notebook: torchvision's dataset, a `DataLoader`, plain Adam; an epoch at most."""
    from torchvision.datasets import MNIST
    from torchvision.transforms import ToTensor

    digits = MNIST(str(folder), transform=ToTensor())
    loader = torch.utils.data.DataLoader(digits, batch_size=512, shuffle=True, drop_last=True)
    generator = nn.Sequential(nn.Linear(50, 200), nn.BatchNorm1d(200), nn.ReLU(), nn.Linear(200, 784), nn.Tanh())
    discriminator = nn.Sequential(
        *(nn.Flatten(), nn.Linear(784, 200), nn.LeakyReLU()),
        *(nn.Linear(200, 1), nn.BatchNorm1d(1), nn.Sigmoid()),
    )
    criterion, ones, zeros = nn.MSELoss(), torch.ones(512, 1), torch.zeros(512, 1)
    generator_optimizer = torch.optim.Adam(generator.parameters(), lr=2e-4, betas=(0.5, 0.999))
    discriminator_optimizer = torch.optim.Adam(discriminator.parameters(), lr=2e-4, betas=(0.5, 0.999))
    losses = []

    def update(optimizer: torch.optim.Optimizer, loss: Tensor) -> float:
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    def train(steps: int) -> None:
        for real, _ in islice(loader, steps):
            fake = generator(0.1 * torch.randn(512, 50))
            loss = criterion(discriminator(real), ones) + criterion(discriminator(fake.detach()), zeros)
            losses.append(update(discriminator_optimizer, loss))
            fake = generator(0.1 * torch.randn(512, 50))
            losses.append(update(generator_optimizer, criterion(discriminator(fake), ones)))

    return train


def fast_loop(training: Training) -> Loop:
    """The networks, loss and data of a recipe with nothing around them: autograd, and one fused Adam a network."""
    dataset, size, latent = training.dataset, training.settings.batch_size, training.config.architecture.latent
    assert isinstance(dataset, ArrayDataset)
    generator, discriminator = (copy.deepcopy(training.state[name].module) for name in ("generator", "discriminator"))
    noise = torch.Generator()

    def descent(network: nn.Module) -> Callable[[Tensor], None]:
        parameters: list[Tensor] = list(network.parameters())
        means, squares = ([torch.zeros_like(p) for p in parameters] for _ in range(2))
        steps = [torch.zeros(()) for _ in parameters]

        def descend(loss: Tensor) -> None:
            gradients = torch.autograd.grad(loss, parameters)
            with torch.no_grad():
                torch._foreach_add_(steps, 1)
                torch._fused_adam_(
                    parameters,
                    gradients,
                    means,
                    squares,
                    [],
                    steps,
                    lr=1e-4,
                    beta1=0.9,
                    beta2=0.999,
                    weight_decay=0.0,
                    eps=1e-8,
                    amsgrad=False,
                    maximize=False,
                )

        return descend

    update_generator, update_discriminator = descent(generator), descent(discriminator)

    def train(steps: int) -> None:
        for _ in range(steps):
            real, _ = dataset[torch.randint(len(dataset), (size,))]
            with torch.no_grad():
                fake = generator(draw_latent(latent, size, noise))
            update_discriminator(softplus(-discriminator(real)).mean() + softplus(discriminator(fake)).mean())
            update_generator(softplus(-discriminator(generator(draw_latent(latent, size, noise)))).mean())

    return train
