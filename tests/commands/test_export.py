"""`gan-export`: a file that makes the generator's samples without this package, or none."""

import json
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch import nn

from gan_runner.commands.export import (
    OF_ONNX,
    TOLERANCE,
    import_onnx,
    largest_difference,
    program,
    to_onnx,
    to_torch,
    torch_silenced,
    write_export,
)
from gan_runner.config import composition
from gan_runner.config.schema import Latent
from gan_runner.datasets import DataFacts
from gan_runner.errors import UserError
from gan_runner.networks.running import apply
from gan_runner.runs.generator import TrainedGenerator, load_generator
from tests.commands.conftest import CLASSES, ENVIRONMENT, LATENT, SIDE, command
from tests.conftest import tree
from tests.networks.conftest import WITH_CLASSES, networks
from tests.networks.test_recipes import small

FORMATS = {"torch": to_torch, "onnx": to_onnx}
SENT_TO = ("ORT_DISABLE_TELEMETRY", "CI", "XDG_CACHE_HOME")  # by these ONNX Runtime may keep quiet, or write elsewhere
ENDINGS = {"torch": "pt2", "onnx": "onnx"}


def export(*overrides: object) -> Path:
    """What `gan-export` does with the overrides, in this process."""
    return write_export(composition.plain(composition.compose([*map(str, overrides)], "export")))


def needs(form: str) -> None:
    if form == "onnx":
        if not all(map(find_spec, OF_ONNX)):
            pytest.skip("ONNX is not installed")
        import_onnx()  # as the command does: ONNX Runtime is told to report nothing


def trained(network: nn.Module, latent_dim: int, shape: tuple[int, ...], num_classes: int) -> TrainedGenerator:
    latent = Latent(dim=latent_dim, distribution="normal", loc=0.0, scale=1.0)
    facts = DataFacts(shape=shape, value_range=(0.0, 1.0), num_classes=num_classes)
    return TrainedGenerator(network.eval(), latent, facts, num_classes, torch.device("cpu"), step=1)


def difference(form: str, generator: TrainedGenerator) -> float:
    with torch_silenced():
        _, loaded = FORMATS[form](program(generator), "{}")
    return max(largest_difference(loaded, generator, count) for count in (1, 3, 64))


# Without the package

ALONE = """
import json, sys
sys.modules["gan_runner"] = None  # whoever imports it fails
import numpy as np, torch
file = {"facts.json": ""}
generator = torch.export.load(sys.argv[1], extra_files=file).module()
facts = json.loads(file["facts.json"])
inputs = [torch.from_numpy(np.load(path)) for path in sys.argv[3:]]
assert inputs[0].shape[1] == facts["latent"]["dim"]
for count in (1, 5, len(inputs[0])):
    samples = generator(*(each[:count] for each in inputs))
    assert samples.shape == (count, *facts["shape"])
np.save(sys.argv[2], samples.numpy())
loaded = {name.split(".")[0] for name in sys.modules}
assert not loaded & {"hydra", "omegaconf", "pydantic", "torchvision"}, loaded
"""


