"""The keys of a configuration, their types and ranges. The defaults are in `conf/`."""

import json
import re
from dataclasses import is_dataclass
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    FiniteFloat,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    TypeAdapter,
)
from pydantic import ValidationError as PydanticError

from gan_runner.errors import UserError, did_you_mean, nearest
from gan_runner.overrides import TEXT_KEYS

PositiveInt = Annotated[int, Field(gt=0, lt=2**63)]  # as torch counts


class Section(BaseModel):
    """A group of keys, all of them known."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Latent(Section):
    """The distribution of the generator's input: loc + scale·n, loc + scale·u with u in [0, 1), or loc itself."""

    dim: PositiveInt
    distribution: Literal["normal", "uniform", "constant"]
    loc: FiniteFloat
    scale: FiniteFloat


class Architecture(Section):
    """Two networks and what they share."""

    conditional: bool
    latent: Latent
    generator: dict[str, Any]
    discriminator: dict[str, Any]


class Optimizer(Section):
    """An optimizer for each network; both learning rates follow one schedule."""

    generator: dict[str, Any]
    discriminator: dict[str, Any]
    schedule: Literal["constant", "linear", "cosine"]
    warmup_steps: NonNegativeInt


class Trainer(Section):
    """The training loop."""

    steps: PositiveInt
    batch_size: PositiveInt
    discriminator_steps: PositiveInt
    discriminator_update: Literal["joint", "separate"]
    discriminator_forward: Literal["separate", "concatenated"]
    generator_noise: Literal["fresh", "reused"]
    generator_start: NonNegativeInt
    ema_decay: Annotated[float, Field(gt=0, lt=1)] | None
    gradient_clip: PositiveFloat | None
    packing: Annotated[PositiveInt, Field(le=16)] = 1  # runs of earlier versions lack this key and the next two
    weight_clip: PositiveFloat | None = None
    auxiliary_weight: NonNegativeFloat = 1.0
    precision: Literal["fp32", "bf16"]
    compile: bool
    log_every: PositiveInt
    sample_every: PositiveInt
    sample_rows: Annotated[PositiveInt, Field(le=256)]
    sample_columns: Annotated[PositiveInt, Field(le=256)]
    evaluate_every: PositiveInt
    objective: str | None
    checkpoint_every: PositiveInt
    keep_checkpoints: PositiveInt
    stop_on: list[str]


class Doctor(Section):
    """Thresholds of the doctor's rules."""

    samples: Annotated[int, Field(ge=16, le=10_000)]
    patience: PositiveInt
    grace: Annotated[float, Field(ge=0, lt=1)]
    sure: Annotated[float, Field(gt=0.5, lt=1)]
    vanished: PositiveFloat
    blind: PositiveFloat
    stuck_gap: PositiveFloat
    tolerance: PositiveFloat
    outside: PositiveFloat
    reach: PositiveFloat
    mean_error: PositiveFloat
    diversity: PositiveFloat
    lost: PositiveFloat
    nowhere: PositiveFloat
    poor: PositiveFloat
    class_kl: PositiveFloat
    covered: Annotated[float, Field(ge=0, le=1)]
    modes_missing: Annotated[float, Field(ge=0, lt=1)]
    mode_kl: PositiveFloat
    dead_units: PositiveFloat
    explosion: PositiveFloat
    swing: PositiveFloat
    swings: PositiveInt
    memorised: PositiveFloat
    copies: Annotated[float, Field(gt=0, lt=1)]


class Evaluation(Section):
    """How generated samples are compared with real ones."""

    extractor: str
    real: Literal["training", "held_out"] = "training"  # runs of earlier versions lack this key
    real_samples: PositiveInt | None


class Device(Section):
    """Where a run computes. This changes no results, except that dropout and batch norm see each process's part."""

    kind: Literal["auto", "cpu", "cuda", "mps", "data_parallel", "ddp"]
    device_ids: list[NonNegativeInt] | None
    processes: PositiveInt | None
    sync_batchnorm: bool
    hold_dataset: bool


class SideBySide(Section):
    """How the jobs of a sweep run on one machine: `hydra/launcher=local`."""

    jobs: PositiveInt | None
    jobs_per_gpu: PositiveInt
    retries: NonNegativeInt
    retry: list[Literal["failed", "diverged", "refused"]]
    timeout: PositiveFloat | None
    heartbeat: PositiveFloat | None
    fail_fast: bool
    dry_run: bool


