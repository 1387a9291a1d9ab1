"""One mistake each, planted into a command line that is right. Each says what the message has to name."""

import re
from collections.abc import Callable
from random import Random

from pydantic import BaseModel

from gan_runner.commands.classifier import ClassifierSettings
from gan_runner.commands.evaluate import EvaluateSettings
from gan_runner.commands.export import ExportSettings
from gan_runner.commands.report import ReportSettings
from gan_runner.commands.sample import SampleSettings
from gan_runner.config.schema import Config
from tests.conftest import REPOSITORY
from tests.fuzz import values
from tests.fuzz.drafts import Draft

SCHEMA: dict[str, type[BaseModel]] = {
    "train": Config,
    "sample": SampleSettings,
    "export": ExportSettings,
    "evaluate": EvaluateSettings,
    "classifier": ClassifierSettings,
    "report": ReportSettings,
}
KEYS = {command: list(values.schema_keys(model)) for command, model in SCHEMA.items()}
GROUPS = {
    folder.name: sorted(file.stem for file in folder.glob("*.yaml"))
    for folder in sorted((REPOSITORY / "conf").iterdir())
    if folder.is_dir() and folder.name != "hydra"
}
OF_TRAIN = ("dataset", "architecture", "loss", "regularizer", "optimizer", "trainer", "doctor", "device", "experiment")
GROUPS_OF = {
    "train": OF_TRAIN,
    "sample": ("device",),
    "export": (),
    "evaluate": ("device", "metric"),
    "classifier": ("dataset", "device"),
    "report": (),
}
Names = tuple[str, ...]
Planted = tuple[str, Names] | None  # what it is, and what its message has to name; None: it does not fit this line
Plant = Callable[[Draft, Random], Planted]


def misspelt(word: str, rng: Random) -> str:
    """A word with one slip of the fingers."""
    at = rng.randrange(len(word))
    letter = rng.choice("abcdefghijklmnopqrstuvwxyz_")
    slips = [word[:at] + word[at + 1 :], word[:at] + letter + word[at:], word[:at] + letter + word[at + 1 :]]
    slips += [word[:at] + word[at : at + 2][::-1] + word[at + 2 :], word.upper(), word + word[-1]]
    return next((slip for slip in rng.sample(slips, len(slips)) if slip and slip != word), word + "x")


def key(draft: Draft, rng: Random) -> Planted:
    """A key that does not exist."""
    known = {name for name, _, _ in KEYS[draft.command]}
    whole = rng.choice(sorted(known))
    *above, name = whole.split(".")
    wrong = ".".join([*above, misspelt(name, rng)])
    if wrong in known or any(other.startswith(f"{wrong}.") for other in known):
        return None
    if wrong.startswith("doctor.") and draft.value("doctor") == "none":
        return None
    draft.words.append(f"{rng.choice(['', '', '+', '++'])}{wrong}={rng.choice(['1', 'x', 'null', '[]', 'true'])}")
    return f"no such key: {draft.words[-1]}", (wrong.split(".")[-1],)


def missing_key(draft: Draft, rng: Random) -> Planted:
    """A key that is needed, deleted."""
    if draft.has("resume"):  # there it stands for the run's own
        return None
    needed = {"train": ["trainer.steps", "trainer", "loss", "seed", "device", "optimizer.schedule", "trust", "dataset"]}
    needed |= {"sample": ["device"], "evaluate": ["device"], "export": ["format"]}
    deleted = rng.choice(needed.get(draft.command, ["runs"]))
    if any(word.partition("=")[0].startswith(deleted) for word in draft.words):
        return None
    draft.words.append(f"~{deleted}")
    return f"deleted: {deleted}", (deleted.split(".")[-1],)


def choice(draft: Draft, rng: Random) -> Planted:
    """A choice that does not exist."""
    groups = GROUPS_OF[draft.command]
    if not groups or draft.has("resume"):
        return None
    group = rng.choice(groups)
    wrong = rng.choice(
        [misspelt(rng.choice(GROUPS[group]), rng), "1", "''", "a/b", "../x", "[nope]", "{a: 1}", "é", "."]
    )
    if wrong in GROUPS[group]:
        return None
    draft.put(group, wrong)
    return f"no such choice: {group}={wrong}", (group,)


