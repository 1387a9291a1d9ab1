"""The command line: what Hydra's own entry point does, with a user's mistakes told in one line and exit status 2.

Hydra makes a job's directory before the job can refuse its configuration, and ends in a traceback for some mistakes
in it; so a plain run is composed here, and everything else (`--help`, `--cfg`, `--multirun` …) is left to Hydra.
Nothing here imports torch: `--help` answers at once.
"""

import os
import re
import shutil
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hydra
import yaml
from hydra._internal.config_search_path_impl import ConfigSearchPathImpl
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path, get_args_parser
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.utils import setup_globals
from hydra.errors import ConfigCompositionException, HydraException, MissingConfigException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from gan_runner.console import say
from gan_runner.errors import UserError, did_you_mean
from gan_runner.places import CONF

COMPLETED, FAILED, REFUSED, DIVERGED, INTERRUPTED = 0, 1, 2, 3, 75


@dataclass(frozen=True)
class Request:
    """What a command line asks for."""

    plain: dict[str, Any]  # the configuration, resolved
    overrides: list[Override]  # what the user typed of it
    directory: Path  # where Hydra would run it
    named: bool  # whether the user chose that directory, so that the same command means the same run

    @property
    def typed(self) -> dict[str, Any]:
        """The overrides by key or group."""
        return {override.key_or_group: override.value() for override in self.overrides}


@dataclass(frozen=True)
class Outcome:
    """How a command ended."""

    status: int
    objective: float | None = None  # what a sweep optimizes: NaN where it is undefined, None where there is none


Command = Callable[[Request], Outcome]


def run(command: Command, config_name: str) -> None:
    """Runs `command` on what the command line composes, and exits with its status."""
    sys.path.insert(0, str(Path.cwd()))  # a user's own classes are found here, however we were started
    arguments = get_args_parser().parse_args()
    hydra_does = ("help", "hydra_help", "version", "cfg", "resolve", "package", "info", "shell_completion", "multirun")
    try:
        if any(getattr(arguments, option, None) for option in hydra_does):
            if arguments.resolve:  # where Hydra would end in a traceback
                plain(compose(arguments.overrides, arguments.config_name or config_name, arguments.config_dir))
            if arguments.multirun:
                compose_jobs(arguments.overrides, arguments.config_name or config_name, arguments.config_dir)
            sys.exit(_leave_to_hydra(command, config_name))
        config_name = arguments.config_name or config_name
        overrides = parse(arguments.overrides)
        # What is typed beside `resume` belongs to that run's configuration, whose keys the defaults may not have.
        resumes = any(o.key_or_group == "resume" and o.value() is not None for o in overrides)
        composed = [o for o in overrides if not (resumes and "." in o.key_or_group) or o.key_or_group[:6] == "hydra."]
        config = compose([str(o.input_line) for o in composed], config_name, arguments.config_dir)
        if config.hydra.mode == RunMode.MULTIRUN:
            sys.exit(_leave_to_hydra(command, config_name))
        named = any(override.key_or_group == "hydra.run.dir" for override in overrides)
        directory = Path(config.hydra.run.dir).expanduser()
        status = command(Request(plain(config), overrides, directory, named)).status
    except UserError as error:
        say(f"error: {error}")
        status = REFUSED
    except KeyboardInterrupt:  # before the training began, or a second Ctrl-C
        status = 128 + signal.SIGINT
    except BrokenPipeError:  # of `--help | head`; what Python still holds for it goes nowhere
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 128 + signal.SIGPIPE
    sys.exit(status)


def parse(overrides: Sequence[str], loader: Hydra | None = None) -> list[Override]:
    """The overrides in Hydra's grammar; raises `UserError`. With a `loader`, a glob knows what it stands for."""
    parser = OverridesParser.create(loader.config_loader if loader is not None else None)
    parsed = []
    for override in overrides:
        try:
            parsed += parser.parse_overrides([override])
        except HydraException as error:
            raise UserError(
                f"{override}: is not in Hydra's grammar, where a value with = ( [ {{ or a leading ~ needs quotes of "
                f"its own: {override.partition('=')[0]}='\"…\"'"
            ) from error
    return parsed


def _leave_to_hydra(command: Command, config_name: str) -> int:
    """Hydra's own entry point; in a sweep the job statuses are collected, and none of them ends the sweep."""
    statuses, sweeps = list[int](), set[Path]()

    def job(config: DictConfig) -> float | None:
        runtime = HydraConfig.get()
        directory = Path(runtime.runtime.output_dir)
        try:
            outcome = command(Request(plain(config), parse(runtime.overrides.task), directory, named=True))
        except UserError as error:
            say(f"error: {error}")
            outcome = Outcome(REFUSED)
        status = outcome.status
        if status == REFUSED and directory.is_dir() and not any(directory.iterdir()):
            directory.rmdir()  # Hydra made it before the job could refuse
            sweeps.add(directory.parent)
        statuses.append(status)
        if status == INTERRUPTED:
            raise KeyboardInterrupt  # the signal was meant for the sweep
        return outcome.objective

    GlobalHydra.instance().clear()  # where hydra.mode=MULTIRUN has been composed to be found
    try:
        hydra.main(version_base="1.3", config_path=str(CONF), config_name=config_name)(job)()
    except KeyboardInterrupt:
        return INTERRUPTED
    except SystemExit as stop:
        return REFUSED if stop.code and not statuses else int(stop.code or 0)
    if statuses and all(status == REFUSED for status in statuses):
        for sweep in sweeps:
            if {path.name for path in sweep.iterdir()} <= {"multirun.yaml"}:
                shutil.rmtree(sweep)
        return REFUSED
    return FAILED if any(statuses) else COMPLETED