class OnSlurm(Section):
    """How the jobs of a sweep run as jobs of SLURM: `hydra/launcher=slurm`."""

    partition: str | None
    account: str | None
    qos: str | None
    constraint: str | None
    timeout_min: PositiveInt
    gpus_per_node: NonNegativeInt
    cpus_per_task: PositiveInt
    mem_gb: PositiveFloat | None
    max_parallel: PositiveInt
    python: str | None
    setup: list[str]
    srun: list[str]
    additional: dict[str, str | int | bool]
    requeues: NonNegativeInt
    poll: PositiveFloat
    retry: list[Literal["failed", "diverged", "refused"]]
    dry_run: bool


class Halving(Section):
    """When a search stops the worse of its trials."""

    factor: Annotated[int, Field(ge=2)]
    first: PositiveFloat


class Searching(Section):
    """How a search goes: `hydra/sweeper=search`, but for what it searches."""

    trials: PositiveInt
    sampler: Literal["tpe", "random", "grid"]
    seed: NonNegativeInt
    halving: Halving | None


class Config(Section):
    """A whole run."""

    seed: NonNegativeInt
    name: Annotated[str, Field(min_length=1, pattern=r"^\P{Cc}*$")]  # no control characters
    resume: str | None
    fork_from: str | None
    trust: list[str]
    dataset: dict[str, Any]
    architecture: Architecture
    loss: dict[str, Any]
    augmentation: dict[str, Any] | None = None  # runs of earlier versions lack this key
    regularizer: dict[str, dict[str, Any]]
    optimizer: Optimizer
    metric: dict[str, dict[str, Any]]
    observer: dict[str, dict[str, Any]] = {}  # runs of earlier versions lack this key
    evaluation: Evaluation
    trainer: Trainer
    doctor: Doctor | None
    device: Device


def validate(kind: Any, value: Any, key: str = "") -> Any:
    """`value` as the type `kind`; raises a `UserError` that names the key.

    Of pydantic's modes, strict JSON is the one that takes lists for tuples but neither "5" nor true for a number. Whole
    floats become integers first, so that `trainer.steps=1e5` is allowed.
    """
    has_own_config = isinstance(kind, type) and (issubclass(kind, BaseModel) or is_dataclass(kind))
    adapter = TypeAdapter(kind, config=None if has_own_config else ConfigDict(arbitrary_types_allowed=True))
    try:
        return adapter.validate_json(json.dumps(_whole_floats_as_integers(value)), strict=True)
    except PydanticError as error:
        problem = error.errors()[0]
        path = [key] if key else []
        for part in problem["loc"]:  # besides keys, pydantic names branches of a union here, which no user typed
            if (isinstance(value, dict | list) and problem["type"] in ("missing", "extra_forbidden")) or _has(
                value, part
            ):
                path.append(str(part))
                value = value[part] if _has(value, part) else None
        raise UserError(_sentence(".".join(path), problem, kind)) from error


def _has(value: Any, part: str | int) -> bool:
    return part in value if isinstance(value, dict) else isinstance(value, list) and part in range(len(value))


def _whole_floats_as_integers(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _whole_floats_as_integers(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_whole_floats_as_integers(inner) for inner in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _sentence(path: str, problem: Any, model: Any) -> str:
    if problem["type"] == "extra_forbidden":
        *parents, last = problem["loc"]
        for parent in parents:
            kind = model.model_fields[parent].annotation  # a section, or a section or None
            model = next((section for section in get_args(kind) if hasattr(section, "model_fields")), kind)
        return f"{path}: no such key; {did_you_mean(str(last), model.model_fields)}"
    if problem["type"] == "missing":
        return f"{path}: is missing"
    found, meant = problem["input"], None
    if problem["type"] == "literal_error" and isinstance(found, str):
        meant = nearest(found, re.findall("'([^']*)'", problem["ctx"]["expected"]))
    hint = f"; did you mean '{meant}'?" if meant else ""
    hint += "; in YAML it needs quotes" if path in TEXT_KEYS and isinstance(found, bool | int | float) else ""
    return f"{path}: found {found!r} ({type(found).__name__}); {problem['msg'][0].lower()}{problem['msg'][1:]}{hint}"
