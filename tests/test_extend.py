"""A user's own dataset, architecture and loss: three classes and three YAML files, and no change to the package."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gan_runner.pictures import checked
from gan_runner.state import NETWORKS
from tests.training import TINY, assert_same_end, pictures, rows, scalars, status

CLASSES = """
import torch
from torch import nn

from gan_runner.datasets import Distribution
from gan_runner.losses import Loss


class Stripes(Distribution):
    def __init__(self, size: int, colours: list[float]) -> None:
        super().__init__((1, size, size), value_range=(0.0, 1.0), num_classes=len(colours))
        self.colours = torch.tensor(colours)

    def draw(self, count, rng):
        labels = torch.randint(len(self.colours), (count,), generator=rng)
        stripes = (torch.arange(self.shape[2]) % 2).expand(count, *self.shape)
        return stripes * self.colours[labels].reshape(-1, 1, 1, 1), labels


class Generator(nn.Module):
    def __init__(self, width: int, latent_dim: int, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.start = nn.Linear(latent_dim, width * shape[1] * shape[2] // 4)
        self.unflatten = nn.Unflatten(1, (width, shape[1] // 2, shape[2] // 2))
        self.end = nn.Sequential(nn.BatchNorm2d(width), nn.ReLU(), nn.ConvTranspose2d(width, shape[0], 4, 2, 1))

    def forward(self, z):
        return self.end(self.unflatten(self.start(z))).sigmoid()


class Discriminator(nn.Module):
    def __init__(self, width: int, activation: nn.Module, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(shape[0], width, 3), activation, nn.Conv2d(width, width, 3), nn.Flatten(), nn.LazyLinear(1)
        )
        self.layers(torch.zeros(1, *shape))

    def forward(self, x):
        return self.layers(x).squeeze(1)


class Scaled(Loss):
    def __init__(self, scale: float) -> None:
        self.scale = scale

    def real(self, logits):
        return self.scale * (logits - 1).square()

    def fake(self, logits):
        return self.scale * logits.square()

    def generator(self, fake_logits):
        return self.scale * (fake_logits - 1).square()
"""
YAML = {
    "dataset/stripes.yaml": "_target_: my_package.Stripes\nsize: 8\ncolours: [0.5, 1.0]\n",
    "architecture/mine.yaml": """
conditional: false
latent: {dim: 4, distribution: normal, loc: 0.0, scale: 1.0}
generator: {_target_: my_package.Generator, width: 6}
discriminator:
  _target_: my_package.Discriminator
  width: 5
  activation: {_target_: torch.nn.LeakyReLU, negative_slope: 0.1}
""",
    "loss/scaled.yaml": "_target_: my_package.Scaled\nscale: 0.5\n",
}
GROUPS = ("--config-dir=mine", "dataset=stripes", "architecture=mine", "loss=scaled")
MINE = (*GROUPS, *TINY, "trainer.sample_every=10", "trainer.checkpoint_every=5")


@pytest.fixture
def package(typed):
    """my_package.py and its groups, in the current directory."""
    Path("my_package.py").write_text(CLASSES)
    for name, text in YAML.items():
        path = Path("mine", name)
        path.parent.mkdir(parents=True)
        path.write_text(text)


@pytest.fixture
def at_once(package, typed):
    """Twenty steps without a stop."""
    assert typed(*MINE, "trainer.steps=20", "hydra.run.dir=at_once").status == 0
    return Path("at_once")


def test_trains(at_once):
    assert status(at_once)["state"] == "completed"
    losses = rows(at_once)[-1]
    assert losses["loss/discriminator"] == pytest.approx(
        losses["loss/discriminator_real"] + losses["loss/discriminator_fake"]
    )


def test_the_scale_of_the_loss_arrives(at_once, typed):
    assert typed(*MINE, "trainer.steps=20", "hydra.run.dir=strong", "loss.scale=1.0", "trainer.log_every=1").status == 0
    assert typed(*MINE, "trainer.steps=20", "hydra.run.dir=weak", "loss.scale=0.25", "trainer.log_every=1").status == 0
    strong, weak = rows(Path("strong"))[0], rows(Path("weak"))[0]  # both from the same weights
    assert strong["loss/discriminator"] == pytest.approx(4 * weak["loss/discriminator"])


def test_the_same_command_goes_on(at_once, typed):
    # Convolutions on purpose: their weights are kept channels-last, and so must be the moments of the optimizer.
    assert typed(*MINE, "trainer.steps=10", "hydra.run.dir=run").status == 0
    assert typed(*MINE, "trainer.steps=20", "hydra.run.dir=run").status == 0
    assert_same_end(at_once, Path("run"))


SLOWER = """
import torch


class Slower(torch.optim.Optimizer):
    def __init__(self, params, lr: float):
        super().__init__(params, {"lr": lr, "k": 0, "sum": torch.zeros(())})

    def step(self):
        for group in self.param_groups:
            group["k"] += 1
            group["sum"] += group["lr"]
            for p in group["params"]:
                p.data.sub_(p.grad, alpha=group["sum"].item() / group["k"] ** 2)
"""


def test_what_an_optimizer_keeps_of_all_its_parameters_goes_on_too(typed):
    Path("slower.py").write_text(SLOWER)
    words = [
        *TINY,
        "metric=[]",
        "trainer.sample_every=10",
        *(f"optimizer.{network}._target_=slower.Slower" for network in NETWORKS),
    ]
    words += [f"~optimizer.{network}.{key}" for network in NETWORKS for key in ("betas", "fused")]
    assert typed(*words, "trainer.steps=20", "hydra.run.dir=at_once").status == 0
    for steps in (10, 20):
        assert typed(*words, f"trainer.steps={steps}", "hydra.run.dir=run").status == 0
    assert_same_end(Path("at_once"), Path("run"))


def test_resume_needs_trust(at_once, typed, refused):
    assert typed(*MINE, "trainer.steps=10", "hydra.run.dir=run").status == 0
    for trust in ((), ("trust=[other]",), ("trust=[my_pack]",)):
        line = refused("resume=run", "trainer.steps=20", *trust)
        assert "my_package.Stripes" in line
        assert "trust=[my_package]" in line
    assert typed("resume=run", "trainer.steps=20", "trust=[my_package]").status == 0
    assert_same_end(at_once, Path("run"))


def test_fork_needs_trust(package, typed, refused):
    assert typed(*MINE, "trainer.steps=10", "hydra.run.dir=run").status == 0
    fork = (*MINE, "trainer.steps=10", "name=fork", "fork_from=run")
    assert "trust=[my_package]" in refused(*fork)
    assert typed(*fork, "trust=[my_package]").status == 0


def test_a_process_of_its_own_finds_the_classes(package, gan_train, tmp_path):
    ended = gan_train(*MINE, "trainer.steps=5", cwd=tmp_path / "here")
    assert ended.returncode == 0, ended.stderr
    assert (tmp_path / "here" / ended.stdout.splitlines()[-1] / "generator.safetensors").is_file()


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("+dataset.sise=8", ("dataset.sise", "Stripes has no such key", "did you mean 'size'")),
        ("dataset.size=eight", ("dataset.size", "'eight'", "integer")),
        ("dataset.colours=[red]", ("dataset.colours.0", "'red'", "number")),
        ("~dataset.size", ("dataset.size", "is missing", "Stripes needs it")),
        ("+architecture.generator.shape=[1,8,8]", ("architecture.generator.shape", "injected")),
        ("architecture.discriminator.activation.negative_slope=steep", ("negative_slope", "'steep'", "number")),
        ("architecture.discriminator.activation._target_=torch.nn.LekyReLU", ("activation._target_", "LekyReLU")),
        ("+loss.margin=1", ("loss.margin", "Scaled has no such key", "scale")),
        ("loss._target_=my_package.Stripes", ("loss._target_", "my_package.Stripes", "Loss")),
        ("loss._target_=my_packag.Scaled", ("loss._target_", "my_packag")),
        ("dataset.size=9", ("architecture.generator", "[6, 4, 4]")),
    ],
)
def test_mistakes_in_a_user_s_own_keys(package, refused, override, said):
    line = refused(*MINE, override)
    for part in said:
        assert part in line


def test_what_is_annotated_for_type_checkers_alone_is_taken_as_it_is(package, typed):
    lines = (
        "from __future__ import annotations\nfrom typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from x import X\n"
    )
    Path("my_package.py").write_text(lines + CLASSES.replace("scale: float", "scale: X"))
    assert typed(*MINE, "trainer.steps=5", "hydra.run.dir=run").status == 0


def test_a_class_that_does_not_say_its_keys_is_refused(refused):
    line = refused(*TINY, "+observer.own={_target_:builtins.dict}")
    assert "observer.own._target_: dict does not say which keys it has" in line


def test_a_class_that_raises_is_named(package, refused):
    Path("my_package.py").write_text(CLASSES.replace("self.scale = scale", "raise ValueError('no scales today')"))
    line = refused(*MINE)
    assert "loss" in line
    assert "no scales today" in line


def test_a_package_that_cannot_be_imported_is_named(package, refused):
    Path("my_package.py").write_text("import not_installed\n")
    line = refused(*MINE)
    assert "my_package.Stripes" in line
    assert "not_installed" in line


def test_the_example_of_the_readme(typed):
    readme = (Path(__file__).parents[1] / "README.md").read_text()
    files: dict[str, str] = {}  # each begins with its name; a fenced block may hold several
    for block in re.findall(r"```(?:python|yaml)\n(# \S+\.(?:py|yaml)\n.*?)```", readme, re.DOTALL):
        _, *parts = re.split(r"^# (\S+\.(?:py|yaml))\n", block, flags=re.MULTILINE)
        files |= zip(parts[::2], parts[1::2], strict=True)
    assert files.keys() == {
        *("mine.py", "groups/observer/spread.yaml"),
        *(f"groups/{name}.yaml" for name in ("dataset/circle", "architecture/mine", "loss/exponential")),
    }
    for name, text in files.items():
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(text)
    groups = ("--config-dir", "groups", "dataset=circle", "architecture=mine", "loss=exponential", "observer=spread")
    ended = typed(*groups, "trainer.steps=5", "hydra.run.dir=run")
    assert ended.status == 0, ended.err
    (row,) = rows(Path("run"))
    assert 0 < row["observer/spread/std"] < 10
    assert scalars(Path("run"), "observer/spread/std") == [pytest.approx(row["observer/spread/std"])]
    assert typed("resume=run", "trainer.steps=10", "trust=[mine]").status == 0


def test_the_step_of_the_readme_learns_the_pattern(capsys):
    readme = (Path(__file__).parents[1] / "README.md").read_text()
    (code,) = (block for block in re.findall(r"```python\n(.*?)```", readme, re.DOTALL) if "StepBatch" in block)
    torch.manual_seed(0)
    names: dict[str, Any] = {}
    exec(compile(code, "README.md", "exec"), names)
    sample = names["G"](names["z"][:1]).squeeze(0)
    assert (sample[::2] > 0.7).all()
    assert (sample[1::2] < 0.3).all()
    assert "tensor" in capsys.readouterr().out


OBSERVERS = """
import numpy as np


class Marks:
    def __init__(self, every):
        self.every = every

    def __call__(self, step, networks, row):
        picture = np.full((4, 6, 3), step % 256, np.uint8)
        return {"loss": row["loss/generator"], "samples": len(networks.draw(3)), "square": picture}


class Fails:
    every = 4

    def __call__(self, step, networks, row):
        raise ZeroDivisionError(f"at {step}")


class Grey:
    every = 4

    def __call__(self, step, networks, row):
        return {"square": np.zeros((4, 6, 1), np.uint8)}


class Numberless:
    def __call__(self, step, networks, row):
        return {}
"""


def observers(*classes: str) -> list[str]:
    Path("looks.py").write_text(OBSERVERS)
    keys = {"Marks": ",every:3"}
    return [f"+observer.{name.lower()}={{_target_:looks.{name}{keys.get(name, '')}}}" for name in classes]


def test_an_observer_logs_figures_and_pictures_at_its_own_steps(typed):
    words = (*TINY, "trainer.log_every=1", "trainer.steps=8", "hydra.run.dir=run", *observers("Marks"))
    assert typed(*words).status == 0
    logged = {row["step"]: row for row in rows(Path("run")) if "observer/marks/samples" in row}
    assert list(logged) == [3, 6, 8]
    assert all(row["observer/marks/loss"] == row["loss/generator"] for row in logged.values())
    assert [step for step, _ in pictures(Path("run"), "observer/marks/square")] == [3, 6, 8]
    # What a longer run would not have logged at step 8 goes when it is extended.
    assert typed("resume=run", "trainer.steps=9", "trust=[looks]").status == 0
    assert [row["step"] for row in rows(Path("run")) if "observer/marks/samples" in row] == [3, 6, 9]


def test_an_observer_that_raises_is_reported_and_the_run_goes_on(typed):
    ended = typed(*TINY, "trainer.steps=10", "hydra.run.dir=run", *observers("Fails"))
    assert ended.status == 0
    assert ended.err.count("warning: observer.fails failed at step") == 3  # 4, 8 and the last
    assert "Traceback" not in ended.err
    log = Path("run/log.txt").read_text()
    assert "ZeroDivisionError: at 8" in log
    assert 'looks.py", line' in log
    assert rows(Path("run"))[-1]["step"] == 10


def test_what_is_no_picture_is_reported_and_the_run_goes_on(typed):
    ended = typed(*TINY, "trainer.steps=4", "hydra.run.dir=run", *observers("Grey"))
    assert ended.status == 0
    found = "a picture is an array (height, width, 3) of uint8; found uint8, (4, 6, 1)"
    assert f"observer.grey failed at step 4: TypeError: {found}" in ended.err


@pytest.mark.parametrize("picture", [np.zeros((4, 6, 3)), np.zeros((4, 6), np.uint8), torch.zeros(4, 6, 3)])
def test_pictures_have_three_channels_of_uint8(picture):
    with pytest.raises(TypeError, match="a picture is an array"):
        checked(picture)


def test_what_is_no_observer_is_refused(typed, refused):
    assert "observer=spred: no such observer" in refused(*TINY, "observer=spred")
    assert "math.sqrt is not a class" in refused(*TINY, "+observer.root={_target_:math.sqrt}")
    line = refused(*TINY, *observers("Numberless"))
    assert "observer.numberless: Numberless is no observer" in line
