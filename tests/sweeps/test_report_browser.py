"""Pages as a browser shows them: in light and dark, on a desk and on a phone. Needs Chromium or Chrome."""

import re
import subprocess

import numpy as np
import pytest
from PIL import Image

from gan_runner.pictures import save
from gan_runner.sweeps.report.writing import write_run_report, write_sweep_report
from tests.browser import BROWSER, SETTINGS
from tests.sweeps.made_up import make_sweep

pytestmark = pytest.mark.skipif(BROWSER is None, reason="needs a Chromium or Chrome on PATH")
FIRST_LIGHT, FIRST_DARK = (0x0B, 0x6F, 0xB8), (0x5D, 0xB3, 0xF5)  # of the first configuration: --c0
PURPLE = (150, 0, 150)  # of the samples


def browse(tmp_path, *words):
    assert BROWSER is not None
    profile = f"--user-data-dir={tmp_path / 'profile'}"
    done = subprocess.run(
        [BROWSER, *SETTINGS, profile, *words], capture_output=True, text=True, timeout=120, check=True
    )
    return done.stdout


def shot(tmp_path, page, width, height, *words):
    """The page as the browser draws it: (height, width, 3)."""
    file = tmp_path / "shot.png"
    browse(tmp_path, f"--screenshot={file}", f"--window-size={width},{height}", *words, page.as_uri())
    return np.asarray(Image.open(file).convert("RGB")).astype(int)


def count(picture, color, tolerance=6):
    """How many pixels have this colour."""
    return int((np.abs(picture - np.array(color)).max(-1) <= tolerance).sum())


@pytest.fixture
def sweep(tmp_path):
    folder = make_sweep(tmp_path / "s", {"lsgan": {0: 1.0, 1: 1.2, 2: 0.9}, "hinge": {0: 3.1, 1: 3.2, 2: 3.0}})
    for run in folder.glob("loss-*"):
        save(run / "samples" / "step_00000100.png", np.full((200, 200, 3), PURPLE, np.uint8))
    return folder


def test_curves_and_samples_are_drawn_in_light_and_in_dark(tmp_path, sweep):
    page = write_sweep_report(sweep).page
    light = shot(tmp_path, page, 1200, 3000)
    dark = shot(tmp_path, page, 1200, 3000, "--blink-settings=preferredColorScheme=0")
    for picture, first, other, ground in (
        (light, FIRST_LIGHT, FIRST_DARK, (255, 255, 255)),
        (dark, FIRST_DARK, FIRST_LIGHT, (0x14, 0x17, 0x1A)),
    ):
        assert tuple(picture[2, 2]) == ground
        assert count(picture, first) > 300
        assert count(picture, other) < 30
        assert count(picture, PURPLE) > 2 * 190 * 190  # a cell for each configuration


def test_one_run_is_drawn(tmp_path, sweep):
    picture = shot(tmp_path, write_run_report(sweep / "loss-lsgan_seed-0").page, 1200, 2000)
    assert count(picture, FIRST_LIGHT) > 100
    assert count(picture, PURPLE) > 190 * 190


def test_on_a_phone_nothing_but_tables_is_wider_than_the_screen(tmp_path, sweep):
    """The page is put into a frame as wide as a phone, where a script, which it does not allow itself, measures it."""
    text = write_sweep_report(sweep).page.read_text()
    script = "<script>document.title = document.documentElement.scrollWidth</script></body>"
    text = re.sub(r'<meta http-equiv="Content-Security-Policy".*?>', "", text).replace("</body>", script)
    (tmp_path / "page.html").write_text(text)
    tell = "onload='document.title = this.contentDocument.title'"
    frame = f"<title>no</title><iframe src=page.html style='width:360px;height:640px;border:0' {tell}></iframe>"
    (tmp_path / "phone.html").write_text(frame)
    found = browse(tmp_path, "--dump-dom", "--allow-file-access-from-files", (tmp_path / "phone.html").as_uri())
    assert "<title>360</title>" in found
