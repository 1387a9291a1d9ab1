"""Which run a command means: a new one, or an existing one that it continues unchanged."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from gan_runner.config.composition import Request
from gan_runner.config.schema import validate
from gan_runner.config.trust import find_targets
from gan_runner.errors import UserError, did_you_mean, one_line
from gan_runner.overrides import literal, override
from gan_runner.paths import as_path
from gan_runner.runs.directory import is_run, is_taken, read_run

# The keys that a resumed run may change, because they do not change its results; other data are refused anyway.
MAY_CHANGE = (
    *("dataset.root", "dataset.download", "dataset.allow_empty", "dataset.samples_seed"),
    *("device", "trainer.steps", "resume", "trust"),
)


NO_CHOICES = ("resume", "fork_from", "trust", "name", "hydra.", "hydra/")  # they say nothing of how a run trains


@dataclass(frozen=True)
class Plan:
    """Which run a command means, and its configuration."""

    plain: dict[str, Any]
    path: Path
    unique: bool = False  # if `path` exists, a new directory gets another name
    stored: dict[str, Any] | None = None  # the configuration of the run that is continued
    typed: dict[str, Any] = field(default_factory=dict)  # keys and groups, with their values

    @property
    def continues(self) -> bool:
        """Whether it continues an existing run."""
        return self.stored is not None

    @property
    def has_other_place_of_data(self) -> bool:
        """Whether an existing run would go on with data from elsewhere."""
        return self.stored is not None and place_of_data(self.stored) != place_of_data(self.plain)


def place_of_data(plain: Mapping[str, Any]) -> Path | None:
    """Where the data of a configuration are, from any working directory; None for data from nowhere."""
    root = _text_in(plain, "dataset", "root")
    return None if root is None else as_path("dataset.root", root).absolute()


def _text_in(plain: Mapping[str, Any], section: str, name: str) -> str | None:
    """A value of a configuration that may not be checked yet; None if it is no text."""
    values = plain.get(section)
    value = values.get(name) if isinstance(values, dict) else None
    return value if isinstance(value, str) else None


def with_places(plain: dict[str, Any]) -> dict[str, Any]:
    """The configuration as a run keeps it: its data and its extractor are found from any working directory."""
    kept, place = dict(plain), place_of_data(plain)
    if place is not None and place.exists():  # else a root that a user's own class understands
        kept["dataset"] = plain["dataset"] | {"root": str(place)}
    choice = _text_in(plain, "evaluation", "extractor")
    if choice is not None and choice != "auto" and (extractor := as_path("evaluation.extractor", choice)).is_file():
        kept["evaluation"] = plain["evaluation"] | {"extractor": str(extractor.absolute())}
    return kept


def make_plan(request: Request) -> Plan:
    """The plan for `request`: a new run or an existing one. Changes nothing on the disk. Raises `UserError`."""
    plain = request.plain
    resume = validate(str | None, plain.get("resume"), "resume")
    trust = validate(list[str], plain.get("trust"), "trust")
    typed = {
        k: v for k, v in request.overridden.items() if k not in NO_CHOICES and not k.startswith(("hydra.", "hydra/"))
    }
    for key in ("resume", "fork_from"):
        if plain.get(key) == "":  # an unset variable, most likely; Path("") would be the current directory
            raise UserError(f"{key}: is empty; allowed: a run directory")
    if resume is not None:
        path = as_path("resume", resume)
        stored = read_run(path, trust, "resume")
        wanted = _with_overrides(stored, request)
    elif request.directory_chosen and is_run(request.directory):
        path, wanted = request.directory, plain
        own = [
            target.split(".")[0] for target in find_targets(plain).values()
        ]  # the user typed these: they are trusted
        stored = read_run(path, [*trust, *own], "hydra.run.dir")
    elif request.directory_chosen and is_taken(request.directory):
        raise UserError(f"{request.directory}: is no run, and not empty; a run would mix with what is there")
    else:
        return Plan(plain, request.directory, unique=not request.directory_chosen, typed=typed)
    return Plan(wanted | {"resume": None, "trust": trust}, path, stored=stored, typed=typed)


def _with_overrides(stored: dict[str, Any], request: Request) -> dict[str, Any]:
    """The configuration of a run, changed by what the user typed besides `resume`."""
    if request.overridden.get("experiment") is not None:
        return request.plain
    wanted = OmegaConf.create(_literally(stored))
    OmegaConf.set_struct(wanted, True)
    for key, value in request.overridden.items():
        if key.startswith(("hydra.", "hydra/")):
            continue
        parent, _, name = key.rpartition(".")
        try:
            if parent:
                OmegaConf.update(wanted, key, value)
            else:
                wanted[key] = request.plain.get(key)  # a group: its new content, or None if it was removed
        except OmegaConfBaseException as error:
            allowed = OmegaConf.select(wanted, parent) or {}
            raise UserError(f"{key}: the run has no such key; {did_you_mean(name, allowed)}") from error
    try:
        resolved = OmegaConf.to_container(wanted, resolve=True)
    except OmegaConfBaseException as error:
        raise UserError(one_line(error)) from error
    assert isinstance(resolved, dict)
    return {str(key): value for key, value in resolved.items()}


def _literally(node: Any) -> Any:
    """Values that are resolved, for OmegaConf to resolve once more: a `${` in them is only text."""
    if isinstance(node, dict):
        return {key: _literally(value) for key, value in node.items()}
    if isinstance(node, list):
        return [_literally(value) for value in node]
    return literal(node) if isinstance(node, str) else node


def changed_keys(before: Any, after: Any, key: str = "") -> list[str]:
    """The keys whose values differ, except those that a resumed run may change."""
    if key in MAY_CHANGE:
        return []
    if not (isinstance(before, dict) and isinstance(after, dict)):
        return [] if before == after and type(before) is type(after) else [key]
    names = [*before, *(name for name in after if name not in before)]
    return [c for n in names for c in changed_keys(before.get(n), after.get(n), f"{key}.{n}" if key else str(n))]


def refuse_changes(plan: Plan) -> None:
    """Raises `UserError` if an existing run would continue with other keys, or with a number of steps it cannot have.

    The plan's configuration has been checked, so that values of the same types are compared.
    """
    if plan.stored is None:
        return
    stored, wanted, path = plan.stored, plan.plain, plan.path
    changes = changed_keys(with_places(stored), with_places(wanted))
    if changes:
        raise UserError(
            f"{path}: was started with another configuration ({', '.join(changes)}); a run goes on unchanged. "
            f"To start a new run of what you choose from its weights: {override('fork_from', path)}"
        )
    before, after = stored["trainer"]["steps"], wanted["trainer"]["steps"]
    if after < before:
        raise UserError(f"trainer.steps={after}: the run in {path} was started with {before}; it can only be extended")
    if after > before and stored["optimizer"]["schedule"] != "constant":
        raise UserError(
            f"trainer.steps={after}: the {stored['optimizer']['schedule']} schedule of the run in {path} depends on "
            f"its {before} steps, so a longer run would have begun differently"
        )
