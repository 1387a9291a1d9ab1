"""`gan-report run=…`: one run at a glance, and pages that no run directory can make harmful or large."""

import json
import os
import re
import subprocess
import sys
from html.parser import HTMLParser

import numpy as np
import pytest
import yaml
from PIL import Image

from gan_runner.errors import UserError
from gan_runner.pictures import save
from gan_runner.sweeps.report.writing import write_run_report, write_sweep_report
from tests.conftest import REPOSITORY
from tests.sweeps.made_up import job, make_run, make_sweep, write_sweep
from tests.training import train

STEPS = (
    "trainer.steps=60",
    "trainer.log_every=20",
    "trainer.sample_every=20",
    "trainer.evaluate_every=20",
    "metric.pattern.samples=64",
    "optimizer.generator.lr=0.003",
    "device=cpu",
)


class Elements(HTMLParser):
    """Every element of a page with its attributes."""

    def __init__(self, page):
        super().__init__()
        self.found, self.text = [], []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.text.append(data)

    def of(self, tag):
        return [attributes for name, attributes in self.found if name == tag]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "run"
    train(path, *STEPS)
    return path


def test_one_run_at_a_glance(run):
    written = write_run_report(run)
    page = Elements(written.page.read_text())
    evaluation = json.loads((run / "evaluation.json").read_text())
    value = evaluation["figures"]["pattern_distance"]["value"]
    assert "Completed: 60 of 60 steps" in written.markdown
    assert "The doctor's verdict: " in written.markdown
    assert re.search(rf"\| pattern_distance +\| {value:.4g} +\| 0 +\| lower +\| 64", written.markdown)
    changes = written.markdown.partition("## Changed from the defaults")[2].partition("##")[0]
    assert re.findall(r"^\| (\S+) +\| (\S+) +\| (\S+)", changes, re.MULTILINE)[1:] == [
        ("metric.pattern.samples", "64", "1000"),
        ("optimizer.generator.lr", "0.003", "0.0002"),
        ("trainer.steps", "60", "4000"),
        ("trainer.log_every", "20", "100"),
        ("trainer.sample_every", "20", "500"),
        ("trainer.evaluate_every", "20", "1000"),
    ]
    pictures = page.of("img")
    assert [f"step {n}" in p["alt"] for n, p in zip((20, 40, 60), pictures, strict=False)] == [True] * 3
    assert all(picture["src"].startswith("data:image/") and picture["alt"] for picture in pictures)
    curves = [svg for svg in page.of("svg") if svg.get("role") == "img"]
    assert len(curves) >= 4
    assert all(svg["aria-label"] for svg in curves)


def test_typed_it_prints_what_it_writes(typed, run):
    ended = typed(f"run={run}", command="report")
    assert ended.status == 0
    assert ended.out.strip() == (run / "report.md").read_text().strip()
    assert ended.err == f"written: {run / 'report.html'}\n"


def test_the_report_on_one_run_needs_neither_scipy_nor_pandas(run):
    code = (
        "import sys; from pathlib import Path; from gan_runner.sweeps.report.writing import write_run_report; "
        f"write_run_report(Path({str(run)!r})); print({{'scipy', 'pandas', 'matplotlib'}} & set(sys.modules))"
    )
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout == "set()\n"


def test_a_run_that_stopped_at_once_has_a_report(tmp_path):
    path = make_run(tmp_path / "run", {})
    for file in path.iterdir():
        if file.name != "config.yaml":
            file.unlink()
    assert "Unknown: 0 of 100 steps" in write_run_report(path).markdown
    assert "1 run: 1 unknown." in write_sweep_report(tmp_path).markdown


def test_classes_of_one_s_own_are_named_and_never_imported(tmp_path):
    path = make_run(tmp_path / "run", {"fid": 1.0})
    config = (path / "config.yaml").read_text().replace("gan_runner.datasets.Pattern", "mine.Circle")
    (path / "config.yaml").write_text(config)
    assert "mine.Circle" in write_run_report(path).markdown
    assert "mine" not in sys.modules