@pytest.mark.parametrize("labelled", [True, False])
def test_a_process_that_has_torch_alone_makes_the_same_samples(conditional, pattern, tmp_path, labelled):
    run = conditional if labelled else pattern
    out = export(f"run={run}", f"out={tmp_path / 'made' / 'generator.pt2'}")
    generator = load_generator(run, [], torch.device("cpu"), "newest")
    z = next(generator.latents(seed=3))
    inputs = [z, torch.arange(len(z)) % CLASSES] if labelled else [z]
    for i, each in enumerate(inputs):
        np.save(tmp_path / f"{i}.npy", each.numpy())
    files = [tmp_path / "samples.npy", *(tmp_path / f"{i}.npy" for i in range(len(inputs)))]
    # -I: neither the current directory nor PYTHONPATH is searched.
    done = subprocess.run(
        [sys.executable, "-I", "-c", ALONE, out, *files], env=ENVIRONMENT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    expected = generator(z, inputs[-1] if labelled else None).numpy()
    found = np.load(tmp_path / "samples.npy")
    assert found.dtype == np.float32
    assert np.abs(found - expected).max() <= 1e-6
    if labelled:
        assert found.min() >= 0  # images in [0, 1], although the network makes [-1, 1]
        assert found.std() > 0.05


def test_the_facts_tell_how_to_use_it(conditional, pattern, tmp_path):
    file = {"facts.json": ""}
    torch.export.load(export(f"run={conditional}", f"out={tmp_path / 'a.pt2'}"), extra_files=file)
    facts = json.loads(file["facts.json"])
    versions = facts.pop("versions")
    assert versions["torch"] == torch.__version__
    assert set(versions) == {"gan_runner", "torch"}
    assert facts == {
        "latent": {"dim": LATENT, "distribution": "normal", "loc": 0.0, "scale": 1.0},
        "shape": [1, SIDE, SIDE],
        "value_range": [0, 1],
        "num_classes": CLASSES,
        "class_names": [f"class_{number}" for number in range(CLASSES)],
        "cluster_sizes": [],
        "run": str(conditional),
        "checkpoint": "newest",
        "step": 6,
    }
    torch.export.load(export(f"run={pattern}", f"out={tmp_path / 'b.pt2'}"), extra_files=file)
    facts = json.loads(file["facts.json"])
    assert facts["latent"]["distribution"] == "uniform"
    assert (facts["num_classes"], facts["class_names"], facts["shape"], facts["step"]) == (0, [], [6], 3)


def test_an_onnx_file_makes_the_same_samples_and_has_the_facts(conditional, tmp_path, monkeypatch):
    needs("onnx")
    import onnxruntime

    monkeypatch.chdir(tmp_path)
    out = export(f"run={conditional}", "format=onnx")
    assert out == Path("generator.onnx")
    session = onnxruntime.InferenceSession(out, providers=["CPUExecutionProvider"])
    facts = json.loads(session.get_modelmeta().custom_metadata_map["facts"])
    assert (facts["step"], facts["class_names"][1], facts["shape"]) == (6, "class_1", [1, SIDE, SIDE])
    assert {(i.name, *i.shape, i.type) for i in session.get_inputs()} == {
        ("z", "batch", LATENT, "tensor(float)"),
        ("labels", "batch", "tensor(int64)"),
    }
    generator = load_generator(conditional, [], torch.device("cpu"), "newest")
    for count in (1, 7, 64):
        z, labels = next(generator.latents(seed=1))[:count], torch.arange(count) % CLASSES
        (found,) = session.run(["samples"], {"z": z.numpy(), "labels": labels.numpy()})
        assert np.abs(found - generator(z, labels).numpy()).max() <= 1e-5


# Every network


@pytest.mark.parametrize(("name", "num_classes"), WITH_CLASSES)
@pytest.mark.parametrize("form", FORMATS)
def test_every_architecture_can_be_exported(form, name, num_classes):
    needs(form)
    torch.manual_seed(0)
    shape, (network, _, latent_dim) = small(name, num_classes)
    for _ in range(2):  # batch norm has statistics that are not 0 and 1
        apply(network, torch.randn(8, latent_dim), torch.arange(8) % 3 if num_classes else None)
    generator = trained(network, latent_dim, shape, num_classes)
    assert difference(form, generator) <= TOLERANCE


ODD: dict[str, tuple[str, tuple[int, ...], dict[str, Any]]] = {
    "spectral norm": ("dcgan", (1, 16, 16), {"channels": 4, "normalization": "spectral"}),
    "layer norm": ("dcgan", (1, 16, 16), {"channels": 4, "normalization": "layer"}),
    "attention": ("resnet", (1, 16, 16), {"channels": 4, "attention": 8}),
    "norms by class": ("dcgan", (3, 16, 16), {"channels": 4, "conditioning": "batch_norm"}),
    "concatenated": ("resnet", (3, 16, 24), {"channels": 4, "conditioning": "concatenation"}),
    "activations": ("mlp_dropout", (2, 3), {"activation": "gelu", "dropout": 0.5, "output": ["auto"]}),
}


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("form", FORMATS)
def test_every_layer_can_be_exported(form, odd):
    needs(form)
    torch.manual_seed(0)
    name, shape, keys = ODD[odd]
    network, _, latent_dim = networks(name, shape, num_classes=3, value_range=(-1.0, 1.0), generator=keys)
    assert difference(form, trained(network, latent_dim, shape, 3)) <= TOLERANCE


# The command


def test_the_command_says_where_it_wrote_and_that_it_was_tried(pattern, tmp_path):
    done = command("export", f"run={pattern}", "out=made/generator.pt2", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "made/generator.pt2\n")
    (line,) = done.stderr.splitlines()
    assert line.startswith("step 3: loaded again, it makes the generator's samples")
    assert [path.name for path in (tmp_path / "made").iterdir()] == ["generator.pt2"]
    assert {path.name for path in tmp_path.iterdir()} == {"pattern", "made"}


def test_onnx_says_nothing_more_and_writes_nothing_elsewhere(pattern, tmp_path):
    needs("onnx")
    (tmp_path / "home").mkdir()
    environment = {name: value for name, value in ENVIRONMENT.items() if name not in SENT_TO}
    done = subprocess.run(
        [sys.executable, "-m", "gan_runner.export", f"run={pattern}", "format=onnx"],
        cwd=tmp_path,
        env=environment | {"HOME": str(tmp_path / "home")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "generator.onnx\n")
    (line,) = done.stderr.splitlines()
    assert line.startswith("step 3: loaded again")
    assert tree(tmp_path / "home") == {}
    assert {path.name for path in tmp_path.iterdir()} == {"pattern", "home", "generator.onnx"}


def test_help_needs_no_torch(tmp_path):
    code = "import sys; sys.modules['torch'] = None; from gan_runner.export import main; main()"
    line = [sys.executable, "-c", code, "--help"]
    done = subprocess.run(line, cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "format=onnx" in done.stdout


def test_the_best_weights_are_another_generator(pattern):
    for name in ("status.json", "evaluation.json"):  # else its last weights are its best ones
        (pattern / name).unlink()
    with pytest.raises(UserError, match=r"best\.safetensors: is not there; the run has kept no best one"):
        export(f"run={pattern}", "checkpoint=best")


def test_weights_that_are_not_there_are_told(pattern):
    (pattern / "generator.safetensors").unlink()
    before = tree(pattern)
    with pytest.raises(UserError, match=r"generator\.safetensors: is not there; the run has trained no generator"):
        export(f"run={pattern}")
    assert tree(pattern) == before


@pytest.mark.parametrize("form", FORMATS)
def test_a_file_that_is_there_is_not_overwritten(pattern, tmp_path, form):
    precious = tmp_path / f"precious.{ENDINGS[form]}"
    precious.write_bytes(b"mine")
    with pytest.raises(UserError, match="is there already, and it is not overwritten; name another file, or remove"):
        export(f"run={pattern}", f"format={form}", f"out={precious}")
    assert precious.read_bytes() == b"mine"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("format=onxx", "format: found 'onxx'"),
        ("formt=onnx", "formt: no such key; did you mean 'format'?"),
        ("checkpoint=last", "checkpoint: found 'last'"),
        ("out=a.onnx", "out=a.onnx: is the name of an ONNX file; type format=onnx as well"),
        ("format=onnx out=a.pt2", "out=a.pt2: allowed: a file whose name ends in .onnx"),
        ("out=file/a.pt2", "out=file/a.pt2: nothing can be written to '"),
        ("out=/proc/a.pt2", "nothing can be written to '/proc'"),
        ("run=nowhere", "run=nowhere: is no run directory"),
        ("device=cpu", "device: no such key"),
    ],
)
def test_what_cannot_be_asked_for(refused, pattern, words, message):
    Path("file").touch()
    words = [f"run={pattern}", *words.split()]
    assert message in refused(*words[words[-1].startswith("run=") :], command="export")


@pytest.mark.parametrize("out", ["generator.pt2", "sampled/generator.pt2"])
def test_a_run_directory_stays_one_that_can_be_loaded(pattern, out):
    """A .pt2 is a zip file, and a run with one of those is not loaded any more."""
    before = tree(pattern)
    with pytest.raises(UserError, match=re.escape(f"out={pattern / out}: lies in the run directory {pattern}")):
        export(f"run={pattern}", f"out={pattern / out}")
    assert tree(pattern) == before


def test_a_missing_package_is_named_with_the_extra(pattern, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    before = tree(pattern)
    message = "format=onnx: onnxruntime is not installed: pip install 'gan_runner[onnx]'"
    with pytest.raises(UserError, match=re.escape(message)):
        export(f"run={pattern}", "format=onnx")
    assert tree(pattern) == before


OWN = """
import torch
from gan_runner.networks import MLPGenerator

class Own(MLPGenerator):
    def forward(self, z, labels=None):
        x = super().forward(z, labels)
        {line}
"""


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("return x + 0.01 * torch.randn_like(x)", "makes other samples than Own of {run} (they differ by up to 0.0"),
        ("return x + float(z.max())", "Own of {run} cannot be exported: "),
        ("return x if z[0, 0] > 0 else -x", "Own of {run} cannot be exported: "),
        ("return x * torch.ones(len(x), 1)", "Own of {run} cannot be exported: "),
    ],
)
@pytest.mark.parametrize("form", FORMATS)
def test_a_generator_of_ones_own_that_cannot_be_exported_leaves_nothing(
    pattern, tmp_path, monkeypatch, capfd, line, message, form
):
    needs(form)
    module = f"own_export_{form}_{len(line)}"
    (tmp_path / f"{module}.py").write_text(OWN.format(line=line))
    monkeypatch.syspath_prepend(tmp_path)
    config = yaml.safe_load((pattern / "config.yaml").read_text())
    config["architecture"]["generator"]["_target_"] = f"{module}.Own"
    (pattern / "config.yaml").write_text(yaml.safe_dump(config))
    monkeypatch.chdir(tmp_path)
    before = tree(tmp_path)
    with pytest.raises(UserError, match=re.escape(message.format(run=pattern))) as refused:
        export(f"run={pattern}", f"format={form}", f"trust=[{module}]")
    assert str(refused.value).startswith(f"format={form}: ")
    assert len(str(refused.value)) < 500
    assert capfd.readouterr() == ("", "")
    assert {p: b for p, b in tree(tmp_path).items() if "__pycache__" not in p} == before


def test_an_export_that_makes_other_samples_is_not_kept(pattern, tmp_path, monkeypatch):
    """However it came about: here the loaded program is off by a thousandth."""
    from gan_runner.commands import export as module

    def off(exported, facts):
        content, loaded = to_torch(exported, facts)
        return content, lambda *inputs: loaded(*inputs) + 1e-3

    monkeypatch.setattr(module, "to_torch", off)
    monkeypatch.chdir(tmp_path)
    before = tree(tmp_path)
    with pytest.raises(UserError, match="makes other samples"):
        export(f"run={pattern}")
    assert tree(tmp_path) == before
