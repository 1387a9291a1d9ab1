"""`gan-export`: a run's generator as one file that needs no gan_runner, with what one has to know to use it.

What will be in the file is loaded and run first, and its samples are compared with the generator's.
"""

import io
import json
import logging
import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from gan_runner import __version__
from gan_runner.config.schema import Section, validate
from gan_runner.console import say
from gan_runner.datasets import DataFacts
from gan_runner.datasets.base import Folder
from gan_runner.errors import UserError, one_line
from gan_runner.networks.running import apply
from gan_runner.paths import as_path, refuse_unwritable, write_atomically
from gan_runner.runs.generator import SAMPLE_BATCH, Checkpoint, TrainedGenerator, load_generator

TOLERANCE = 1e-4  # of samples, or of their largest value if that is above 1: other kernels round otherwise
OF_ONNX = ("onnx", "onnxscript", "onnxruntime")

Inputs = tuple[Tensor, ...]  # z (B, latent dim), and labels (B,) if the generator is conditional
Loaded = Callable[..., Tensor]  # what was exported, loaded again: such inputs -> samples (B, *shape)


class ExportSettings(Section):
    """Which generator to export, how, and where to write it."""

    run: Folder
    format: Literal["torch", "onnx"]
    checkpoint: Checkpoint
    out: str | None
    trust: list[str]


class InDataUnits(nn.Module):
    """A generator whose samples are in the data's own units, as those of `gan-sample` are."""

    def __init__(self, network: nn.Module, facts: DataFacts) -> None:
        super().__init__()
        self.network, self.facts = network, facts

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """(B, latent_dim), (B,) -> (B, *shape)."""
        return self.facts.in_data_units(apply(self.network, z, labels))


def write_export(plain: Mapping[str, Any]) -> Path:
    """Writes the file that the configuration `plain` asks for, and returns it.

    If the configuration or the run is wrong, or the file would make other samples, raises `UserError` and leaves
    nothing behind.
    """
    settings = validate(ExportSettings, plain)
    save, ending = {"torch": (to_torch, ".pt2"), "onnx": (to_onnx, ".onnx")}[settings.format]
    if settings.format == "onnx":
        import_onnx()
    run = as_path("run", settings.run)
    generator = load_generator(run, settings.trust, torch.device("cpu"), settings.checkpoint)
    out = Path(f"generator{ending}") if settings.out is None else as_path("out", settings.out)
    if out.suffix == ".onnx" != ending:
        raise UserError(f"out={out}: is the name of an ONNX file; type format=onnx as well")
    refuse_unwritable(out, ending)
    if run.resolve() in out.resolve().parents:  # a .pt2 is a zip file, and a run with one would not be loaded again
        raise UserError(f"out={out}: lies in the run directory {settings.run}; name a file elsewhere")

    name = f"{type(generator.network).__name__} of {settings.run}"
    try:
        with torch_silenced():
            content, loaded = save(program(generator), json.dumps(about(generator, settings), indent=2))
            difference = max(largest_difference(loaded, generator, count) for count in (1, SAMPLE_BATCH))
    except Exception as error:  # the generator may be a user's own
        raise UserError(
            f"format={settings.format}: {name} cannot be exported: {one_line(error).split('; ')[0]} (its forward may "
            f"not branch on values, and must take the number of samples from z.shape[0], not from len(z))"
        ) from error
    if not difference <= TOLERANCE:
        raise UserError(
            f"format={settings.format}: what was exported makes other samples than {name} (they differ by up to "
            f"{difference:.2g}), so nothing was written; does its forward draw random numbers?"
        )
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(out, content)
    except OSError as error:
        raise UserError(f"out={out}: cannot be written: {error.strerror or error}") from error
    say(f"step {generator.step:,}: loaded again, it makes the generator's samples (to {difference:.1g})")
    return out