def group(draft: Draft, rng: Random) -> Planted:
    """A group that does not exist."""
    wrong = misspelt(rng.choice(OF_TRAIN), rng)
    if wrong in (*OF_TRAIN, "metric", "observer", "name", "runs", "run"):
        return None
    draft.words.append(f"{rng.choice(['', '+', '++'])}{wrong}={rng.choice(['hinge', '1', 'x.y'])}")
    return f"no such group: {draft.words[-1]}", (wrong,)


def value(draft: Draft, rng: Random) -> Planted:
    """A value of the wrong type, or out of range."""
    name, kind, limits = rng.choice(KEYS[draft.command])
    wrong = values.wrong(kind, limits, rng)
    if wrong is None or name.split(".")[-1] in values.TEXT or (name == "device.kind" and draft.has("resume")):
        return None
    if name.startswith("doctor.") and draft.value("doctor") == "none":
        return None
    draft.put(name, wrong)
    return f"wrong value: {name}={wrong}", (name.split(".")[-1],)


COMPONENTS = {
    "architecture.generator.hidden": ["[0]", "[-1]", "[1.5]", "[a]", "3", "null", "[[4]]", "'[4]'", "[true]", "[nan]"],
    "architecture.generator.activation": ["sine", "1", "null", "[]", "''"],
    "architecture.discriminator.dropout": ["1", "-0.1", "x", "null", "true", "nan"],
    "architecture.discriminator.output": ["[sigmoidal]", "sigmoid", "[1]", "{a: b}"],
    "architecture.discriminator.negative_slope": ["-1", "x", "null", "nan"],
    "optimizer.generator.lr": ["-1", "fast", "null", "true", "[1]", "nan", "-inf", "'1e-3'"],
    "optimizer.discriminator.lr": ["-0.1", "x", "{a: 1}"],
    "loss._target_": [
        "nowhere.Loss", "gan_runner.losses.Hing", "os.system", "torch.load", "torch.nn.ReLU", "gan_runner", "''", "1",
        "null", "[a]", "gan_runner.losses.", ".Hinge", "gan_runner..losses.Hinge", "builtins.eval", "a b.c",
        "gan_runner.losses.Hinge.real", "ümlaut.Loss", "gan_runner.losses.Loss",
    ],
    "optimizer.generator._target_": ["torch.optim.Adamm", "torch.optim.Optimizer", "torch.nn.Linear", "math.sqrt"],
    "architecture.generator._target_": ["torch.nn.Modul", "gan_runner.networks", "torch.nn.functional.relu", "int"],
    "dataset._target_": ["gan_runner.datasets.Dataset", "gan_runner.losses.Hinge", "str", "gan_runner.datasets.base"],
}  # fmt: skip
DATASETS = {
    "pattern": {
        "length": ["0", "-1", "1.5", "x", "null"],
        "high": ["[0,1]", "[1]", "x", "[1,0.8]", "[a,b]", "null", "[nan,1]", "[0.8,inf]"],
        "low": ["[0.5,0.2]", "0.2", "[0.9,1]", "[]"],
    },
    "gaussian_1d": {"std": ["0", "-1", "nan", "inf", "x", "null"], "mean": ["nan", "inf", "x", "[]"]},
    "ring": {"modes": ["0", "-1", "x"], "std": ["0", "-1", "nan"], "size": ["0", "-5", "x"], "data_seed": ["-1", "a"]},
    "grid": {"side": ["0", "-1", "1.5"], "spacing": ["x", "nan"], "size": ["0", "null"]},
    "images": {
        "size": ["0", "-1", "x", "[8]", "[8,8,8]", "1.5", "[0,8]", "true"],
        "crop": ["1", "[1]", "[8,4,0,4]", "[0,0,0,0]", "[-1,4,0,4]", "[0,4,0,x]", "[0,999,0,999]"],
        "channels": ["0", "2", "4", "x", "null", "'3'"],
        "value_range": ["[1,0]", "[0,0]", "1", "[0,1,2]", "[a,b]", "null", "[nan,1]", "[0,inf]"],
    },
    "mnist": {"split": ["valid", "1", "null", "all"], "variant": ["kmnist", "null"], "download": ["maybe", "1"]},
    "celeba": {"split": ["none", "1"], "attribute": ["Smilling", "1", "[a]", "''"], "crop": ["[0,1]", "x"]},
}  # fmt: skip