EVIL = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)> ![p](http://evil/p) [l](javascript:x)"
EVIL += " | \x1b[2J\u202e ü"


def harmless(page, markdown):
    found = Elements(page)
    assert "\x1b" not in page + markdown
    assert "\u202e" not in page + markdown
    assert not found.of("script")
    assert not found.of("a")
    assert not found.of("link")
    assert all(image["src"].startswith("data:image/") for image in found.of("img"))
    assert not [name for _, attributes in found.found for name in attributes if name.startswith("on")]
    assert "http" not in "".join(v or "" for _, a in found.found for n, v in a.items() if n in ("src", "href", "style"))
    assert "alert(1)" in "".join(found.text)  # it is shown, as text
    markdown = re.sub("^    .*", "", markdown, flags=re.MULTILINE)  # code, in which nothing is markup
    assert "<script" not in markdown
    assert "![p](" not in markdown
    assert "[l](" not in markdown


def test_nothing_that_a_run_directory_says_becomes_markup(tmp_path):
    found = {"name": EVIL, "step": 90, "evidence": EVIL, "cause": EVIL, "try": [EVIL], "resolved": None}
    health = {"step": 100, "verdict": EVIL, "findings": [found]}
    status = {"state": "failed", "step": 100, "message": EVIL}
    bad = make_run(tmp_path / "s" / "<script>alert(1)<script>", {EVIL: 1.0}, status=status, health=health)
    good = make_run(tmp_path / "s" / 'x" onload="alert(1)', {EVIL: 1.0}, health=health)
    config = yaml.safe_load((good / "config.yaml").read_text())
    config["loss"] |= {EVIL: EVIL}
    (good / "config.yaml").write_text(yaml.safe_dump(config))
    for path in (tmp_path / "s").iterdir():
        save(path / "samples" / "step_00000100.png", np.zeros((8, 8, 3), np.uint8))
        save(path / "evaluation" / "' onerror='alert(1).png", np.zeros((8, 8, 3), np.uint8))
        manifest = json.loads((path / "manifest.json").read_text())
        manifest |= {"git_commit": EVIL, "versions": {EVIL: EVIL}, "command": [EVIL, EVIL]}
        (path / "manifest.json").write_text(json.dumps(manifest))
    written = write_run_report(bad)
    harmless(written.page.read_text(), written.markdown)
    written = write_sweep_report(tmp_path / "s")
    harmless(written.page.read_text(), written.markdown)


def test_nothing_that_sweep_json_says_becomes_markup_or_a_formula(tmp_path):
    make_run(tmp_path / "a", {"fid": 1.0})
    jobs = {"a": job({"loss": "lsgan"}, "completed", 100), "b": job({"loss": "hinge"}, EVIL, 0, EVIL)}
    jobs["a"]["swept"] = {"loss": EVIL, "seed": "0"}
    jobs["b"]["swept"] = {"loss": "=cmd|' /C calc'!A0", "seed": "-1"}
    written = write_sweep_report(write_sweep(tmp_path, jobs))
    harmless(written.page.read_text(), written.markdown)
    assert "b,'=cmd|' /C calc'!A0,-1," in (tmp_path / "report.csv").read_text()


def test_damaged_and_huge_pictures_are_left_out(tmp_path):
    path = make_run(tmp_path / "run", {"fid": 1.0})
    (path / "samples").mkdir()
    (path / "samples" / "step_1.png").write_bytes(b"\x89PNG\r\n\x1a\nnonsense")
    (path / "samples" / "step_2.png").write_bytes(b"GIF89a")
    Image.new("1", (20_000, 20_000)).save(path / "samples" / "step_3.png")
    (path / "samples" / "step_x.png").write_bytes(b"")
    assert not Elements(write_run_report(path).page.read_text()).of("img")


def test_a_link_in_a_run_is_refused(tmp_path):
    path = make_run(tmp_path / "run", {"fid": 1.0})
    (path / "samples").mkdir()
    (path / "samples" / "step_1.png").symlink_to("/etc/hostname")
    with pytest.raises(UserError, match="is a link"):
        write_run_report(path)


def test_numbers_that_no_chart_can_show_leave_the_rest(tmp_path):
    path = make_run(tmp_path / "run", {"fid": 1.0})
    rows = ["NaN", "Infinity", "-Infinity", "1e308", "-1e308", "0", "1e-320"]
    (path / "metrics.jsonl").write_text(
        "".join(f'{{"step": {n}, "loss/generator": {v}}}\n' for n, v in enumerate(rows))
    )
    page = write_run_report(path).page.read_text()
    write_sweep_report(tmp_path)
    assert "nan" not in page.partition("<main>")[2]
    assert "inf" not in page.partition("<main>")[2]


def test_twenty_five_runs_make_a_page_of_at_most_three_megabytes(tmp_path):
    """With grids as large as those of faces, of noise, which no format makes small, and curves of 400 points."""
    noise = np.random.default_rng(0)
    lrs = [f"{n}e-4" for n in range(1, 26)]
    for n, lr in enumerate(lrs):
        path = make_run(tmp_path / f"lr-{lr}", {"fid": 1.0 + n}, f"optimizer.generator.lr={lr}")
        save(path / "samples" / "step_00000100.png", noise.integers(0, 256, (526, 526, 3), dtype=np.uint8))
        tags = [f"loss/{name}" for name in "abcdefgh"] + [
            "metric/fid",
            "metric/kid",
            "metric/precision",
            "metric/recall",
        ]
        rows = [{"step": step, **{tag: noise.normal() for tag in tags}} for step in range(10, 4010, 10)]
        (path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    page = write_sweep_report(tmp_path).page
    assert len(Elements(page.read_text()).of("img")) == 25
    assert page.stat().st_size <= 3_000_000


def test_a_page_names_no_other_file(tmp_path):
    page = write_sweep_report(make_sweep(tmp_path / "s", {"lsgan": {0: 1.0}})).page.read_text()
    assert not re.search(r"(src|href)=\"(?!data:)|url\(|@import", page)
    assert "default-src 'none'" in page
