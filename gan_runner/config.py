"""The configuration: what Hydra composes, checked against types, ranges and signatures before any work starts.

Every default stands in `conf/`; the models below only say what is allowed. A node with a `_target_` is checked against
the signature of the class it names, so that a user's own class gets the same checks as ours.
"""

import importlib
import importlib.util
import inspect
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, is_dataclass
from typing import Annotated, Any, Literal, get_args, get_type_hints

import torch
from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveFloat, PositiveInt, TypeAdapter
from pydantic import ValidationError as PydanticError

from gan_runner.datasets import Dataset
from gan_runner.errors import UserError, did_you_mean
from gan_runner.losses import Loss
from gan_runner.metrics import Metric
from gan_runner.regularizers import Regularizer

# What a configuration found in a run directory may name besides what the user trusts: components, which compute and
# touch no files but the data's. Any other class of this package could be made to write.
PLAIN_MODULES = (
    *(f"gan_runner.{group}" for group in ("datasets", "networks", "losses", "metrics", "regularizers")),
    "torch.nn",
    "torch.optim",
)

# What the runner hands to a component; none of it can be set in YAML.
FACTS = {
    "architecture.generator": ("latent_dim", "shape", "num_classes", "value_range"),
    "architecture.discriminator": ("shape", "num_classes", "value_range"),
    "optimizer.generator": ("params",),
    "optimizer.discriminator": ("params",),
}

# What the doctor may find, causes before their consequences.
FINDINGS = (
    "divergence",
    "stuck_losses",
    "range",
    "discriminator_saturated",
    "exploding_gradients",
    "collapse",
    "fixed_point",
    "discriminator_blind",
    "dead_units",
    "oscillation",
    "memorisation",
    "not_learned",
)


class Section(BaseModel):
    """A group whose keys are known."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Latent(Section):
    """The distribution of the generator's input: loc + scale·n, loc + scale·u with u in [0, 1), or loc itself."""

    dim: PositiveInt
    distribution: Literal["normal", "uniform", "constant"]
    loc: float
    scale: float


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
    """From where on the doctor takes a figure for a sign that something is wrong."""

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
    """What generated samples are held against."""

    extractor: str
    real_samples: PositiveInt | None


class Device(Section):
    """Where it runs; nothing here changes the experiment but for what dropout and batch norm see of a batch."""

    kind: Literal["auto", "cpu", "cuda", "mps", "data_parallel", "ddp"]
    device_ids: list[NonNegativeInt] | None
    processes: PositiveInt | None
    sync_batchnorm: bool
    hold_dataset: bool


class Config(Section):
    """A whole run."""

    seed: NonNegativeInt
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]*[A-Za-z0-9_-][A-Za-z0-9_.-]*$")]
    resume: str | None
    fork_from: str | None
    trust: list[str]
    dataset: dict[str, Any]
    architecture: Architecture
    loss: dict[str, Any]
    regularizer: dict[str, dict[str, Any]]
    optimizer: Optimizer
    metric: dict[str, dict[str, Any]]
    evaluation: Evaluation
    trainer: Trainer
    doctor: Doctor | None
    device: Device


@dataclass(frozen=True)
class Component:
    """A class and the values of its keys, checked against each other."""

    key: str
    cls: type
    values: dict[str, Any]

    def build(self, **facts: Any) -> Any:
        """An instance; of `facts` it gets those that its signature names. What it refuses becomes a `UserError`."""
        parameters = inspect.signature(self.cls).parameters
        try:
            return self.cls(**self.values, **{k: v for k, v in facts.items() if k in parameters})
        except (TypeError, ValueError) as error:
            raise UserError(f"{self.key}: {self.cls.__name__} refuses its keys: {error}") from error


