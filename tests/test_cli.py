"""A user's mistake is one line that names the key or file, status 2, and no directory."""

import fcntl
import gzip
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gan_runner.config import composition
from gan_runner.errors import UserError
from tests.conftest import REPOSITORY, tree
from tests.datasets.made_up import idx
from tests.training import TINY

TEN_STEPS = (*TINY, "trainer.steps=10")


@pytest.mark.parametrize(
    ("words", "said"),
    {
        # Groups and their choices
        "choice": ("loss=hing", ("loss=hing", "did you mean 'hinge'", "wasserstein")),
        "choice in a list": ("regularizer=[r1,r3]", ("regularizer=r3", "gradient_penalty, lecam, r1, r2")),
        "experiment": ("experiment=nope", ("experiment=nope", "allowed: ")),
        "group": ("losss=hinge", ("losss", "did you mean 'loss'")),
        "group with +": ("+losss=hinge", ("losss", "did you mean 'loss'")),
        "group and choice that are both unknown": ("+flavour=sweet", ("flavour: no such key",)),
        "a number for a choice": ("trainer=5", ("trainer=5: is no choice", "default")),
        "a truth for a choice": ("dataset=true", ("dataset=true: is no choice", "pattern")),
        "which trust?": ("~trust", ("trust",)),
        "no resume": ("~resume", ("'resume'", "delete")),
        "no fork": ("~fork_from", ("'fork_from'", "delete")),
        "another conf/": ("--config-path=nowhere loss=hinge", ("--config-path=nowhere", "--config-dir")),
        "a pickle": ("--experimental-rerun=x.pickle", ("--experimental-rerun", "resume=")),
        "several of one": ("loss=[hinge,lsgan]", ("loss takes one choice", "-m loss=hinge,lsgan")),
        "none of one": ("loss=[]", ("loss takes one choice",)),
        "none by name": ("regularizer=none", ("regularizer=none", "regularizer=[] for none")),
        "spaces": ("loss = hinge", ("loss: is no key=value", "no spaces")),
        "no key": ("outputs/pattern", ("outputs/pattern: is no key=value",)),
        # Keys
        "key of what is not chosen": ("regularizer.r1.weight=3", ("regularizer.r1.weight", "regularizer=[r1]")),
        "key of what there is not": ("regularizer.r3.weight=3", ("regularizer.r3.weight", "did you mean 'r2'")),
        "key of none": ("augmentation.std=1", ("augmentation.std", "nothing is chosen for augmentation")),
        "key": ("trainer.stepz=5", ("trainer.stepz", "did you mean 'steps'", "batch_size")),
        "key with +": ("+trainer.stepz=5", ("trainer.stepz", "did you mean 'steps'", "batch_size")),
        "key with ++": ("++trainer.stepz=5", ("trainer.stepz", "did you mean 'steps'")),
        "key at the top": ("sed=1", ("sed", "did you mean 'seed'")),
        "a misspelt parent": ("trainr.steps=5", ("trainr.steps", "did you mean 'trainer'")),
        "a misspelt parent further down": (
            "metric.patern.samples=5",
            ("metric.patern.samples", "did you mean 'pattern'"),
        ),
        "key of a component": ("optimizer.generator.lrr=1", ("optimizer.generator.lrr", "did you mean 'lr'")),
        "key of a component with +": ("+optimizer.generator.lrr=1", ("Adam has no such key", "did you mean 'lr'")),
        "key taken away": ("~trainer.steps", ("trainer.steps: is missing",)),
        "group taken away": ("~loss", ("loss: is missing",)),
        "injected fact": ("+architecture.generator.latent_dim=3", ("generator.latent_dim", "injected")),
        # Values
        "type": ("trainer.steps=many", ("trainer.steps", "'many'", "integer")),
        "text for a number": ("trainer.steps='5'", ("trainer.steps", "'5'", "integer")),
        "truth for a number": ("trainer.steps=true", ("trainer.steps", "True", "integer")),
        "fraction": ("trainer.steps=1.5", ("trainer.steps", "1.5", "integer")),
        "type in a component": ("optimizer.generator.lr=fast", ("optimizer.generator.lr", "'fast'", "number")),
        "type in a list": ("architecture.generator.hidden=[8,a]", ("generator.hidden.1", "'a'", "integer")),
        "range": ("trainer.steps=0", ("trainer.steps", "found 0", "greater than 0")),
        "negative": ("trainer.batch_size=-3", ("trainer.batch_size", "-3", "greater than 0")),
        "range in a component": ("architecture.generator.dropout=2", ("generator.dropout", "found 2", "less than 1")),
        "range that torch knows": (
            "optimizer.generator.lr=-1",
            ("optimizer.generator.lr=-1.0: Adam: Invalid",),
        ),
        "one of two": ("optimizer.generator.betas=[0.5,1.0]", ("optimizer.generator.betas=(0.5, 1.0): Adam: Invalid",)),
        "a key that YAML lacks": (
            "+optimizer.discriminator.eps=-2",
            ("optimizer.discriminator.eps=-2.0: Adam:",),
        ),
        "the name of the key is said": (
            "optimizer=rmsprop +optimizer.generator.alpha=-1 optimizer.generator.lr=1",
            ("optimizer.generator.alpha=-1.0: RMSprop: Invalid alpha",),
        ),
        "two keys of the value that is said": (
            "optimizer.generator.lr=-1 +optimizer.generator.weight_decay=-1",
            ("optimizer.generator: Adam refuses lr=-1.0, weight_decay=-1.0: Invalid learning rate",),
        ),
        "keys that do not fit together": (
            "optimizer=sgd ++optimizer.generator.nesterov=true",
            ("optimizer.generator: SGD refuses momentum=0.0, nesterov=True: Nesterov momentum requires",),
        ),
        "no number": ("optimizer.generator.lr=nan", ("optimizer.generator.lr: found nan", "finite")),
        "no end": ("regularizer=r1 regularizer.r1.weight=inf", ("regularizer.r1.weight: found inf", "finite")),
        "noise that is none": ("architecture.latent.scale=nan", ("architecture.latent.scale: found nan", "finite")),
        "too large a width": ("architecture.generator.hidden=[1e20]", ("generator.hidden=[1", "too large a number")),
        "too large a size": ("dataset=ring dataset.size=1e20", ("dataset.size=1", "Ring: too large a number")),
        "too large a batch": ("trainer.batch_size=1e20", ("trainer.batch_size: found 1", "less than")),
        "word": ("trainer.precision=fp16", ("trainer.precision", "'fp16'", "'fp32' or 'bf16'")),
        "no name": ("name=", ("name", "''", "at least 1 character")),
        # What Hydra reads
        "interpolation": ("trainer.steps=${nope}", ("nope", "trainer.steps")),
        "interpolation of the directory": ("hydra.run.dir=${nope}", ("nope",)),
        "unset variable": ("dataset.high=${oc.env:NOT_SET_HERE}", ("NOT_SET_HERE",)),
        "= in a value": ("dataset.high=a=b", ("dataset.high=a=b", "quotes")),
        "( in a value": ("dataset.high=a(b", ("dataset.high=a(b", "quotes")),
        "a key of Hydra's without a value": ("hydra.job.config.override_dirname.kv_sep=???", ("kv_sep", "Missing")),
        "a directory that is to come": ("++hydra.run.dir=???", ("hydra.run.dir", "Missing")),
        "a directory of a sweep that is to come": ("-m ++hydra.sweep.dir=??? seed=0,1", ("hydra.sweep.dir", "missing")),
        "no value": ("trainer.steps", ("trainer.steps",)),
        "a choice twice": ("regularizer=[r1,r2,r1]", ("regularizer=[r1,r2,r1]", "r1 twice")),
        "a part of what is not shown": ("--package=dataset", ("--package=dataset", "--cfg job")),
        "what is not shown, resolved": ("--resolve", ("--resolve", "--cfg", "--help")),
        "a completion of nothing": ("--shell-completion", ("--shell-completion", "install=bash")),
        "a completion for no shell": ("--shell-completion install=csh", ("install=bash", "zsh", "fish")),
        "sweep without -m": ("loss=hinge,lsgan", ("loss=hinge,lsgan", "--multirun")),
        "no such --config-dir": ("--config-dir=nowhere", ("--config-dir nowhere",)),
        "no such --config-name": ("--config-name=nope", ("'nope'",)),
        # Classes
        "class": ("loss._target_=gan_runner.losses.Hing", ("loss._target_", "Hing")),
        "no module": ("loss._target_=.Hinge", ("loss._target_", "'.Hinge'", "dotted path")),
        "two dots": ("loss._target_=..losses.Hinge", ("loss._target_", "dotted path")),
        "a dot at the end": ("loss._target_=gan_runner.losses.", ("loss._target_", "dotted path")),
        "module": ("loss._target_=my_losses.Mine", ("loss._target_", "my_losses")),
        "class of another kind": ("loss._target_=torch.nn.ReLU", ("loss._target_", "torch.nn.ReLU", "Loss")),
        "loss of no kind": (
            "loss._target_=gan_runner.losses.Loss",
            ("loss._target_", "losses.Loss", "is the base class"),
        ),
        "network of no kind": (
            "architecture.generator._target_=torch.nn.Module",
            ("architecture.generator._target_", "torch.nn.Module", "is the base class"),
        ),
        "function": ("loss._target_=os.system", ("loss._target_", "os.system", "Loss")),
        # Data and networks
        "labels": ("architecture=mlp_conditional", ("architecture.conditional", "no labels")),
        "shape": ("architecture=dcgan", ("architecture", "images", "(6,)")),
        "no data": ("dataset=mnist dataset.root=nowhere", ("dataset.root", "'nowhere'", "dataset.download=true")),
        "nowhere": ("dataset=images dataset.root=", ("dataset.root", "at least 1 character")),
        "no images": ("dataset=images dataset.root=nowhere", ("dataset.root", "'nowhere'", ".zip")),
        "no faces": ("dataset=celeba dataset.root=nowhere", ("dataset.root", "'nowhere'", "img_align_celeba.zip")),
        # Machines
        "share": (
            "device=ddp device.processes=2 trainer.batch_size=3",
            ("trainer.batch_size=3", "2 processes", "multiple"),
        ),
        "cuda": ("device=cuda", ("device=cuda", "no CUDA GPU", "device=cpu")),
        "device_ids": ("device=data_parallel device.device_ids=[0]", ("device.device_ids=[0]", "no CUDA GPU")),
        "processes": ("device=cpu device.processes=2", ("device.processes=2", "device=ddp")),
        "memory": ("trainer.batch_size=1e13", ("does not fit into memory", "allocate")),
        "a grid that is no picture": ("trainer.sample_columns=1e13", ("trainer.sample_columns", "256")),
        "a doctor who never ends": ("doctor.samples=1e12", ("doctor.samples", "10000")),
        "one of a few": ("optimizer.schedule=cos", ("optimizer.schedule", "'cos'", "did you mean 'cosine'?")),
        "one of a few for a network": (
            "architecture.generator.activation=rellu",
            ("architecture.generator.activation", "did you mean 'relu'?"),
        ),
        # Rules between keys
        "warmup": ("trainer.steps=5 optimizer.warmup_steps=5", ("optimizer.warmup_steps=5", "trainer.steps=5")),
        "paired": (
            "loss=relativistic trainer.discriminator_update=separate",
            ("trainer.discriminator_update", "joint"),
        ),
        "resume and fork": ("resume=x fork_from=y", ("x",)),
        # Directories
        "a key that the doctor has not": ("+doctor.sur=1", ("doctor.sur: no such key", "did you mean 'sure'?")),
        "no dataset": ("dataset=null", ("dataset=null", "allowed", "mnist")),
        "generator never": ("trainer.generator_start=4000", ("trainer.generator_start=4000", "trainer.steps=4000")),
        "resume": ("resume=nowhere", ("resume=nowhere", "no run")),
        "resume nothing": ("resume=", ("resume: is empty",)),
        "fork nothing": ("fork_from=", ("fork_from: is empty",)),
        "resume a number": ("resume=5", ("resume=5", "no run")),
        "fork": ("fork_from=nowhere", ("fork_from=nowhere", "no run")),
        "unwritable": ("hydra.run.dir=/proc/run", ("/proc/run", "cannot make")),
        "below a file": ("hydra.run.dir=/dev/null/run", ("/dev/null/run", "cannot make")),
    }.values(),
)
def test_mistake(refused, words, said):
    line = refused(*words.split(" "))
    for part in said:
        assert part in line


