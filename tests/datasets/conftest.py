from pathlib import Path

import numpy as np
import pytest

from tests.datasets.made_up import picture, save


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of decoded images."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("GAN_RUNNER_CACHE", str(folder))
    return folder


@pytest.fixture
def flat(tmp_path: Path) -> tuple[Path, np.ndarray]:
    """Three images b, a, c in a folder, and their pixels in the order of their names."""
    contents = np.stack([picture() for _ in range(3)])
    for name, content in zip("abc", contents, strict=True):
        save(tmp_path / "flat" / f"{name}.png", content)
    return tmp_path / "flat", contents
