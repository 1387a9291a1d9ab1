"""Composing a configuration with Hydra. A user's mistake becomes one line. Only this folder uses Hydra's internals.

Hydra itself makes a run's directory before the run can refuse its configuration, and answers some mistakes with a
traceback. Nothing here imports torch, so that `--help` answers at once.
"""

import argparse
import itertools
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import hydra
import yaml
from hydra import version
from hydra._internal.callbacks import Callbacks
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_search_path_impl import ConfigSearchPathImpl
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path, get_args_parser
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override
from hydra.core.plugins import Plugins
from hydra.core.utils import setup_globals
from hydra.errors import ConfigCompositionException, HydraException, MissingConfigException
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from gan_runner import __version__
from gan_runner.config.own_yaml import GLOBAL, CheckedRepository
from gan_runner.errors import UserError, did_you_mean, one_line
from gan_runner.names import directory_name
from gan_runner.overrides import as_typed, in_hydra_grammar
from gan_runner.paths import CONF, as_path

TAKES_SEVERAL = ("regularizer", "metric", "observer")  # groups of which a list may be chosen
SEARCH = "gan_runner.commands.search.run_search"  # the _target_ of hydra/sweeper=search


@dataclass(frozen=True)
class Request:
    """What a command line asks for."""

    plain: dict[str, Any]  # the configuration, resolved
    overrides: list[Override]  # as the user typed them
    directory: Path  # Hydra's run directory
    directory_chosen: bool  # by the user: the same command then means the same run

    @property
    def overridden(self) -> dict[str, Any]:
        """The values that the user typed, by key or group."""
        return {override.key_or_group: override.value() for override in self.overrides}


def parse_arguments() -> argparse.Namespace:
    """The command line as Hydra parses it: overrides, and options such as `--config-dir`. Raises `UserError`."""

    def refuse(message: str) -> NoReturn:  # argparse's own would print how it is used, over many lines
        raise UserError(message)

    parser = get_args_parser()
    parser.error = refuse  # type: ignore[method-assign]
    for action in parser._actions:
        if action.dest == "version":
            action.version = f"gan_runner {__version__} (Hydra {hydra.__version__})"  # type: ignore[attr-defined]
    arguments = parser.parse_intermixed_args()  # -m may stand between overrides
    try:
        "".join(sys.argv).encode()
    except UnicodeEncodeError as error:
        word = next(word for word in sys.argv if any("\ud800" <= letter <= "\udfff" for letter in word))
        raise UserError(f"{word}: is not in UTF-8") from error
    return arguments


def parse(overrides: Sequence[str], loader: Hydra | None = None, sweep: bool = False) -> list[Override]:
    """The overrides, parsed by Hydra's grammar; raises `UserError`. Expanding a glob needs a `loader`."""
    parser = OverridesParser.create(loader.config_loader if loader is not None else None)
    parsed = []
    for override in overrides:
        try:
            parsed += parser.parse_overrides([in_hydra_grammar(override, sweep)])
        except HydraException as error:
            if not override.partition("=")[0] or ("=" not in override and not override.startswith("~")):
                raise UserError(f"{override}: is no key=value; there are no spaces around the =") from error
            raise UserError(
                f"{override}: is not in Hydra's grammar, where a value with = ( [ {{ or a leading ~ needs quotes of "
                f"its own: {override.partition('=')[0]}='\"…\"'"
            ) from error
    return parsed


@dataclass(frozen=True)
class SweepRequest:
    """What a command line with `-m` asks for."""

    jobs: list["JobRequest"]
    directory: Path
    config: DictConfig  # that of the first job, for Hydra's node in it


@dataclass(frozen=True)
class JobRequest:
    """One run of a sweep."""

    swept: dict[str, str]  # what is swept, as typed
    overrides: list[str]  # all of the job's, but Hydra's own
    plain: dict[str, Any]  # its configuration, resolved


@dataclass(frozen=True)
class SearchRequest:
    """What a command line with `-m` asks for if a search chooses the values."""

    space: dict[str, Override]  # what is searched, by key
    job: Callable[[Mapping[str, str]], JobRequest]  # the run with these values, one for each key
    directory: Path
    config: DictConfig  # with a value of each, for Hydra's node in it


