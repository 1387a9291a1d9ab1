"""The wheel carries conf/ and trains outside the checkout."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_the_installed_wheel_trains_the_default_and_finds_its_configuration(tmp_path):
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*build, "--wheel-dir", tmp_path, ROOT], check=True, cwd=tmp_path)
    (wheel,) = tmp_path.glob("gan_runner-*.whl")
    site, elsewhere = tmp_path / "site", tmp_path / "elsewhere"
    elsewhere.mkdir()
    with zipfile.ZipFile(wheel) as archive:  # what pip does with a pure wheel, without an environment of its own
        archive.extractall(site)
        entry_points = next(n for n in archive.namelist() if n.endswith("entry_points.txt"))
        assert "gan-train = gan_runner.train:main" in archive.read(entry_points).decode()
    assert (site / "gan_runner" / "evaluation" / "weights" / "digits.safetensors").is_file()
    assert (site / "gan_runner" / "sweeps" / "report" / "page.html").is_file()

    where = "import gan_runner; print(gan_runner.__file__)"
    environment = os.environ | {"PYTHONPATH": str(site), "OMP_NUM_THREADS": "1"}
    found = subprocess.check_output([sys.executable, "-c", where], env=environment, cwd=elsewhere, text=True)
    assert found.startswith(str(site))
    train = [sys.executable, "-m", "gan_runner.train", "trainer.steps=3"]
    done = subprocess.run(train, env=environment, cwd=elsewhere, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    run = elsewhere / done.stdout.splitlines()[-1]
    assert (run / "generator.safetensors").is_file()