def test_a_value_that_every_run_needs_is_asked_for(typed):
    ended = typed("rnu=outputs/pattern", command="sample")
    assert (ended.status, ended.err.count("\n")) == (2, 1)
    assert "error: rnu: no such key; did you mean 'run'?" in ended.err
    assert typed(command="sample").err == "error: run: is missing; type run=…\n"


def test_networks_that_take_no_labels_are_named(refused):
    digits = f"dataset.root={REPOSITORY / 'tests/data/mnist'}"
    line = refused("dataset=mnist", "architecture=peer_gan", "architecture.conditional=true", digits, *TEN_STEPS)
    assert "architecture.generator: " in line
    assert "does it need architecture.conditional=false?" in line


def test_outputs_below_a_file(refused):
    Path("outputs").mkdir()
    Path("outputs/pattern").write_text("in the way")
    assert "outputs/pattern" in refused(*TEN_STEPS)


def test_malformed_yaml_in_a_group_of_the_user(refused):
    Path("mine/loss").mkdir(parents=True)
    Path("mine/loss/mine.yaml").write_text("_target_: [gan_runner.losses.Hinge\nweight: 1\n")
    assert "mine.yaml" in refused("--config-dir=mine", "loss=mine")


@pytest.mark.parametrize(
    ("module", "said"),
    [
        ("import sys\nsys.exit(3)\n", "importing mine called sys.exit(3)"),
        ("raise SystemExit\n", "importing mine called sys.exit(None)"),
        (
            "from gan_runner.losses import Hinge\nclass Mine(Hinge):\n    def __init__(self): raise SystemExit(0)\n",
            "Mine called sys.exit(0)",
        ),
    ],
)
def test_a_class_of_the_user_that_leaves(refused, monkeypatch, module, said):
    """Its status would be taken for the run's, and nothing would be said."""
    monkeypatch.syspath_prepend(str(Path.cwd()))
    Path("mine.py").write_text(module)
    line = refused("loss._target_=mine.Mine")
    assert line.startswith("error: loss")
    assert said in line