def compose_sweep(overrides: Sequence[str], config_name: str, config_dir: str | None) -> SweepRequest | SearchRequest:
    """Each combination of what is swept, on the command line or in hydra.sweeper.params; raises `UserError`.

    Under hydra/sweeper=search not all of them are run. A sweep whose name is not typed is named by the time.
    """
    loader = _loader(config_dir)
    typed = parse(overrides, loader, sweep=True)
    first = compose([_any_value(override) for override in typed], config_name, config_dir)
    in_yaml = [f"{key}={value}" for key, value in (first.hydra.sweeper.get("params") or {}).items()]
    params = parse(in_yaml, loader, sweep=True)
    by_key = {override.get_key_element(): override for override in [*params, *typed]}  # what is typed has the last word
    swept = [key for key, override in by_key.items() if override.is_sweep_override()]

    def job(words: Mapping[str, str]) -> JobRequest:
        own = [word for key, word in words.items() if not key.lstrip("+~").startswith(("hydra.", "hydra/"))]
        values = {key.lstrip("+"): as_typed(key, words[key].removeprefix(f"{key}=")) for key in swept}
        return JobRequest(values, own, plain(compose([*words.values()], config_name, config_dir)))

    is_named = bool({"name", "hydra.sweep.dir"} & ({*by_key} - {*swept}))
    directory = as_path("hydra.sweep.dir", first.hydra.sweep.dir)
    if first.hydra.sweeper._target_ == SEARCH:
        fixed = {key: str(override.input_line) for key, override in by_key.items() if key not in swept}
        space = {key: by_key[key] for key in swept}
        return SearchRequest(
            space,
            lambda values: job(fixed | {key: f"{key}={values[key]}" for key in swept}),
            directory if is_named else _dated(directory),
            first,
        )
    chosen = itertools.product(*(_choices(override) for override in by_key.values()))
    jobs = [job(dict(zip(by_key, words, strict=True))) for words in chosen]
    if not is_named:
        has_one_name = len({job.plain.get("name") for job in jobs}) == 1
        directory = _dated(directory if has_one_name else directory.with_name("sweep"))
    return SweepRequest(jobs, directory, first)


def _dated(directory: Path) -> Path:
    """The directory of a sweep without a name of its own, which is not there yet."""
    dated = directory.with_name(f"{directory.name}_{time.strftime('%Y-%m-%d_%H-%M-%S')}")
    numbered = (dated.with_name(f"{dated.name}_{number}") for number in itertools.count(2))
    return next(path for path in itertools.chain([dated], numbered) if not path.exists())


def is_grid(config: DictConfig) -> bool:
    """Whether the jobs of a sweep are all combinations, and no sweeper chooses among them."""
    return bool(config.hydra.sweeper._target_ == f"{BasicSweeper.__module__}.{BasicSweeper.__name__}")


def make_launcher(config: DictConfig, config_dir: str | None, task: Callable[[DictConfig], Any]) -> Launcher:
    """The launcher that `config` names, another than ours, to call `task` for each job."""
    context = HydraContext(_loader(config_dir).config_loader, Callbacks(config))
    return Plugins.instance().instantiate_launcher(context, task, config)


def _any_value(override: Override) -> str:
    """The override, with the first of its values if it is swept."""
    if override.is_interval_sweep():
        interval = override.value()
        assert isinstance(interval, IntervalSweep)
        return f"{override.get_key_element()}={interval.start}"
    return _choices(override)[0]


def _needs_search(interval: Override) -> str:
    return f"{interval.input_line}: has no end of values, which needs a search: -m hydra/sweeper=search"


def _choices(override: Override) -> list[str]:
    """The values of an override that is swept, each as an override; otherwise the override itself."""
    if not override.is_sweep_override():
        return [str(override.input_line)]
    if not override.is_discrete_sweep():
        raise UserError(_needs_search(override))
    choices = [f"{override.get_key_element()}={value}" for value in override.sweep_string_iterator()]
    if not choices:
        raise UserError(f"{override.input_line}: stands for nothing")
    return choices


OmegaConf.register_new_resolver("directory_name", lambda text: directory_name(str(text)), replace=True)  # for conf/


def compose(overrides: Sequence[str], config_name: str, config_dir: str | None = None) -> DictConfig:
    """The configuration, including Hydra's own node; raises `UserError`."""
    loader = _loader(config_dir)
    try:
        words = [*map(in_hydra_grammar, overrides)]
        config = loader.compose_config(config_name, words, RunMode.RUN, from_shell=False)
        HydraConfig.instance().set_config(config)  # the run's name and directory are made from the choices in it
        OmegaConf.to_container(config.hydra.run, resolve=True, throw_on_missing=True)
        if OmegaConf.is_missing(config.hydra.sweep, "dir"):
            raise UserError("hydra.sweep.dir: is missing")
        if "observer" in config and not OmegaConf.is_dict(config.observer):  # without a folder of that group, a value
            raise UserError(
                f"observer={config.observer}: no such observer; its YAML belongs into observer/ in the folder that "
                "--config-dir names"
            )
        _refuse_lists(overrides, loader)
        GlobalHydra.instance().clear()  # it holds one composition at a time
        return config
    except MissingConfigException as error:
        raise UserError(_missing_choice(error, loader)) from error
    except ConfigCompositionException as error:
        for interval in filter(Override.is_interval_sweep, parse(overrides)):
            raise UserError(_needs_search(interval)) from error
        raise UserError(_missing_key(error, list(overrides), config_name, config_dir)) from error
    except (HydraException, OmegaConfBaseException, yaml.YAMLError, OSError, ValueError) as error:
        groups = loader.config_loader.list_groups("")
        for override in parse(overrides):
            is_typed = override.key_or_group in groups and not override.is_delete()
            if is_typed and isinstance(override.value(), int | float | None):  # Hydra does not name the group
                allowed = ", ".join(loader.config_loader.get_group_options(override.key_or_group))
                raise UserError(f"{override.input_line}: is no choice (allowed: {allowed})") from error
        raise UserError(one_line(error)) from error
    except RecursionError as error:
        raise UserError(f"{CheckedRepository.newest}: its defaults lead back to itself") from error