def check(plain: Mapping[str, Any]) -> Config:
    """Types, ranges and the rules between keys; raises `UserError` at the first that does not hold."""
    config = validate(Config, plain)
    components = {key: find_component(config, key) for key in component_keys(config)}
    loss, trainer, device = components["loss"].cls, config.trainer, config.device
    rules = [
        (
            getattr(loss, "paired", False) and trainer.discriminator_update == "separate",
            f"trainer.discriminator_update=separate: {loss.__name__} compares real with fake; it needs joint",
        ),
        (
            trainer.discriminator_update == "separate" and trainer.discriminator_forward == "concatenated",
            "trainer.discriminator_forward=concatenated: separate updates cannot share one forward; use separate",
        ),
        (
            trainer.compile and device.kind == "data_parallel",
            "trainer.compile=true: torch.compile does not work under device=data_parallel; use device=ddp",
        ),
        (
            device.processes is not None and device.kind != "ddp",
            f"device.processes={device.processes}: device={device.kind} is one process; use device=ddp",
        ),
        (
            device.sync_batchnorm and device.kind != "ddp",
            f"device.sync_batchnorm=true: device={device.kind} has nothing to synchronise; use device=ddp",
        ),
        (
            config.optimizer.warmup_steps >= trainer.steps,
            f"optimizer.warmup_steps={config.optimizer.warmup_steps}: must be below trainer.steps={trainer.steps}",
        ),
        (
            trainer.generator_start >= trainer.steps,
            f"trainer.generator_start={trainer.generator_start}: must be below trainer.steps={trainer.steps}",
        ),
        (
            trainer.stop_on and config.doctor is None,
            f"trainer.stop_on={trainer.stop_on}: doctor=none finds nothing to stop on; use doctor=default",
        ),
        (
            config.resume is not None and config.fork_from is not None,
            "fork_from: cannot be combined with resume; fork_from starts a new run, resume goes on with one",
        ),
    ]
    for broken, sentence in rules:
        if broken:
            raise UserError(sentence)
    for name in trainer.stop_on:
        if name not in FINDINGS:
            raise UserError(f"trainer.stop_on: found {name!r}; {did_you_mean(name, FINDINGS)}")
    return config


def component_keys(config: Config) -> list[str]:
    """The keys of everything with a `_target_`, e.g. "architecture.generator"."""
    return list(_nodes(config))


def find_component(config: Config, key: str) -> Component:
    """The class at `key` with its values, checked against each other; raises `UserError`."""
    return component(key, *_nodes(config)[key])


def _nodes(config: Config) -> dict[str, tuple[dict[str, Any], type]]:
    """Every node with a `_target_`, and what its class must be a subclass of."""
    return {
        "dataset": (config.dataset, Dataset),
        "architecture.generator": (config.architecture.generator, torch.nn.Module),
        "architecture.discriminator": (config.architecture.discriminator, torch.nn.Module),
        "loss": (config.loss, Loss),
        "optimizer.generator": (config.optimizer.generator, torch.optim.Optimizer),
        "optimizer.discriminator": (config.optimizer.discriminator, torch.optim.Optimizer),
        **{f"regularizer.{name}": (node, Regularizer) for name, node in config.regularizer.items()},
        **{f"metric.{name}": (node, Metric) for name, node in config.metric.items()},
    }


def component(key: str, node: Mapping[str, Any], base: type) -> Component:
    """The class that `node` names, a subclass of `base`, and its keys checked against the signature."""
    cls = locate(key, node.get("_target_"), base)
    signature = inspect.signature(cls)
    hints = get_type_hints(cls.__init__, include_extras=True)  # type: ignore[misc]
    facts = FACTS.get(key, ())
    own = {name: p for name, p in signature.parameters.items() if name not in facts}
    takes_any = any(p.kind is p.VAR_KEYWORD for p in own.values())
    values = {}
    for name, value in node.items():
        if name == "_target_":
            continue
        if name in facts:
            raise UserError(f"{key}.{name}: is injected by the runner and cannot be set")
        if name not in own and not takes_any:
            raise UserError(f"{key}.{name}: {cls.__name__} has no such key; {did_you_mean(name, own)}")
        path = f"{key}.{name}"
        values[name] = build_nested(path, value) if find_targets(value) else validate(hints.get(name, Any), value, path)
    required = [n for n, p in own.items() if p.default is p.empty and p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)]
    for name in required:
        if name not in values:
            raise UserError(f"{key}.{name}: is missing; {cls.__name__} needs it")
    return Component(key, cls, values)