def test_truncated_idx(refused):
    Path("data").mkdir()
    images = idx(np.zeros((20, 28, 28), np.uint8))
    Path("data/train-images-idx3-ubyte").write_bytes(images[:-100])
    Path("data/train-labels-idx1-ubyte").write_bytes(idx(np.zeros(20, np.uint8)))
    words = ("dataset=mnist", "dataset.root=data", "architecture=mlp_layernorm")
    assert "train-images-idx3-ubyte" in refused(*words)
    Path("data/train-images-idx3-ubyte").unlink()
    Path("data/train-images-idx3-ubyte.gz").write_bytes(gzip.compress(images)[:-10])
    assert "train-images-idx3-ubyte.gz" in refused(*words)


def test_unreadable_zip(refused):
    Path("faces.zip").write_bytes(b"PK\x03\x04 and no more")
    assert "faces.zip" in refused("dataset=images", "dataset.root=faces.zip", "architecture=dcgan")


def test_size_that_an_architecture_cannot_make(refused):
    Path("data").mkdir()
    for i in range(4):
        Image.new("RGB", (50, 50), (60 * i, 0, 0)).save(f"data/{i}.png")
    words = ("dataset=images", "dataset.root=data", "dataset.size=50", "architecture=dcgan", "trainer.batch_size=4")
    line = refused(*words)
    assert "50×50" in line
    assert "multiples of 4" in line


