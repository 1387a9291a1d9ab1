"""A run directory that a stranger made: nothing in it is executed, and gan-train refuses it."""

import hashlib
import os
import pickle
import shutil
import time
from pathlib import Path

import pytest
import safetensors.torch
import torch
import yaml

from gan_runner import tensor_files
from gan_runner.config.trust import refuse_foreign_targets
from gan_runner.errors import UserError
from gan_runner.runs import checkpoint
from tests.training import TINY, train

TEN_STEPS = (*TINY, "trainer.steps=10", "trainer.checkpoint_every=5")
AGAIN = (*TINY, "trainer.steps=20", "trainer.checkpoint_every=5")
WAYS = {
    "resume": ("resume=run", "trainer.steps=20"),
    "same directory": ("hydra.run.dir=run", *AGAIN),
    "fork": ("fork_from=run", "name=fork", *AGAIN),
}


class Payload:
    """Writes a file when it is unpickled."""

    def __init__(self, sentinel: Path) -> None:
        self.sentinel = sentinel

    def __reduce__(self):
        return os.system, (f"touch {self.sentinel}",)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    directory = tmp_path_factory.mktemp("finished") / "run"
    assert train(directory, *TEN_STEPS) == 0
    return directory


@pytest.fixture
def run(refused, finished):
    """A copy of a run, in the current directory. Nothing that a test puts into it may create the sentinel file."""
    shutil.copytree(finished, "run")
    sentinel = Path("sentinel").resolve()
    assert os.system(f"touch {sentinel}") == 0  # the means are there
    assert sentinel.exists()
    sentinel.unlink()
    yield Path("run")
    assert not sentinel.exists()


def files(directory: Path) -> list[str]:
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file())


def pickled(protocol: int) -> bytes:
    return pickle.dumps(Payload(Path("sentinel").resolve()), protocol)


def saved_by_torch(path: Path, old: bool) -> None:
    torch.save({"generator": Payload(Path("sentinel").resolve())}, path, _use_new_zipfile_serialization=not old)


def set_key(directory: Path, key: str, value: object) -> None:
    config = yaml.safe_load((directory / "config.yaml").read_text())
    *parents, last = key.split(".")
    node = config
    for parent in parents:
        node = node.setdefault(parent, {})
    node[last] = value
    (directory / "config.yaml").write_text(yaml.safe_dump(config))


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_pickle_in_place_of_any_file(run, refused, way):
    # The lock file's content is never read, but a process id.
    for name in [name for name in files(run) if name != ".lock"]:
        original = (run / name).read_bytes()
        (run / name).write_bytes(pickled(4))
        line = refused(*way)
        assert name in line, line
        (run / name).write_bytes(original)


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 5])
def test_pickle_of_any_protocol(run, refused, protocol):
    for name in [name for name in files(run) if name != ".lock"]:
        original = (run / name).read_bytes()
        (run / name).write_bytes(pickled(protocol))
        assert name in refused(*WAYS["resume"])
        (run / name).write_bytes(original)


@pytest.mark.parametrize("old", [False, True])
def test_file_of_torch_save(run, refused, old):
    for name in ("generator.safetensors", files(run / "checkpoints")[-1], "status.json"):
        path = next(run.rglob(name))
        original = path.read_bytes()
        saved_by_torch(path, old)
        assert name in refused(*WAYS["resume"])
        path.write_bytes(original)


@pytest.mark.parametrize("name", ["extra.pt", "checkpoints/step_00000099-0123456789abcdef.safetensors", ".hidden.pkl"])
def test_pickle_beside_the_files_of_a_run(run, refused, name):
    (run / name).write_bytes(pickled(4))
    assert name in refused(*WAYS["resume"])


def test_pickles_are_what_the_tests_say():
    here = Path("sentinel_of_this_test").resolve()
    for protocol in range(6):
        pickle.loads(pickle.dumps(Payload(here), protocol))
        assert here.exists()
        here.unlink()


FOREIGN = [
    "os.system",
    "posix.system",
    "subprocess.Popen",
    "builtins.eval",
    "torch.load",
    "torch.hub.load",
    "torch.jit.load",
    "torch.nn.modules.module.os.system",
    "torch.nn.functional.linear",
    "torch.nn.modules.module.OrderedDict",
    "gan_runner.datasets.base.ABC",
    "torch.utils.data.DataLoader",
    "torch.nn",
    "torch",
    "torch.nn.",
    "torch.nn..Linear",
    ".torch.nn.Linear",
    "torch.nnx.Linear",
    "gan_runner.config.schema.composition.sys.exit",
    "gan_runner.train.main",
    "gan_runner.runs.directory.RunDirectory",
    "gan_runner.runs.logger.Logger",
    "gan_runner.runs.checkpoint.write_atomically",
    "gan_runner.networks.layers.torch.load",
    "gan_runner.networks.os",
    "my_package.Loss",
    "hydra.utils.instantiate",
    "pickle.loads",
    5,
    None,
    ["os.system"],
    {"_target_": "os.system"},
]