def import_onnx() -> None:
    """Imports what ONNX needs; raises `UserError` if a package of these is not installed."""
    # Unless told not to before it is imported, ONNX Runtime reports its use to its makers, and writes to HOME.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    for package in OF_ONNX:
        try:
            import_module(package)
        except ImportError as error:
            raise UserError(f"format=onnx: {package} is not installed: pip install 'gan_runner[onnx]'") from error


@contextmanager
def torch_silenced() -> Iterator[None]:
    """Hides the warnings that torch prints while it exports, which take pages. Errors are still raised."""
    logging.disable(logging.WARNING)
    try:
        with redirect_stderr(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)


def about(generator: TrainedGenerator, settings: ExportSettings) -> dict[str, Any]:
    """The facts that go with the file."""
    facts = generator.facts
    return {
        "latent": generator.latent.model_dump(),
        "shape": facts.shape,
        "value_range": (0, 1) if facts.is_image and facts.value_range is not None else facts.value_range,
        "num_classes": generator.num_classes,
        "class_names": facts.class_names if generator.num_classes else (),
        "cluster_sizes": facts.cluster_sizes if generator.num_classes else (),
        "run": settings.run,
        "checkpoint": settings.checkpoint,
        "step": generator.step,
        "versions": {"gan_runner": __version__, "torch": torch.__version__},
    }


def inputs_of(generator: TrainedGenerator, count: int) -> Inputs:
    """The first latents of seed 0 and, if the generator is conditional, the classes in turn."""
    z = next(generator.latents(seed=0))[:count]
    return (z, torch.arange(count) % generator.num_classes) if generator.num_classes else (z,)


def any_number(inputs: Inputs) -> tuple[dict[int, Any], ...]:
    """That all inputs have any size, but the same, along their first dimension."""
    batch = torch.export.Dim("batch")
    return tuple({0: batch} for _ in inputs)


def program(generator: TrainedGenerator) -> ExportedProgram:
    """The generator as a graph of torch's own operations."""
    network = InDataUnits(generator.network.requires_grad_(False), generator.facts).eval()
    inputs = inputs_of(generator, 2)
    with torch.no_grad():
        return torch.export.export(network, inputs, dynamic_shapes=any_number(inputs))


def to_torch(exported: ExportedProgram, facts: str) -> tuple[bytes, Loaded]:
    """The content of a file for `torch.export.load`, with `facts` as its extra file facts.json; and it, loaded."""
    file = io.BytesIO()
    torch.export.save(exported, file, extra_files={"facts.json": facts})
    file.seek(0)
    return file.getvalue(), torch.export.load(file).module()


def to_onnx(exported: ExportedProgram, facts: str) -> tuple[bytes, Loaded]:
    """The content of an .onnx file, with `facts` in its metadata; and it, loaded by ONNX Runtime."""
    import onnxruntime

    inputs = exported.example_inputs[0]
    names = ("z", "labels")[: len(inputs)]
    converted = torch.onnx.export(
        *(exported, inputs),
        input_names=names,
        output_names=["samples"],
        dynamic_shapes=any_number(inputs),
        dynamo=True,
        verbose=False,
    )
    assert converted is not None
    model = converted.model_proto
    model.metadata_props.add(key="facts", value=facts)
    content = model.SerializeToString()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])

    def loaded(*inputs: Tensor) -> Tensor:
        values = {name: tensor.numpy() for name, tensor in zip(names, inputs, strict=True)}
        return torch.from_numpy(session.run(None, values)[0])

    return content, loaded


def largest_difference(loaded: Loaded, generator: TrainedGenerator, count: int) -> float:
    """The largest difference between `count` samples of both, divided by their largest value if that is above 1."""
    z, *labels = inputs_of(generator, count)
    expected = generator(z, labels[0] if labels else None)
    found = loaded(z, *labels)
    if found.shape != expected.shape:
        return float("inf")
    return ((found - expected).abs().max() / expected.abs().max().clamp(min=1)).item()
