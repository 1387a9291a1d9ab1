from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of decoded images."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("GAN_RUNNER_CACHE", str(folder))
    return folder