def compose_jobs(overrides: Sequence[str], config_name: str, config_dir: str | None) -> None:
    """Raises the `UserError` of a sweep's first job, or of one that differs from it in the choice of a group."""
    loader = _loader(config_dir)
    groups, parsed = loader.config_loader.list_groups(""), parse(overrides, loader)
    swept = []
    for override in parsed:
        if override.is_discrete_sweep():
            swept.append([f"{override.get_key_element()}={value}" for value in override.sweep_string_iterator()])
            if not swept[-1]:
                raise UserError(f"{override.input_line}: stands for nothing")
    fixed = [str(o.input_line) for o in parsed if not o.is_sweep_override()]
    first = [choices[0] for choices in swept]
    plain(compose([*fixed, *first], config_name, config_dir))
    for place, choices in enumerate(swept):
        for choice in choices[1:] if choices[0].partition("=")[0] in groups else []:
            compose([*fixed, *first[:place], choice, *first[place + 1 :]], config_name, config_dir)


def directory_name(text: str) -> str:
    """A choice, or the overrides of a job of a sweep, as the name of a directory in [A-Za-z0-9_.-]."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", text).strip("-") or "job"


OmegaConf.register_new_resolver("directory_name", directory_name, replace=True)  # for conf/


def compose(overrides: Sequence[str], config_name: str, config_dir: str | None = None) -> DictConfig:
    """The configuration that the overrides describe, with Hydra's own node; raises `UserError`."""
    loader = _loader(config_dir)
    try:
        config = loader.compose_config(config_name, list(overrides), RunMode.RUN, from_shell=False)
        HydraConfig.instance().set_config(config)  # which the run's name and directory ask for the choices
        OmegaConf.to_container(config.hydra.run, resolve=True)
        return config
    except MissingConfigException as error:
        raise UserError(_missing_choice(error, loader)) from error
    except ConfigCompositionException as error:
        raise UserError(_missing_key(error, list(overrides), config_name, config_dir)) from error
    except (HydraException, OmegaConfBaseException, yaml.YAMLError, OSError, ValueError) as error:
        groups = loader.config_loader.list_groups("")
        nothing = [o.key_or_group for o in parse(overrides) if o.value() is None and o.key_or_group in groups]
        if nothing:  # a ValueError of Hydra's that does not say where
            allowed = ", ".join(loader.config_loader.get_group_options(nothing[0]))
            raise UserError(f"{nothing[0]}=null: is no choice (allowed: {allowed})") from error
        raise UserError(one_line(error)) from error  # ValueError: a number for a group's choice


def _loader(config_dir: str | None) -> Hydra:
    search_path = create_config_search_path(str(CONF))
    if config_dir is not None:
        if not Path(config_dir).is_dir():
            raise UserError(f"--config-dir {config_dir}: there is no such folder")
        assert isinstance(search_path, ConfigSearchPathImpl)
        search_path.prepend("command-line", f"file://{Path(config_dir).resolve()}")
    GlobalHydra.instance().clear()
    setup_globals()
    return Hydra.create_main_hydra2("gan_runner", search_path)


def plain(config: DictConfig) -> dict[str, Any]:
    """The configuration without Hydra's node, resolved, as plain Python values; raises `UserError`."""
    try:
        whole = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
        resolved = OmegaConf.to_container(whole, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise UserError(one_line(error)) from error
    assert isinstance(resolved, dict)
    return {str(key): value for key, value in resolved.items()}


def _missing_choice(error: MissingConfigException, loader: Hydra) -> str:
    group, _, choice = (error.missing_cfg_file or "").rpartition("/")
    if not group:
        return one_line(error)
    choices = loader.config_loader.get_group_options(group)  # the exception has none for regularizer=[r1,r3]
    if not choices:
        return f"{group}: no such group; {did_you_mean(group, loader.list_all_config_groups())}"
    return f"{group}={choice}: no such {group}; {did_you_mean(choice, choices)}"


def _missing_key(error: Exception, overrides: list[str], config_name: str, config_dir: str | None) -> str:
    """Names the key that could not be overridden, and those that stand where it was looked for."""
    match = re.search(r"Could not (?:override|append to|delete)[^']*'([^']+)'", str(error))
    key = match.group(1) if match else ""
    others = [o for o in overrides if o.lstrip("+~").partition("=")[0] != key]
    if not key or len(others) == len(overrides):
        return one_line(error)
    parent, _, name = key.rpartition(".")
    node: Any = plain(compose(others, config_name, config_dir))
    for part in parent.split(".") if parent else []:
        if part not in node:
            return f"{key}: no such key; {did_you_mean(part, [k for k in node if k != '_target_'])}"
        node = node[part]
        if not isinstance(node, Mapping):
            return f"{key}: no such key, {parent} is no group of keys"
    if name in node:
        return one_line(error)
    return f"{key}: no such key; {did_you_mean(name, [k for k in node if k != '_target_'])}"


def one_line(error: Exception) -> str:
    """The first sentence of a library's message, with what follows it folded into one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return "; ".join(line for line in lines if not line.startswith(("object_type", "reference_type")))
