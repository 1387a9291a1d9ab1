"""The classes that a configuration names with `_target_`. Each is imported once, and its keys are checked.

A user's own class gets the same checks as ours.
"""

import importlib
import inspect
import math
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from typing import Any, get_type_hints

import torch

from gan_runner.augmentation import Augmentation
from gan_runner.config.schema import Config, validate
from gan_runner.config.trust import find_targets
from gan_runner.datasets import Dataset
from gan_runner.errors import UserError, did_you_mean, one_line
from gan_runner.losses import Loss
from gan_runner.metrics import Metric
from gan_runner.regularizers import Regularizer

# Arguments that the runner gives to a component, and that YAML therefore cannot set.
INJECTED = {
    "dataset": ("labels_wanted", "class_order"),
    "architecture.generator": ("latent_dim", "shape", "num_classes", "value_range"),
    "architecture.discriminator": ("shape", "num_classes", "value_range"),
    "augmentation": ("shape", "value_range", "batch_size"),
    "regularizer": ("shape", "data_std"),  # each of the group
    "optimizer.generator": ("params",),
    "optimizer.discriminator": ("params",),
}


@dataclass(frozen=True)
class Component:
    """A class and the values of its keys, which fit its signature."""

    key: str
    cls: type
    values: dict[str, Any]

    def takes(self, fact: str) -> bool:
        """Whether its class wants this fact from the runner."""
        return fact in inspect.signature(self.cls).parameters

    def build(self, **facts: Any) -> Any:
        """An instance, which gets those of `facts` that its signature names. Values it refuses are a `UserError`."""
        try:
            return self.cls(**self.values, **{k: v for k, v in facts.items() if self.takes(k)})
        except (TypeError, ValueError, OverflowError) as error:
            raise self.refusal(error) from error
        except SystemExit as stop:
            raise UserError(f"{self.key}: {self.cls.__name__} called sys.exit({stop.code})") from stop

    def refusal(self, error: Exception) -> UserError:
        """What the class says of its keys, with the key and value that it speaks of."""
        message, values = one_line(error), self.values
        if isinstance(error, OverflowError) or "Overflow" in message:  # said in terms of torch's or Python's own code
            message = "too large a number"
            meant = [name for name, value in values.items() if any(number >= 2**63 for number in _integers(value))]
            named = meant
        else:
            words = re.findall(r"[-+]?[\w.]*\w", message.lower())
            meant = [name for name, value in values.items() if any(map(words.__contains__, _as_words(value)))]
            named = [name for name in values if name.lower() in words]
        for names in ([name for name in meant if name in named], meant, named):
            if len(names) == 1:
                return UserError(f"{self.key}.{names[0]}={values[names[0]]}: {self.cls.__name__}: {message}")
        found = ", ".join(f"{name}={values[name]}" for name in meant or named or values) or "no keys"
        return UserError(f"{self.key}: {self.cls.__name__} refuses {found}: {message}")


@dataclass(frozen=True)
class Experiment:
    """A checked configuration, and every class that it names."""

    plain: dict[str, Any]  # the content of config.yaml
    config: Config
    components: dict[str, Component]  # by key, e.g. "architecture.generator"

    def build(self, key: str, **facts: Any) -> Any:
        """An instance of the component at `key`; see `Component.build`."""
        return self.components[key].build(**facts)

    def group(self, name: str) -> dict[str, Component]:
        """The components of a group with several choices, such as "regularizer", by the name below it."""
        return {key.partition(".")[2]: c for key, c in self.components.items() if key.startswith(f"{name}.")}


def _as_words(value: Any) -> set[str]:
    """How a message may write a value, or one inside it."""
    if isinstance(value, list | tuple):
        return {word for inner in value for word in _as_words(inner)}
    return {str(value).lower(), str(float(value))} if type(value) in (int, float) else {str(value).lower()}


def _integers(value: Any) -> list[int]:
    values = value if isinstance(value, list | tuple) else [value]
    return [abs(number) for number in values if isinstance(number, int)]


def check(plain: Mapping[str, Any]) -> Experiment:
    """Checks types, ranges, signatures and the rules between keys; raises `UserError` at the first mistake."""
    config = validate(Config, plain)
    components = {key: component(key, node, base) for key, (node, base) in _component_nodes(config).items()}
    mistake = next(chain(_in_the_game(config, components), _in_the_run(config)), None)
    if mistake is not None:
        raise UserError(mistake)
    return Experiment(dict(plain), config, components)


def _in_the_game(config: Config, components: Mapping[str, Component]) -> Iterator[str]:
    """What does not go together of the loss, the penalties, the augmentation and the conditioning."""
    loss, trainer = components["loss"].cls, config.trainer
    augmentation = components["augmentation"].cls if "augmentation" in components else Augmentation
    comparing = [loss.__name__] if getattr(loss, "paired", False) else []
    comparing += [key for key, c in components.items() if issubclass(c.cls, Regularizer) and c.cls.paired]
    if comparing and trainer.discriminator_update == "separate":
        yield f"trainer.discriminator_update=separate: {comparing[0]} compares real with fake; it needs joint"
    if trainer.discriminator_forward == "concatenated" and trainer.discriminator_update == "separate":
        yield "trainer.discriminator_forward=concatenated: separate updates cannot share one forward; use separate"
    if getattr(augmentation, "adapts", ()) and not getattr(loss, "anchored", True):
        yield (
            f"augmentation: {augmentation.__name__} adapts to the sign of D's logits, which {loss.__name__} gives no "
            "meaning; choose another loss, or an augmentation that does not adapt, such as diffaugment"
        )
    if config.architecture.conditional and trainer.packing > 1:
        yield (
            f"trainer.packing={trainer.packing}: the samples of a pack have no label in common; "
            "use architecture.conditional=false"
        )
    if (clusters := components["dataset"].values.get("clusters")) is not None and not config.architecture.conditional:
        yield f"dataset.clusters={clusters}: the networks are unconditional; use architecture.conditional=true"
    for key in ("architecture.generator", "architecture.discriminator"):
        chosen = components[key].values.get("conditioning")
        if chosen is not None and not config.architecture.conditional:
            yield f"{key}.conditioning={chosen}: the networks are unconditional; use architecture.conditional=true"