def test_directory_that_is_no_run(refused):
    Path("thesis").mkdir()
    Path("thesis/chapter1.tex").write_text("the only copy")
    assert "thesis" in refused("hydra.run.dir=thesis", *TEN_STEPS)


def test_changed_configuration(typed, refused):
    assert typed("hydra.run.dir=run", *TEN_STEPS).status == 0
    for words in (["resume=run", "trainer.steps=20"], ["hydra.run.dir=run", *TINY, "trainer.steps=20"]):
        line = refused(*words, "seed=1", "optimizer.generator.lr=0.5", "device.hold_dataset=true")
        assert "(optimizer.generator.lr, seed)" in line
        assert "fork_from=run" in line
    assert "loss._target_" in refused("resume=run", "loss=hinge")
    assert "trainer.stepz" in refused("resume=run", "trainer.stepz=20")
    assert "did you mean 'steps'" in refused("resume=run", "trainer.stepz=20")
    assert "nmae: the run has no such key; did you mean 'name'?" in refused("resume=run", "+nmae=3")
    assert "trainer.steps=5" in refused("resume=run", "trainer.steps=5")
    for words in (["resume=run"], ["hydra.run.dir=run", *TINY]):
        assert "trainer.steps: found 'abc' (str)" in refused(*words, "trainer.steps=abc")


