"""The command line: like Hydra's own entry point, but a user's mistake is one line and exit status 2.

A single run is composed here; everything else (`--help`, `--cfg`, `--multirun` …) is left to Hydra. Nothing here
imports torch, so that `--help` answers at once.
"""

import argparse
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from gan_runner.config.composition import (
    Request,
    SearchRequest,
    compose,
    compose_sweep,
    is_grid,
    parse,
    parse_arguments,
    plain,
)
from gan_runner.console import say
from gan_runner.errors import UserError
from gan_runner.machine.signals import INTERRUPTED, interrupt, on_stop_signal
from gan_runner.overrides import in_hydra_grammar
from gan_runner.paths import CONF, as_path
from gan_runner.status import Outcome, Status
from gan_runner.streams import lasting_streams, open_closed_streams

COMPLETION = [[f"{what}={shell}"] for what in ("install", "uninstall", "query") for shell in ("bash", "zsh", "fish")]
Command = Callable[[Request], Outcome]


def run(command: Command, config_name: str) -> None:
    """Runs `command` with the configuration that the command line describes, and exits with its status."""
    open_closed_streams()
    status: int
    with on_stop_signal(interrupt, once=True):
        try:
            status = _run(command, config_name)
        except UserError as error:
            say(f"error: {error}")
            status = Status.REFUSED
        except KeyboardInterrupt:  # before the training began, or a second Ctrl-C
            status = INTERRUPTED
        except BrokenPipeError:  # as in `--help | head`; what Python has yet to write is discarded
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            status = 128 + signal.SIGPIPE
        sys.exit(status)


def _run(command: Command, config_name: str) -> int:
    sys.path.insert(0, str(Path.cwd()))  # for a user's own classes; the console script does not add it
    hydra_does = ("help", "hydra_help", "version", "cfg", "resolve", "package", "info", "shell_completion")
    arguments = parse_arguments()
    if arguments.config_path is not None:
        raise UserError(
            f"--config-path={arguments.config_path}: use --config-dir, which adds choices to those of conf/"
        )
    if arguments.experimental_rerun is not None:
        raise UserError("--experimental-rerun: cannot be used here; resume=RUN goes on with a run")
    if arguments.package is not None and not arguments.cfg:
        raise UserError(f"--package={arguments.package}: is a part of what --cfg shows; add --cfg job")
    if arguments.resolve and not (arguments.cfg or arguments.help):
        raise UserError("--resolve: goes with --cfg or --help alone")
    if arguments.shell_completion:
        if [*arguments.overrides] not in COMPLETION:
            raise UserError("--shell-completion: takes one of install=bash and uninstall=bash (or zsh, fish)")
        return _leave_to_hydra(command, arguments, config_name)
    if asked := [option for option in hydra_does if getattr(arguments, option, None)]:
        if arguments.multirun and {"cfg", "info"} & {*asked}:
            raise UserError("-m: --cfg and --info show one configuration; leave -m out")
        # Composed first, because Hydra answers a mistake with a traceback.
        if arguments.overrides or arguments.config_dir is not None:
            config = compose(arguments.overrides, arguments.config_name or config_name, arguments.config_dir)
            if arguments.resolve:
                plain(config)
        return _leave_to_hydra(command, arguments, config_name)
    with lasting_streams():
        return _work(command, arguments, config_name)


def _work(command: Command, arguments: argparse.Namespace, config_name: str) -> int:
    """A single run of the command, or a sweep."""
    if arguments.multirun:
        return _sweep(command, arguments, config_name)
    overrides = parse(arguments.overrides)
    # Overrides next to `resume` change that run's configuration, which may have keys that the defaults lack.
    resumes = any(o.key_or_group == "resume" and o.value() is not None for o in overrides)
    composed = [o for o in overrides if not (resumes and "." in o.key_or_group) or o.key_or_group[:6] == "hydra."]
    words = [str(o.input_line) for o in composed]
    config = compose(words, arguments.config_name or config_name, arguments.config_dir)
    if config.hydra.mode == RunMode.MULTIRUN:
        return _sweep(command, arguments, config_name)
    directory_chosen = any(override.key_or_group == "hydra.run.dir" for override in overrides)
    directory = as_path("hydra.run.dir", config.hydra.run.dir)
    return command(Request(plain(config), overrides, directory, directory_chosen)).status


def _sweep(command: Command, arguments: argparse.Namespace, config_name: str) -> int:
    """Runs the jobs of a sweep: of trainings our own way, of other commands and for other sweepers Hydra's way."""
    name = arguments.config_name or config_name
    request = compose_sweep(arguments.overrides, name, arguments.config_dir)
    if isinstance(request, SearchRequest):
        if config_name != "train":
            raise UserError("hydra/sweeper=search: searches among trainings, by gan-train alone")
        from gan_runner.commands.search import run_search

        return run_search(request, arguments.config_dir)
    if config_name != "train" or not is_grid(request.config):
        return _leave_to_hydra(command, arguments, config_name)
    from gan_runner.commands.sweep import run_sweep

    return run_sweep(request, arguments.config_dir)[0]


def _leave_to_hydra(command: Command, arguments: argparse.Namespace, config_name: str) -> int:
    """Calls Hydra's entry point. In a sweep, no job's status ends the sweep."""
    statuses, sweeps = list[int](), set[Path]()
    options = [word for word in sys.argv[1:] if word not in arguments.overrides]
    overrides = [in_hydra_grammar(word, arguments.multirun) for word in arguments.overrides]
    # Hydra takes no option between two overrides, and no override beside --hydra-help.
    sys.argv[1:] = options if arguments.hydra_help else [*overrides, *options]

    def job(config: DictConfig) -> float | None:
        runtime = HydraConfig.get()
        directory = Path(runtime.runtime.output_dir)
        try:
            outcome = command(Request(plain(config), parse(runtime.overrides.task), directory, directory_chosen=True))
        except UserError as error:
            say(f"error: {error}")
            outcome = Outcome(Status.REFUSED)
        status = outcome.status
        if status == Status.REFUSED and directory.is_dir() and not any(directory.iterdir()):
            directory.rmdir()  # Hydra made it before the job could refuse
            sweeps.add(directory.parent)
        statuses.append(status)
        if status == Status.INTERRUPTED:
            raise KeyboardInterrupt  # the signal was meant for the sweep
        return outcome.objective

    GlobalHydra.instance().clear()  # it was in use to find hydra.mode=MULTIRUN
    try:
        hydra.main(version_base="1.3", config_path=str(CONF), config_name=config_name)(job)()
    except KeyboardInterrupt:
        return Status.INTERRUPTED
    except SystemExit as stop:
        return Status.REFUSED if stop.code and not statuses else int(stop.code or 0)
    if statuses and all(status == Status.REFUSED for status in statuses):
        for sweep in sweeps:
            if {path.name for path in sweep.iterdir()} <= {"multirun.yaml"}:
                shutil.rmtree(sweep)
        return Status.REFUSED
    return Status.FAILED if any(statuses) else Status.COMPLETED
