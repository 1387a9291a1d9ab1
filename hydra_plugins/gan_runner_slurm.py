"""The launcher `hydra/launcher=slurm`. Hydra imports this module at every start, so it imports nothing heavy."""

from hydra_plugins import gan_runner_local


class SlurmLauncher(gan_runner_local.LocalLauncher):
    """Runs the jobs of a sweep as jobs of SLURM."""