def test_directory_in_use(typed, refused):
    assert typed("hydra.run.dir=run", *TEN_STEPS).status == 0
    with open("run/.lock", "r+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        line = refused("resume=run", "trainer.steps=20")
        assert "in use" in line
        assert f"process {os.getpid()}" in line
        assert "in use" in refused("hydra.run.dir=run", *TINY, "trainer.steps=20")
    assert typed("resume=run", "trainer.steps=20").status == 0


def test_the_last_line_is_the_run_directory(typed):
    ended = typed(*TEN_STEPS, "name=my_run-2.0")
    assert ended.status == 0
    directory = Path(ended.out.splitlines()[-1])
    assert directory.parent == Path("outputs/my_run-2.0")
    assert (directory / "config.yaml").is_file()
    assert not list(Path().rglob(".hydra"))
    assert not list(Path().rglob("*.log"))


def test_a_run_without_a_name_is_called_after_its_dataset(typed):
    for words, name in (
        (TINY, "pattern"),
        (("dataset=ring", *TINY), "ring"),
        (("experiment=pattern_bce", *TINY), "pattern_bce"),
    ):
        assert typed(*words, "trainer.steps=1").out.splitlines()[-1].startswith(f"outputs/{name}/")
    assert "name: grid\n" in typed("dataset=grid", "--cfg", "job", "--resolve").out


@pytest.mark.parametrize(
    "words", [("--cfg", "job", "loss=hinge"), ("loss=hinge", "--cfg", "job"), ("-c", "job", "loss=hinge")]
)
def test_an_option_may_stand_anywhere(typed, words):
    shown = [typed(*words[:n], "seed=7", *words[n:]).out for n in (0, len(words))]
    between = typed("seed=7", *words, "trainer.steps=5")
    assert shown[0] == shown[1]
    assert between.status == 0
    assert {"seed: 7", "  steps: 5", "  _target_: gan_runner.losses.Hinge"} <= {*between.out.splitlines()}
    assert "\nsteps: 5\n" in typed("seed=7", "--package", "trainer", *words, "trainer.steps=5").out


def test_help_of_hydra_with_overrides(typed):
    assert typed("loss=hinge", "--hydra-help").out == typed("--hydra-help").out != ""


def test_a_reader_who_has_seen_enough_ends_no_help_in_a_traceback(environment):
    help_ = subprocess.Popen(
        [sys.executable, "-m", "gan_runner.train", "--help"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert help_.stdout is not None
    help_.stdout.close()
    assert help_.communicate()[1] == b""
    assert help_.returncode == 128 + signal.SIGPIPE


def test_runs_of_the_same_second_get_a_directory_each(typed):
    when = "hydra.run.dir=outputs/${name}/${now:%Y}"
    assert typed(*TEN_STEPS, when, "name=named").status == 0
    directories = {typed(*TEN_STEPS).out.splitlines()[-1] for _ in range(3)}
    assert len(directories) == 3


def test_a_process_of_its_own_is_refused_alike(gan_train, tmp_path):
    ended = gan_train("trainer.stepz=5")
    assert ended.returncode == 2
    assert ended.stdout == ""
    assert ended.stderr.startswith("error: trainer.stepz: no such key; did you mean 'steps'?")
    assert ended.stderr.count("\n") == 1
    assert tree(tmp_path) == {}


def test_hydra_s_own_refusals_are_statuses_of_ours(gan_train, tmp_path):
    ended = gan_train("--cfg", "job", "loss=hing")
    assert ended.returncode == 2
    assert "hing" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert tree(tmp_path) == {}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("loss=hinge,hing",), "error: loss=hing: no such loss; did you mean 'hinge'?"),
        (("seed=0,1", "dataset=mnst"), "error: dataset=mnst: no such dataset; did you mean 'mnist'?"),
        (("seed=0,1", "trainer.stpes=5"), "error: trainer.stpes: no such key; did you mean 'steps'?"),
        (("trainer.steps=5,abc",), "error: trainer.steps: found 'abc'"),
        (("optimizer.schedule=linear,cosin",), "error: optimizer.schedule: found 'cosin'"),
        (("loss=[hinge,lsgan],minimax",), "error: loss=[hinge,lsgan]: loss takes one choice"),
        (("loss=glob(q*)",), "error: loss=glob(q*): stands for nothing"),
        (("trainer.stpes=5,6",), "error: trainer.stpes: no such key; did you mean 'steps'?"),
        (("seed=0,1", "hydra.launcher.jbos=2"), "error: hydra.launcher.jbos: no such key; did you mean 'jobs'?"),
        (("seed=0,1", "--cfg", "job"), "error: -m: --cfg and --info show one configuration; leave -m out"),
    ],
)
def test_a_mistake_in_a_sweep_is_told_before_anything_is_made(gan_train, tmp_path, words, said):
    ended = gan_train("-m", *words)
    assert ended.returncode == 2
    assert ended.stderr.startswith(said)
    assert ended.stderr.count("\n") == 1
    assert tree(tmp_path) == {}