def _in_the_run(config: Config) -> Iterator[str]:
    """What does not go together of the device, the number of steps and what begins or ends a run."""
    trainer, device = config.trainer, config.device
    if trainer.compile and device.kind == "data_parallel":
        yield "trainer.compile=true: torch.compile does not work under device=data_parallel; use device=ddp"
    if device.processes is not None and device.kind != "ddp":
        yield f"device.processes={device.processes}: device={device.kind} is one process; use device=ddp"
    if device.sync_batchnorm and device.kind != "ddp":
        yield f"device.sync_batchnorm=true: device={device.kind} has nothing to synchronise; use device=ddp"
    if config.optimizer.warmup_steps >= trainer.steps:
        yield f"optimizer.warmup_steps={config.optimizer.warmup_steps}: must be below trainer.steps={trainer.steps}"
    if trainer.generator_start >= trainer.steps:
        yield f"trainer.generator_start={trainer.generator_start}: must be below trainer.steps={trainer.steps}"
    if trainer.stop_on and config.doctor is None:
        yield f"trainer.stop_on={trainer.stop_on}: doctor=none finds nothing to stop on; use doctor=default"
    if config.resume is not None and config.fork_from is not None:
        yield "fork_from: cannot be combined with resume; fork_from starts a new run, resume goes on with one"


def _component_nodes(config: Config) -> dict[str, tuple[dict[str, Any], type]]:
    """Every node that is a component, and the base class that it must have."""
    return {
        "dataset": (config.dataset, Dataset),
        "architecture.generator": (config.architecture.generator, torch.nn.Module),
        "architecture.discriminator": (config.architecture.discriminator, torch.nn.Module),
        "loss": (config.loss, Loss),
        **({} if config.augmentation is None else {"augmentation": (config.augmentation, Augmentation)}),
        "optimizer.generator": (config.optimizer.generator, torch.optim.Optimizer),
        "optimizer.discriminator": (config.optimizer.discriminator, torch.optim.Optimizer),
        **{f"regularizer.{name}": (node, Regularizer) for name, node in config.regularizer.items()},
        **{f"metric.{name}": (node, Metric) for name, node in config.metric.items()},
        **{f"observer.{name}": (node, object) for name, node in config.observer.items()},
    }


def component(key: str, node: Mapping[str, Any], base: type) -> Component:
    """The class that `node` names, a subclass of `base`, and its keys, checked against its signature."""
    cls = locate(key, node.get("_target_"), base)
    try:
        signature = inspect.signature(cls)
    except ValueError as error:  # of a class that is not written in Python
        raise UserError(f"{key}._target_: {cls.__name__} does not say which keys it has") from error
    hints: dict[str, Any] = {}
    with suppress(NameError):  # of what is imported for type checkers alone: such values are not checked
        hints = get_type_hints(cls.__init__, include_extras=True)  # type: ignore[misc]
    injected = INJECTED.get("regularizer" if base is Regularizer else key, ())
    own = {name: p for name, p in signature.parameters.items() if name not in injected}
    takes_any = any(p.kind is p.VAR_KEYWORD for p in own.values())
    values = {}
    for name, value in node.items():
        if name == "_target_":
            continue
        if name in injected:
            raise UserError(f"{key}.{name}: is injected by the runner and cannot be set")
        if name not in own and not takes_any:
            if value is None:  # of the choice whose _target_ was replaced
                continue
            raise UserError(f"{key}.{name}: {cls.__name__} has no such key; {did_you_mean(name, own)}")
        path = f"{key}.{name}"
        if base in (torch.optim.Optimizer, Regularizer) and isinstance(value, float) and not math.isfinite(value):
            raise UserError(f"{path}: found {value} (float); input should be a finite number")
        values[name] = build_nested(path, value) if find_targets(value) else validate(hints.get(name, Any), value, path)
    required = [n for n, p in own.items() if p.default is p.empty and p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)]
    for name in required:
        if name not in values:
            raise UserError(f"{key}.{name}: is missing; {cls.__name__} needs it")
    return Component(key, cls, values)


def build_nested(key: str, value: Any) -> Any:
    """`value`, in which each node with a `_target_` is replaced by an instance of that class."""
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
    if not isinstance(target, str) or "." not in target or not all(map(str.isidentifier, target.split("."))):
        raise UserError(f"{key}._target_: found {target!r}; the dotted path of a class is needed")
    module, _, name = target.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise UserError(f"{key}._target_: cannot find {target}: {error}") from error
    except SystemExit as stop:
        raise UserError(f"{key}._target_: importing {module} called sys.exit({stop.code})") from stop
    if not (isinstance(found, type) and issubclass(found, base)):
        wanted = "a class" if base is object else f"a {base.__module__}.{base.__qualname__}"
        raise UserError(f"{key}._target_: {target} is not {wanted}")
    if found is base and base is not object:
        raise UserError(f"{key}._target_: {target} is the base class; name one of its subclasses")
    if undefined := sorted(getattr(found, "__abstractmethods__", ())):
        every = f"every {base.__qualname__} must"
        raise UserError(f"{key}._target_: {target} does not define what {every}: {', '.join(undefined)}")
    return found