def build_nested(key: str, value: Any) -> Any:
    """`value` with every node inside it that has a `_target_` replaced by what it describes."""
    if isinstance(value, Mapping):
        if "_target_" in value:
            return component(key, value, object).build()
        return {name: build_nested(f"{key}.{name}", inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [build_nested(f"{key}.{i}", inner) for i, inner in enumerate(value)]
    return value


def locate(key: str, target: Any, base: type) -> type:
    """The class with the dotted path `target`, which must be a subclass of `base`."""
    if target is None:
        raise UserError(f"{key}: has keys but no _target_; choose what it is, or take it out with ~{key}")
    if not isinstance(target, str) or "." not in target:
        raise UserError(f"{key}._target_: found {target!r}; the dotted path of a class is needed")
    module, _, name = target.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise UserError(f"{key}._target_: cannot find {target}: {error}") from error
    if not (isinstance(found, type) and issubclass(found, base)):
        raise UserError(f"{key}._target_: {target} is not a {base.__module__}.{base.__qualname__}")
    if undefined := sorted(getattr(found, "__abstractmethods__", ())):
        every = f"every {base.__qualname__} must"
        raise UserError(f"{key}._target_: {target} does not define what {every}: {', '.join(undefined)}")
    return found


def find_targets(node: Any, key: str = "") -> dict[str, str]:
    """Every `_target_` in `node`, at any depth, by its key."""
    children: Mapping[Any, Any] = (
        node if isinstance(node, Mapping) else dict(enumerate(node)) if isinstance(node, list) else {}
    )
    found = {}
    for name, child in children.items():
        path = f"{key}.{name}" if key else str(name)
        if name == "_target_":
            found[path] = str(child)
        found |= find_targets(child, path)
    return found


def refuse_foreign_targets(plain: Mapping[str, Any], trust: Sequence[str], where: str) -> None:
    """Refuses a configuration that was not typed by the user if it names anything outside the packages in `trust`.

    Nothing is imported before this has passed: an import alone can run code.
    """
    packages = (*PLAIN_MODULES, *trust)
    for key, target in find_targets(plain).items():
        if not any(target.startswith(f"{package}.") for package in packages):
            raise UserError(
                f"{where}: {key} is {target}, which is none of the components of gan_runner and torch; nothing of this "
                f"run was loaded. If you trust it, add trust=[{target.split('.')[0]}]"
            )
        module, _, name = target.rpartition(".")
        if not target.startswith(tuple(f"{package}." for package in trust)):
            found = getattr(importlib.import_module(module), name, None) if _is_module(module) else None
            if not isinstance(found, type) or found.__module__.split(".")[0] != target.split(".")[0]:
                raise UserError(f"{where}: {key} is {target}, which is no class of that package; nothing was loaded")


def _is_module(path: str) -> bool:
    """Whether `path` names a module; asked parent by parent, so that `gan_runner.train.os` is not taken for one."""
    try:
        return importlib.util.find_spec(path) is not None
    except ModuleNotFoundError:
        return False


def validate(kind: Any, value: Any, key: str = "") -> Any:
    """`value` as the annotation `kind`; what does not fit becomes one sentence that names the key.

    Strict JSON is the mode of pydantic that knows no tuples but takes no "5" or true for a number either; whole floats
    pass as integers, so that `trainer.steps=1e5` means what it says.
    """
    has_own_config = isinstance(kind, type) and (issubclass(kind, BaseModel) or is_dataclass(kind))
    adapter = TypeAdapter(kind, config=None if has_own_config else ConfigDict(arbitrary_types_allowed=True))
    try:
        return adapter.validate_json(json.dumps(_whole_floats_as_integers(value)), strict=True)
    except PydanticError as error:
        problem = error.errors()[0]
        path = [key] if key else []
        for part in problem["loc"]:  # pydantic also puts the branch of a union there, which no user typed
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
    found = problem["input"]
    return f"{path}: found {found!r} ({type(found).__name__}); {problem['msg'][0].lower()}{problem['msg'][1:]}"