@pytest.mark.parametrize("target", FOREIGN, ids=str)
def test_foreign_target(run, refused, target):
    set_key(run, "loss._target_", target)
    line = refused(*WAYS["resume"])
    assert "config.yaml" in line
    assert "loss._target_" in line


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize(
    "key",
    [
        "dataset",
        "architecture.generator",
        "architecture.discriminator",
        "architecture.generator.hidden",
        "loss",
        "regularizer.mine",
        "optimizer.generator",
        "optimizer.discriminator.betas",
        "trainer",
        "unheard.of",
        "_target_",
    ],
)
def test_foreign_target_anywhere(run, refused, way, key):
    node = "os.system" if key == "_target_" else {"_target_": "os.system", "command": f"touch {Path.cwd()}/sentinel"}
    set_key(run, key, node)
    line = refused(*way)
    assert "config.yaml" in line or key in line
    assert "os.system" in line or "_target_" in line or "unheard" in line


def test_foreign_module_is_not_even_imported(run, refused):
    Path("evil.py").write_text("open('sentinel', 'w')\nclass Loss: pass\n")
    for target in ("evil.Loss", "evil.sub.Loss"):
        set_key(run, "loss._target_", target)
        assert target in refused(*WAYS["resume"])


@pytest.mark.parametrize("name", ["gan_runner.py", "yaml.py", "pickle.py", "resource.py"])
def test_modules_in_the_run_are_not_imported(run, refused, name):
    (run / name).write_text("open('sentinel', 'w')")
    set_key(run, "loss._target_", "os.system")
    refused(*WAYS["resume"])


def test_a_stored_trust_does_not_count(run, refused):
    set_key(run, "trust", ["os", "posix", "torch", "builtins"])
    for target in ("os.system", "torch.load"):
        set_key(run, "loss._target_", target)
        for way in WAYS.values():
            assert "config.yaml" in (line := refused(*way)) or "loss._target_" in line


@pytest.mark.parametrize(
    "text",
    [
        "!!python/object/apply:os.system ['touch sentinel']",
        "loss: !!python/object/apply:os.system ['touch sentinel']",
        "loss: !!python/object/new:os.system ['touch sentinel']",
        "loss: !!python/name:os.system",
        "loss: !!python/module:os",
        "loss: !!set {a, b}",
        "loss: !!binary aGVsbG8=",
        "loss: 2026-01-31",
        "loss: 2026-99-99",
        "loss: " + "9" * 5000,
        "loss: [",
        "loss: " + "[" * 100_000,
        "just words",
        "[a, list]",
        "",
        "{}",
        "seed: {}",
        "trainer: [1, 2]",
        "seed: 0\0",
        "\xff\xfe",
        "loss: &a {b: *a}",
    ],
    ids=lambda text: text[:24],
)
def test_config_that_is_none(run, refused, text):
    (run / "config.yaml").write_text(text, encoding="latin-1")
    for way in WAYS.values():
        assert "config.yaml" in refused(*way)


def test_config_without_end(run, refused):
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12)]
    (run / "config.yaml").write_text("\n".join(lines))
    begun = time.monotonic()
    assert "alias" in refused(*WAYS["resume"])
    assert time.monotonic() - begun < 10


@pytest.mark.parametrize("value", ["${oc.env:HOME}", "${nope}", "${oc.create:${nope}}", "${", "${a:"])
def test_interpolations_of_a_stranger_are_plain_text(run, typed, value):
    set_key(run, "name", value)
    assert typed(*WAYS["resume"]).status == 0
    assert yaml.safe_load((run / "config.yaml").read_text())["name"] == value


@pytest.mark.parametrize("name", ["config.yaml", "status.json", "metrics.jsonl", "summary.txt", ".lock", "samples"])
def test_links_lead_nowhere(run, refused, name):
    precious = Path("precious").resolve()
    shutil.copytree(run / name, precious) if (run / name).is_dir() else shutil.copy(run / name, precious)
    shutil.rmtree(run / name) if (run / name).is_dir() else (run / name).unlink()
    (run / name).symlink_to(precious)
    assert name in refused(*WAYS["resume"])
    assert name in refused(*WAYS["same directory"])


def test_pipe_in_place_of_a_file(run, refused):
    (run / "config.yaml").unlink()
    os.mkfifo(run / "config.yaml")
    assert "config.yaml" in refused(*WAYS["resume"])


