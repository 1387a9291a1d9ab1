"""Where lies what is expensive to make and can be made again."""

import os
from pathlib import Path


def cache_folder() -> Path:
    """$GAN_RUNNER_CACHE, by default ~/.cache/gan_runner."""
    return Path(os.environ.get("GAN_RUNNER_CACHE") or "~/.cache/gan_runner").expanduser()