def component(draft: Draft, rng: Random) -> Planted:
    """A key of a class with a wrong value, or a class that is none."""
    if draft.command != "train" or draft.has("resume") or draft.has("fork_from"):
        return None
    name = rng.choice(sorted(COMPONENTS))
    if name.endswith(("hidden", "activation", "dropout", "output", "slope")):
        draft.set(architecture="mlp_tanh")
        draft.words[:] = [word for word in draft.words if ".channels=" not in word]
    wrong = rng.choice(COMPONENTS[name])
    draft.put(name, wrong)
    return f"wrong value: {name}={wrong}", (
        name.rpartition(".")[0] if name.endswith("_target_") else name.split(".")[-1],
    )


def data_key(draft: Draft, rng: Random) -> Planted:
    """A key of a dataset with a wrong value."""
    chosen = draft.value("dataset") or "pattern"
    if draft.command not in ("train", "classifier") or draft.has("resume") or chosen not in DATASETS:
        return None
    if draft.command == "train" and draft.has("fork_from"):
        return None
    name = rng.choice(sorted(DATASETS[chosen]))
    wrong = rng.choice(DATASETS[chosen][name])
    draft.put(f"dataset.{name}", wrong)
    return f"wrong value: dataset.{name}={wrong}", (name,)


CONFLICTS = (
    ("trainer.discriminator_update=separate", "loss=relativistic"),
    ("trainer.discriminator_update=separate", "trainer.discriminator_forward=concatenated"),
    ("device=cpu", "device.processes=2"),
    ("device=cpu", "device.sync_batchnorm=true"),
    ("device=cuda",),
    ("device=mps",),
    ("device=cpu", "device.device_ids=[0]"),
    ("device=ddp", "device.processes=2", "trainer.batch_size=3"),
    ("optimizer.warmup_steps=9",),
    ("trainer.generator_start=9",),
    ("doctor=none", "trainer.stop_on=[collapse]"),
    ("trainer.stop_on=[colapse]",),
    ("trainer.objective=metric/nothing",),
    ("trainer.compile=true", "device=data_parallel"),
    ("dataset=pattern", "metric=[fid]"),
    ("dataset=pattern", "metric=[neighbours]"),
    ("dataset=pattern", "architecture=mlp_conditional"),
    ("dataset=pattern", "architecture=dcgan"),
    ("dataset=ring", "architecture=cnn_mnist"),
    ("evaluation.real_samples=0",),
    ("regularizer=[r1,r1]",),
    ("regularizer=r3",),
    ("metric=[pattern,nothing]",),
    ("+architecture.generator.latent_dim=3",),
    ("+architecture.generator._args_=[1]",),
    ("observer=mine",),
    ("resume=run", "fork_from=run"),
    ("resume=run", "loss=hinge"),
    ("resume=run", "seed=5"),
    ("resume=run", "trainer.steps=3"),
    ("resume=run", "trainer.batch_size=2"),
    ("hydra.run.dir=run", "seed=5"),
    ("hydra.run.dir=full",),
    ("-m", "resume=run", "seed=1,2"),
    ("-m", "trainer.steps=0,-1", "hydra.launcher.jobs=x"),
    ("-m", "loss=hinge,hnige"),
    ("-m", "seed=interval(0,1)"),
    ("-m", "hydra.launcher.retries=-1", "seed=0,1"),
    ("-m", "hydra/launcher=nope", "seed=0,1"),
    ("-m", "hydra/sweeper=nope", "seed=0,1"),
    ("-m", "hparams_search=nope"),
    ("-m", "seed=glob(*)"),
    ("-m", "seed=range(0)"),
)


def conflict(draft: Draft, rng: Random) -> Planted:
    """Overrides that do not go together."""
    if draft.command != "train":
        return None
    chosen = rng.choice(CONFLICTS)
    draft.words[:] = [*chosen]
    draft.needs |= {name for name in ("run", "full") if any(word.endswith(f"={name}") for word in chosen)}
    if not any(word.startswith(("resume", "hydra.run.dir=run", "trainer.batch_size")) for word in chosen):
        draft.words.append("trainer.batch_size=4")
    if not any(word.startswith(("resume", "hydra.run.dir=run", "trainer.steps")) for word in chosen):
        draft.words.append("trainer.steps=2")
    names = re.findall(r"[a-z_]{3,}", " ".join(word.replace("=true", "") for word in chosen))
    return f"do not go together: {' '.join(chosen)}", tuple(names)