def test_a_sweep_of_which_every_job_is_refused_is_refused(gan_train, tmp_path):
    ended = gan_train("-m", "seed=0,1", "trainer.stop_on=[colapse]", "hydra.sweep.dir=sweep")
    assert ended.returncode == 2
    assert ended.stderr.count("did you mean 'collapse'?") == 2
    assert tree(tmp_path) == {}


@pytest.mark.parametrize("words", [("-m", "architecture=mlp_conditional,mlp_points"), ("hparams_search=mine",)])
def test_sweep_goes_on_after_a_refused_job(gan_train, tmp_path, words):
    (tmp_path / "mine/hparams_search").mkdir(parents=True)
    (tmp_path / "mine/hparams_search/mine.yaml").write_text(
        "# @package _global_\n"
        'hydra: {mode: MULTIRUN, sweeper: {params: {architecture: "mlp_conditional,mlp_points"}}}\n'
    )
    ended = gan_train("--config-dir=mine", *words, *TEN_STEPS, "hydra.sweep.dir=sweep")
    assert ended.returncode == 1
    assert "refused after 0 s: architecture.conditional=true" in ended.stderr
    assert "Traceback" not in ended.stderr
    (directory,) = (path for path in (tmp_path / "sweep").iterdir() if path.is_dir())
    assert "mlp_points" in directory.name
    assert (directory / "generator.safetensors").is_file()


def test_help_and_the_rest_of_hydra_need_no_torch(tmp_path, environment):
    script = "import sys; sys.modules['torch'] = None; from gan_runner.train import main; main()"  # an import now fails

    def hydra(*words: str) -> str:
        command = [sys.executable, "-c", script, *words]
        done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=True)
        return done.stdout

    text = hydra("--help")
    for group in ("dataset", "architecture", "loss", "regularizer", "optimizer", "trainer", "device", "experiment"):
        choices = ", ".join(sorted(path.stem for path in (REPOSITORY / "conf" / group).glob("*.yaml")))
        assert f"{group}: {choices}" in text
    assert "gan-train -m loss=nonsaturating,lsgan,hinge seed=0,1,2" in text
    assert "75 interrupted" in text

    composed = hydra("--cfg", "job", "--resolve", "loss=hinge", "seed=7")
    assert "_target_: gan_runner.losses.Hinge" in composed
    assert "seed: 7" in composed
    assert "${" not in composed
    assert "mlp_points" in hydra("--info", "defaults-tree")
    assert tree(tmp_path) == {}


def test_overrides_in_hydra_s_grammar():
    parsed = composition.parse(["dataset.root='a=b'", "regularizer=[r1,r2]"])
    assert [(o.key_or_group, o.value()) for o in parsed] == [("dataset.root", "a=b"), ("regularizer", ["r1", "r2"])]
    with pytest.raises(UserError, match="quotes"):
        composition.parse(["seed=1", "trainer.objective=a=b"])


def test_a_shell_completes_choices(gan_train):
    line = "gan-train loss=h"
    at = {"COMP_LINE": line, "COMP_POINT": str(len(line))}
    ended = gan_train("--shell-completion", "query=bash", env=at)
    assert (ended.returncode, ended.stdout.split()) == (0, ["loss=hinge"])
    ended = gan_train("--shell-completion", "install=bash")
    assert ended.returncode == 0
    assert "hydra_bash_completion" in ended.stdout
