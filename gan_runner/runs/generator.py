"""The trained generator of a run, loaded from its directory alone: no dataset is needed."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from pydantic import NonNegativeInt
from torch import Tensor, nn

from gan_runner.batches import draw_latent
from gan_runner.config.components import component
from gan_runner.config.schema import Config, Latent, validate
from gan_runner.datasets import DataFacts
from gan_runner.errors import UserError, last_line
from gan_runner.networks.running import generate
from gan_runner.randomness import rng
from gan_runner.runs.building import build_generator, labels_wanted
from gan_runner.runs.directory import read_json, read_run
from gan_runner.state import weights_to_sample
from gan_runner.tensor_files import all_finite, parse

SAMPLE_BATCH = 64  # samples made at once, always as many, so that no sample depends on the count

Checkpoint = Literal["newest", "best"]


@dataclass(frozen=True)
class TrainedGenerator:
    """A generator in eval mode, and what is needed to use it."""

    network: nn.Module
    latent: Latent
    facts: DataFacts
    num_classes: int  # 0: it is unconditional
    device: torch.device
    step: int  # how many steps it was trained
    truncation: float | None = None  # how many standard deviations a latent may be away from the mean

    def latents(self, seed: int) -> Iterator[Tensor]:
        """Endless latents for a seed, in batches (SAMPLE_BATCH, latent.dim) on the CPU."""
        noise, again = rng(seed, "sample"), rng(seed, "truncation")
        while True:
            z = draw_latent(self.latent, SAMPLE_BATCH, noise)
            yield z if self.truncation is None else truncated(z, self.latent, self.truncation, again)

    def __call__(self, z: Tensor, labels: Tensor | None) -> Tensor:
        """Samples (B, *shape) in the data's own units, float32, on the CPU.

        Of latents (B, latent.dim) and class numbers (B,), or weights over the classes (B, K).
        """
        wanted = labels if self.num_classes else None
        return self.facts.in_data_units(generate(self.network, z, wanted, self.device))


def truncated(z: Tensor, latent: Latent, threshold: float, noise: torch.Generator) -> Tensor:
    """Normal latents, each value more than `threshold` standard deviations from the mean drawn again until it is not.

    What would come of drawing again and again is drawn at once: √2 erf⁻¹(u erf(t/√2)), u uniform in [-1, 1), has the
    normal distribution cut off at ±t. Source: Brock et al. 2019 (arXiv:1809.11096), the truncation trick.
    """
    u = 2 * torch.rand(z.shape, generator=noise, dtype=torch.double) - 1
    n = 2**0.5 * torch.erfinv(u * math.erf(threshold / 2**0.5))
    inside = latent.loc + latent.scale * n.clamp(-threshold, threshold)
    beyond = (z - latent.loc).abs() > threshold * abs(latent.scale)
    return torch.where(beyond, inside.float(), z)


def load_generator(run: Path, trust: Sequence[str], device: torch.device, checkpoint: Checkpoint) -> TrainedGenerator:
    """Loads the generator of a run: its newest one, or the best by its `trainer.objective`.

    Anyone may have made the directory, so nothing in it is executed. Raises `UserError`, which names the file.
    """
    config, manifest = validate(Config, read_run(run, trust, "run")), run / "manifest.json"
    if checkpoint == "best" and _final_is_best(run):
        checkpoint = "newest"
    weights = run / ("generator.safetensors" if checkpoint == "newest" else "checkpoints/best.safetensors")
    data = read_json(manifest).get("data", {})
    if isinstance(data, dict):
        data = {key: value for key, value in data.items() if key in DataFacts.model_fields}
    facts = validate(DataFacts, data, f"{manifest}: data")
    if not weights.is_file():
        never = "trained no generator, or not come to its first save" if checkpoint == "newest" else "kept no best one"
        raise UserError(f"{weights}: is not there; the run has {never}")
    try:
        chosen = component("architecture.generator", config.architecture.generator, nn.Module)
        network = build_generator(chosen, config.architecture, facts, config.seed)
        state = parse(weights.read_bytes(), weights)
        step = validate(NonNegativeInt, state.pop("step"), f"{weights}: step")
        network.load_state_dict(weights_to_sample(state) if checkpoint == "best" else state)
    except (RuntimeError, KeyError, AttributeError, TypeError) as error:
        raise UserError(f"{weights}: does not fit the run: {last_line(error)}") from error
    if not all_finite(network.state_dict().values()):
        raise UserError(f"{weights}: holds numbers that are not finite")
    classes = labels_wanted(config.architecture, facts)
    return TrainedGenerator(network.to(device).eval(), config.architecture.latent, facts, classes, device, step)


def _final_is_best(run: Path) -> bool:
    """Whether a completed run was best at its last step: it may then have no best checkpoint."""
    status, objective = read_json(run / "status.json"), read_json(run / "evaluation.json").get("objective")
    step = objective.get("step") if isinstance(objective, dict) else None
    return status.get("state") == "completed" and status.get("step") == step