# With a sweep's words, but without -m; and what Hydra's grammar does not know.
GRAMMAR = (
    "loss=hinge,lsgan", "seed=0,1", "seed=choice(0,1)", "seed=range(3)", "seed=interval(0,1)", "loss=glob(*)",
    "trainer.steps=[1", "seed={1", "seed='1", 'seed="1', "seed=(1)", "trainer", "=3", "trainer.steps==3", "seed=1)",
    "+", "~", "++", "~=", "seed=[1,2", "trainer.steps=,", "seed=sort(", "seed=int(x)", "seed=\\", "seed=a:b:c}",
    "trainer.steps=${nope}", "trainer.steps=${oc.env:NOT_SET_HERE}", "trainer.steps=${trainer}", "trainer.steps=${",
    "trainer.steps=${trainer.steps}", "trainer.steps=${oc.decode:x y}", "trainer.steps=${nope:1}", "seed=???",
    "trainer.steps=${loss._target_}", "trainer.steps=1\n2", "trainer.steps=\t", "seed=\x01", "seed=\x7f", "s\x00eed=1",
    "seed=\udcff", "\udcff=1", "trainer.\udcfe=2", "trainer.steps=\u202e2", "seed=\u0661x", "seed=\ufeff1x", "...=1",
    "trainer..steps=1", ".trainer=1", "trainer.=1", "trainer.steps.x=1", "seed.x=1", "trainer=null", "loss=null",
    "~loss=hinge", "~trainer.stepz", "~nope", "+seed=1=2", "device@x=cpu", "dataset@=ring", "trainer.steps[0]=1",
    "hydra.nope=1", "hydra.job.nope=1", "hydra/nope=1", "hydra.run=1", "hydra=null",
    "hydra.mode=nope", "@=1", "a@b@c=1", "seed=$(x)", "+experiment", "-x", "--nope", "--cfg=nope", "--info=nope",
    "--config-name=nope", "--config-dir=nowhere", "--config-path=nowhere", "--package=nope", "--multirunn",
)  # fmt: skip


def grammar(draft: Draft, rng: Random) -> Planted:
    """A word that is none."""
    word = rng.choice(GRAMMAR)
    of_training = word.startswith(("loss", "trainer", "~loss", "~trainer", "dataset", "device", "+experiment"))
    if of_training and (draft.command != "train" or draft.has("resume")):
        return None
    name = word.partition("=")[0]
    if word.startswith("seed") and draft.command in ("report", "export"):
        return None
    draft.words[:] = [other for other in draft.words if other.partition("=")[0] != name]
    draft.words.insert(rng.randint(0, len(draft.words)), word.replace("\x00", "\ufffd"))  # no program can be given NUL
    return f"not understood: {word!r}", tuple(re.findall(r"[a-z_]{3,}", name))


# In memory that no machine has.
HUGE = (
    ("train", "trainer.batch_size=1e13"),
    ("train", "dataset.length=1e12"),
    ("train", "architecture.generator.hidden=[1000000,1000000]"),
    ("train", "architecture.generator.hidden=[10000000000]"),
    ("train", "architecture.latent.dim=1e12"),
    ("train", "architecture.generator.hidden=[99999999999999999999]"),
    ("train", "architecture.latent.dim=99999999999999999999"),
    ("train", "trainer.batch_size=99999999999999999999"),
    ("train", "dataset.length=1e25"),
    ("sample", "count=1e18"),
    ("sample", "count=1e30"),
    ("sample", "columns=1e30"),
    ("classifier", "width=1e9"),
    ("classifier", "batch_size=1e12"),
    ("classifier", "dataset.size=1e7"),
    ("train", "trainer.sample_rows=1e6"),
    ("train", "doctor.samples=1e7"),
)


def huge(draft: Draft, rng: Random) -> Planted:
    """A size that does not fit into memory, or a number that fits into no integer."""
    command, word = rng.choice(HUGE)
    if command != draft.command or draft.has("resume") or draft.has("fork_from"):
        return None
    if command == "train":
        draft.words[:] = ["trainer.steps=2", "trainer.batch_size=4", "device=cpu"]
    draft.put(*word.split("=", 1))
    return f"too large: {word}", ()
