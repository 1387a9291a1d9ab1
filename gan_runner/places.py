"""Where the configuration that ships with the package lies, and what is expensive to make and can be made again."""

import os
from pathlib import Path

# In a checkout conf/ stands beside the package, in an installed wheel inside it.
CONF = next(p for p in (Path(__file__).parent / "conf", Path(__file__).parents[1] / "conf") if p.is_dir())


def cache_folder() -> Path:
    """$GAN_RUNNER_CACHE, by default ~/.cache/gan_runner."""
    return Path(os.environ.get("GAN_RUNNER_CACHE") or "~/.cache/gan_runner").expanduser()
