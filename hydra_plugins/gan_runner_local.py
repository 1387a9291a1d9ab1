"""The launcher `hydra/launcher=local`. Hydra imports this module at every start, so it imports nothing heavy."""

from collections.abc import Sequence
from typing import Any

from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class LocalLauncher(Launcher):
    """Runs the jobs of a sweep side by side on this machine, each in a process of its own."""

    def __init__(self, **settings: Any) -> None:
        self.settings = settings

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Called by Hydra before `launch`."""
        self.context, self.config = hydra_context, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Runs a batch of jobs for a sweeper. Their return values are the objectives, None where there is none."""
        from gan_runner.commands.sweep import launch

        load = self.context.config_loader.load_sweep_config
        return launch(self.config, [load(self.config, list(words)) for words in job_overrides], job_overrides)
