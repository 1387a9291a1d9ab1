"""The configuration: every YAML composes and fits its class, types and ranges hold, and leaves know nothing of it."""

import inspect
from typing import Literal

import pytest
import yaml

from gan_runner.config import composition
from gan_runner.config.components import Experiment, check, locate
from gan_runner.config.schema import Config, validate
from gan_runner.errors import UserError, did_you_mean
from tests.conftest import REPOSITORY

CONF, PACKAGE = REPOSITORY / "conf", REPOSITORY / "gan_runner"
CHOICES = sorted(f"{path.parent.name}={path.stem}" for path in CONF.glob("*/*.yaml"))
FIXED = {  # the names that users rely on
    "dataset": {"pattern", "gaussian_1d", "mnist", "fashion_mnist", "celeba", "images"},
    "architecture": {
        *("mlp_pattern", "mlp_dropout", "mlp_tanh", "mlp_batchnorm", "mlp_layernorm", "mlp_conditional"),
        *("cnn_mnist", "cnn_celeba", "dcgan", "resnet"),
    },
    "loss": {"minimax", "nonsaturating", "lsgan", "lsgan_probability", "wasserstein", "hinge", "relativistic"},
    "regularizer": {"gradient_penalty", "r1", "r2", "dragan", "lecam"},
    "augmentation": {"diffaugment", "ada", "instance_noise", "none"},
    "device": {"auto", "cpu", "cuda", "mps", "data_parallel", "ddp"},
}


def composed(*overrides: str) -> dict:
    return composition.plain(composition.compose(overrides, "train"))


def experiment(*overrides: str) -> Experiment:
    return check(composed(*overrides))


def checked(*overrides: str) -> Config:
    return experiment(*overrides).config


@pytest.mark.parametrize("choice", CHOICES)
def test_every_choice_fits_what_it_names(choice):
    for component in experiment(choice).components.values():
        assert component.cls.__module__.startswith(("gan_runner.", "torch."))


def test_a_class_may_lack_what_the_choice_that_it_replaces_leaves_open():
    replaced = experiment("loss=nonsaturating", "loss._target_=gan_runner.losses.Hinge")
    assert replaced.components["loss"].values == {}
    with pytest.raises(UserError, match=r"loss\.label_smoothing: Hinge has no such key"):
        experiment("loss._target_=gan_runner.losses.Hinge", "loss.label_smoothing=0.1")


@pytest.mark.parametrize("group", FIXED)
def test_names_that_users_rely_on(group):
    assert FIXED[group] <= {path.stem for path in (CONF / group).glob("*.yaml")}


@pytest.mark.parametrize("path", sorted(CONF.rglob("*.yaml")), ids=lambda path: str(path.relative_to(CONF)))
def test_every_file_begins_with_what_it_is(path):
    first = path.read_text().splitlines()[0]
    assert first.startswith("#")


def test_defaults():
    found = checked()
    assert (found.seed, found.name, found.resume, found.fork_from, found.trust) == (0, "pattern", None, None, [])
    assert found.regularizer == {}


@pytest.mark.parametrize(
    ("override", "names"),
    [
        ("regularizer=[r1,r2]", {"r1", "r2"}),
        ("regularizer=r1", {"r1"}),
        ("regularizer=gradient_penalty", {"gradient_penalty"}),
        ("regularizer=[]", set()),
    ],
)
def test_regularizers(override, names):
    assert set(checked(override).regularizer) == names


def test_whole_floats_are_integers():
    steps = checked("trainer.steps=1e3").trainer.steps
    assert steps == 1000
    assert type(steps) is int
    assert experiment("optimizer.generator.lr=1").components["optimizer.generator"].values["lr"] == 1


@pytest.mark.parametrize("value", ["'5'", "true", "1.5", "null", "0", "-1", "nan", "inf", "[5]", "{a:5}", "many"])
def test_what_is_no_number_of_steps(value):
    with pytest.raises(UserError, match=r"^trainer\.steps"):
        checked(f"++trainer.steps={value}")


@pytest.mark.parametrize(
    ("name", "allowed"),
    [("a", True), ("lr=0.1 größer", True), ("2026", True), ("..", True), ("a/b", True), ("", False), ("a\nb", False)],
)
def test_names_of_runs(name, allowed):
    plain = composed() | {"name": name}
    if allowed:
        assert check(plain).config.name == name
    else:
        with pytest.raises(UserError, match=r"^name: "):
            check(plain)


@pytest.mark.parametrize(
    ("overrides", "named"),
    [
        (["loss=relativistic", "trainer.discriminator_update=separate"], "trainer.discriminator_update=separate"),
        (
            ["trainer.discriminator_update=separate", "trainer.discriminator_forward=concatenated"],
            "trainer.discriminator_forward=concatenated",
        ),
        (["trainer.compile=true", "device=data_parallel"], "trainer.compile=true"),
        (["device=cpu", "device.processes=2"], "device.processes=2"),
        (["device=cpu", "device.sync_batchnorm=true"], "device.sync_batchnorm=true"),
        (["optimizer.warmup_steps=10", "trainer.steps=10"], "optimizer.warmup_steps=10"),
        (["resume=a", "fork_from=b"], "fork_from"),
        (["experiment=grid_best", "regularizer=[]"], "regularizer.r1: has keys but no _target_"),
    ],
)
def test_rules_between_keys(overrides, named):
    with pytest.raises(UserError) as refusal:
        checked(*overrides)
    assert str(refusal.value).startswith(named)


def test_a_value_is_never_mended():
    for kind, value in [(int, "5"), (int, True), (float, "1"), (bool, 1), (str, 5), (list[int], [1, "2"])]:
        with pytest.raises(UserError, match=r"^key"):
            validate(kind, value, "key")
    assert validate(tuple[float, float], [1, 2], "key") == (1.0, 2.0)
    assert validate(int | None, None, "key") is None
    with pytest.raises(UserError, match=r"^key: found 'c' \(str\); input should be 'a' or 'b'"):
        validate(Literal["a", "b"], "c", "key")


def test_the_place_in_a_list_is_named():
    with pytest.raises(UserError, match=r"^key\.1: found 'x'"):
        validate(list[int], [1, "x"], "key")


def test_nearest_spelling():
    assert did_you_mean("hing", ["lsgan", "hinge"]) == "did you mean 'hinge'? (allowed: hinge, lsgan)"
    assert did_you_mean("xyz", ["lsgan", "hinge"]) == "(allowed: hinge, lsgan)"
    assert did_you_mean("a", []) == "(allowed: none)"


def test_no_default_is_typed_in_code():
    """What a YAML sets has no second default in the constructor of a component, and code asks for no fallback.

    But for None and False, which are "off": a run of an earlier version lacks the key.
    """
    for path in sorted((CONF / "architecture").glob("*.yaml")) + sorted((CONF / "dataset").glob("*.yaml")):
        text = yaml.safe_load(path.read_text())
        for node in (text, text.get("generator", {}), text.get("discriminator", {})):
            if "_target_" in node:
                parameters = inspect.signature(locate("", node["_target_"], object)).parameters
                allowed = (inspect.Parameter.empty, None, False)
                assert [k for k in node if k in parameters and parameters[k].default not in allowed] == []
