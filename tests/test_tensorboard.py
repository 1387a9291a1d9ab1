"""What TensorBoard shows of a run that was killed and resumed: by its loaders and over HTTP."""

import json
import socket
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer

from gan_runner.status import Status
from tests.training import last_step, rows, start, train

OVERRIDES = (
    "trainer.steps=120",
    "trainer.batch_size=8",
    "trainer.log_every=3",
    "trainer.sample_every=20",
    "trainer.evaluate_every=30",
    "trainer.checkpoint_every=20",
    "optimizer.generator.lr=0.001",
    "device=cpu",
)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Killed before its first checkpoint, killed after it, completed, extended."""
    torch.set_num_threads(1)
    run = tmp_path_factory.mktemp("outputs") / "run"
    for step in (15, 50):
        process = start(run, *OVERRIDES)
        while process.is_alive() and last_step(run) < step:
            time.sleep(0.001)
        process.kill()
        process.join()
    assert train(run, *OVERRIDES) == Status.COMPLETED
    assert train(run, *OVERRIDES, "trainer.steps=150") == Status.COMPLETED
    assert len(list(run.glob("events.out.tfevents.*"))) == 4
    return run


@pytest.fixture(scope="module")
def curves(run):
    """tag -> [(step, value)] by metrics.jsonl."""
    curves: dict[str, list[tuple[int, Any]]] = {}
    for row in rows(run, with_clock=True):
        for tag, value in row.items():
            if tag != "step":
                curves.setdefault(tag, []).append((int(row["step"]), pytest.approx(value, rel=1e-6)))
    assert [step for step, _ in curves["loss/generator"]] == list(range(3, 151, 3))
    return curves


def test_the_accumulator_finds_each_step_once(run, curves):
    events = EventAccumulator(str(run), size_guidance={"scalars": 0, "images": 0})
    events.Reload()
    assert set(events.Tags()["scalars"]) == curves.keys()
    for tag, points in curves.items():
        assert [(e.step, e.value) for e in events.Scalars(tag)] == points, tag
    assert [e.step for e in events.Images("samples/grid")] == [20, 40, 60, 80, 100, 120, 140, 150]


def test_the_multiplexer_finds_each_step_once_in_one_run(run, curves):
    multiplexer = EventMultiplexer().AddRunsFromDirectory(str(run.parent))
    multiplexer.Reload()
    assert list(multiplexer.Runs()) == ["run"]
    for tag, points in curves.items():
        assert [e.step for e in multiplexer.Tensors("run", tag)] == [step for step, _ in points], tag


class Server:
    """`tensorboard --logdir …`, asked over HTTP."""

    def __init__(self, logdir, load_fast: str, log) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.address = f"http://127.0.0.1:{port}/data/"
        command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(logdir), "--host", "127.0.0.1"]
        command += ["--port", str(port), f"--load_fast={load_fast}", "--samples_per_plugin=scalars=1000,images=1000"]
        self.process = subprocess.Popen(command, stdout=log, stderr=log)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                if self.get("plugin/scalars/scalars", run="run", tag="metric/pattern_error")[-1][1] == 150:
                    return  # it has read to the end
            except OSError:
                assert self.process.poll() is None
            time.sleep(0.1)
        raise TimeoutError("tensorboard does not show the run")

    def fetch(self, path: str, body: bytes | None = None, **query: str) -> bytes:
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(f"{self.address}{path}?{urllib.parse.urlencode(query)}", body, headers)
        with urllib.request.urlopen(request, timeout=10) as response:
            return response.read()

    def get(self, path: str, body: bytes | None = None, **query: str):
        return json.loads(self.fetch(path, body, **query))


@pytest.fixture(scope="module", params=["true", "false"])
def server(request, run, tmp_path_factory):
    with (tmp_path_factory.mktemp("log") / "tensorboard").open("w") as log:
        server = Server(run.parent, request.param, log)
        yield server
        server.process.terminate()
        server.process.wait()


def test_scalars_are_served_each_step_once(server, curves):
    for tag, points in curves.items():
        served = server.get("plugin/scalars/scalars", run="run", tag=tag)
        assert [(step, value) for _, step, value in served] == points, tag


def test_there_is_one_run(server):
    assert server.get("runs") == ["run"]


def test_grids_are_served(server):
    grids = server.get("plugin/images/images", run="run", tag="samples/grid", sample="0")
    assert [grid["step"] for grid in grids] == [20, 40, 60, 80, 100, 120, 140, 150]
    picture = server.fetch(f"plugin/images/individualImage?{grids[-1]['query']}&ignored")
    assert picture.startswith(b"\x89PNG")


def test_what_was_typed_and_what_was_measured_belong_to_the_run(server, curves):
    experiment = server.get("plugin/hparams/experiment", b"{}")
    assert {info["name"] for info in experiment["hparamInfos"]} == {word.split("=")[0] for word in OVERRIDES}
    statuses = ["STATUS_UNKNOWN", "STATUS_SUCCESS", "STATUS_FAILURE", "STATUS_RUNNING"]
    asked = {"allowedStatuses": statuses, "colParams": [], "startIndex": 0, "sliceSize": 10}
    (session,) = server.get("plugin/hparams/session_groups", json.dumps(asked).encode())["sessionGroups"]
    assert session["hparams"]["optimizer.generator.lr"] == 0.001
    metrics = {value["name"]["tag"]: value["value"] for value in session["metricValues"]}
    assert metrics.keys() == {tag for tag in curves if tag.startswith("metric/")}
    assert experiment["metricInfos"][0]["name"]["tag"] == "metric/pattern_error"  # to select by


def test_both_networks_share_a_chart(server):
    layout = server.get("plugin/custom_scalars/layout")
    (chart,) = layout["category"][0]["chart"]
    assert chart["multiline"]["tag"] == ["loss/discriminator_real", "loss/discriminator_fake", "loss/generator"]