@pytest.mark.parametrize("name", ["status.json", "manifest.json"])
@pytest.mark.parametrize("text", ["{", "[1]", '"text"', "[" * 100_000, "\xff"], ids=lambda text: text[:8])
def test_json_that_is_none(run, refused, name, text):
    (run / name).write_text(text, encoding="latin-1")
    assert name in refused(*WAYS["resume"])


@pytest.mark.parametrize("data", ["[1]", "5", "null", '{"fingerprint": 5}'])
def test_manifest_of_other_kinds(run, refused, data):
    (run / "manifest.json").write_text(f'{{"data": {data}}}')
    assert "manifest.json" in (line := refused(*WAYS["resume"])) or "dataset.root" in line


def replace_checkpoint(directory: Path, content: bytes) -> None:
    """A checkpoint whose name has the right hash."""
    for path in (directory / "checkpoints").iterdir():
        path.unlink()
    digest = hashlib.sha256(content).hexdigest()[:16]
    (directory / "checkpoints" / f"step_00000010-{digest}.safetensors").write_bytes(content)


@pytest.mark.parametrize("way", ["resume", "fork"])
@pytest.mark.parametrize(
    "content",
    {
        "empty": b"",
        "text": b"weights",
        "endless header": b"\xff" * 8 + b"{}",
        "no tensors": safetensors.torch.save({}),
        "other names": safetensors.torch.save({"generator/layers.9.weight": torch.zeros(3)}),
        "name within a name": safetensors.torch.save({"generator": torch.zeros(3), "generator/a": torch.zeros(3)}),
        "number for a network": checkpoint.dump({"generator": 5, "discriminator": {}}),
        "tensor for a network": checkpoint.dump({"generator": torch.zeros(2), "discriminator": torch.zeros(2)}),
        "values of another kind": safetensors.torch.save({}, metadata={"values": "[1]"}),
        "values that are no JSON": safetensors.torch.save({}, metadata={"values": "import os"}),
        "values without end": safetensors.torch.save({}, metadata={"values": "[" * 100_000}),
    }.items(),
    ids=lambda item: item[0],
)
def test_tampered_checkpoint(run, refused, way, content):
    replace_checkpoint(run, content[1])
    assert "run" in refused(*WAYS[way])


@pytest.mark.parametrize("shape", [(), (0,), (1,), (3, 3)])
@pytest.mark.parametrize(
    "part", ["generator/layers.0.weight", "discriminator/layers.0.weight", "optimizer/generator/0/exp_avg"]
)
def test_checkpoint_with_tensors_of_other_shapes(run, refused, part, shape):
    # A fused optimizer would read and write beyond the end of such a tensor.
    path = checkpoint.checkpoints(run / "checkpoints")[-1]
    leaves = dict(tensor_files.flatten(checkpoint.parse(path.read_bytes(), path)))
    assert part in leaves
    replace_checkpoint(run, checkpoint.dump(leaves | {part: torch.zeros(shape)}))
    assert "fit" in refused(*WAYS["resume"])


def test_checkpoint_with_a_count_of_steps_that_is_none(run, refused):
    path = checkpoint.checkpoints(run / "checkpoints")[-1]
    leaves = dict(tensor_files.flatten(checkpoint.parse(path.read_bytes(), path)))
    replace_checkpoint(run, checkpoint.dump(leaves | {"optimizer/generator/0/step": torch.zeros(0)}))
    assert "step of shape (0,)" in refused(*WAYS["resume"])


def test_checkpoint_changed_on_the_way(run, refused):
    for path in checkpoint.checkpoints(run / "checkpoints"):
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(content)
    for way in ("resume", "fork"):
        assert "damaged" in refused(*WAYS[way])


def test_the_same_run_untouched_goes_on(run, typed):
    for way in WAYS.values():
        assert typed(*way).status == 0


def test_trusted_packages_are_exact():
    config = {"loss": {"_target_": "my_package.losses.Mine"}}
    refuse_foreign_targets(config, ["my_package"], "config.yaml")
    refuse_foreign_targets(config, ["my_package.losses"], "config.yaml")
    for trust in ([], ["my"], ["my_pack"], ["my_package.loss"], [""], ["other"]):
        with pytest.raises(UserError, match="my_package"):
            refuse_foreign_targets(config, trust, "config.yaml")


def test_components_of_torch_and_of_this_package_pass():
    targets = ("torch.nn.Linear", "torch.nn.utils.parametrizations._SpectralNorm", "torch.optim.Adam")
    for target in (*targets, "gan_runner.datasets.MNIST", "gan_runner.losses.Hinge", "gan_runner.regularizers.R1"):
        refuse_foreign_targets({"a": [{"_target_": target}]}, [], "config.yaml")