def _refuse_lists(overrides: Sequence[str], loader: Hydra) -> None:
    """UserError for a list of choices of a group that takes one, and for a list with one choice twice."""
    for override in parse(overrides):
        group, chosen = override.key_or_group, override.value()
        if not isinstance(chosen, list) or group not in loader.config_loader.list_groups(""):
            continue
        if group not in (*TAKES_SEVERAL, *GLOBAL):
            sweep = f"; a sweep over several is -m {group}={','.join(map(str, chosen))}" if chosen else ""
            raise UserError(f"{override.input_line}: {group} takes one choice{sweep}")
        for name, count in Counter(map(str, chosen)).items():
            if count > 1:
                raise UserError(f"{override.input_line}: has {name} twice")


def _loader(config_dir: str | None) -> Hydra:
    search_path = create_config_search_path(str(CONF))
    if config_dir is not None:
        folder = as_path("--config-dir", config_dir)
        if not folder.is_dir():
            raise UserError(f"--config-dir {config_dir}: there is no such folder")
        assert isinstance(search_path, ConfigSearchPathImpl)
        search_path.prepend("command-line", f"file://{folder.resolve()}")
    GlobalHydra.instance().clear()
    setup_globals()
    version.setbase("1.3")
    hydra = Hydra.create_main_hydra2("gan_runner", search_path)
    assert isinstance(hydra.config_loader, ConfigLoaderImpl)
    hydra.config_loader.repository = CheckedRepository(search_path)
    return hydra


def plain(config: DictConfig) -> dict[str, Any]:
    """The configuration without Hydra's node, resolved, as plain Python values; raises `UserError`."""
    try:
        whole = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
        resolved = OmegaConf.to_container(whole, resolve=True, throw_on_missing=True)
    except MissingMandatoryValue as error:
        raise UserError(f"{error.full_key}: is missing; type {error.full_key}=…") from error
    except OmegaConfBaseException as error:
        raise UserError(one_line(error)) from error
    assert isinstance(resolved, dict)
    return {str(key): value for key, value in resolved.items()}


def _missing_choice(error: MissingConfigException, loader: Hydra) -> str:
    group, _, choice = (error.missing_cfg_file or "").rpartition("/")
    if not group:
        return one_line(error)
    for source in loader.config_loader.get_sources():
        if source.scheme() == "file" and (other := Path(source.path, group, f"{choice}.yml")).exists():
            return f"{group}={choice}: no such {group}; {other} has to end in .yaml"
    choices = loader.config_loader.get_group_options(group)  # the exception has none for regularizer=[r1,r3]
    if not choices:
        return f"{group}: no such group; {did_you_mean(group, loader.list_all_config_groups())}"
    none = f"; {group}=[] for none" if group in TAKES_SEVERAL else ""
    return f"{group}={choice}: no such {group}; {did_you_mean(choice, choices)}{none}"


def _missing_key(error: Exception, overrides: list[str], config_name: str, config_dir: str | None) -> str:
    """Names the key that could not be overridden, and the keys that exist in its place."""
    match = re.search(r"Could not (?:override|append to|delete)[^']*'([^']+)'", str(error))
    key = match.group(1) if match else ""
    others = [o for o in overrides if o.lstrip("+~").partition("=")[0] != key]
    if not key or len(others) == len(overrides):
        return one_line(error)
    config = compose(others, config_name, config_dir)
    node: Any = OmegaConf.to_container(config)
    if not key.startswith("hydra."):
        del node["hydra"]
    *parents, last = key.split(".")
    for depth, part in enumerate(parents):
        if part not in node:
            group = "/".join(parents[:depth])
            choices = _loader(config_dir).config_loader.get_group_options(group) if group else []
            if part in choices:
                return f"{key}: no such key before {part} is chosen: {group}=[{part}]"
            return f"{key}: no such key; {did_you_mean(part, _keys(node) or choices)}"
        node = node[part]
        if not isinstance(node, Mapping):
            why = f"{part} is no group of keys" if node is not None else f"nothing is chosen for {part}"
            return f"{key}: no such key, because {why}"
    return one_line(error) if last in node else f"{key}: no such key; {did_you_mean(last, _keys(node))}"


def _keys(node: Mapping[str, Any]) -> list[str]:
    return [key for key in node if key != "_target_"]
