"""A sweep as a person sees it in TensorBoard: scalars, images and HParams in a real browser."""

import socket
import subprocess
import sys
import time

import pytest

from tests.browser import BROWSER, browser
from tests.sweeps.test_sweep import STEPS

pytestmark = pytest.mark.skipif(BROWSER is None, reason="needs a Chromium or Chrome on PATH")


@pytest.fixture
def tensorboard(tmp_path):
    """The address of a TensorBoard that shows outputs/."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", "outputs", "--host", "127.0.0.1"]
    with (tmp_path / "tensorboard.log").open("w") as log:
        server = subprocess.Popen([*command, "--port", str(port)], cwd=tmp_path, stdout=log, stderr=log)
    end = time.monotonic() + 60
    while True:
        with socket.socket() as asked:
            if asked.connect_ex(("127.0.0.1", port)) == 0:
                break
        assert time.monotonic() < end
        assert server.poll() is None
        time.sleep(0.1)
    yield f"http://127.0.0.1:{port}"
    server.kill()
    server.wait()


def test_a_sweep_in_tensorboard(gan_train, tmp_path, tensorboard):
    swept = ("loss=nonsaturating,lsgan", "optimizer.generator.lr=0.001,0.002")
    assert gan_train("-m", "name=seen", *swept, *STEPS).returncode == 0
    runs = [f"seen/loss-{loss}_lr-{lr}" for loss in ("nonsaturating", "lsgan") for lr in ("0.001", "0.002")]
    columns = ["Show Metrics", "loss", "optimizer.generator.lr", "metric/pattern_error", "metric/pattern_distance"]
    with browser(tmp_path / "profile") as page:
        page.show(f"{tensorboard}/#scalars", *runs, "divergence/jsd_estimate")
        page.show(f"{tensorboard}/#images", *runs, "loss/chart")
        page.show(f"{tensorboard}/#hparams", *runs, "\n".join(columns))  # the table's; what is constant is none of them
