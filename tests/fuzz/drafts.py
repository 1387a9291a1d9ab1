"""Command lines that are right: random combinations of choices and values, with tiny steps."""

from dataclasses import dataclass, field
from random import Random

from tests.fuzz import values

TRAIN_KEYS = {key: (kind, limits) for key, kind, limits in values.schema_keys()}
DOCTOR = [key for key in TRAIN_KEYS if key.startswith("doctor.")]
NETWORKS = ("architecture.generator", "architecture.discriminator")


@dataclass
class Draft:
    """A command line on the way."""

    command: str
    words: list[str] = field(default_factory=list)  # overrides and options
    needs: set[str] = field(default_factory=set)
    may_write: list[str] = field(default_factory=list)
    prints_only: bool = False

    def set(self, **overrides: object) -> None:
        """Overrides keys; `a__b=1` is a.b=1. A key that is there already gets the new value."""
        for name, value in overrides.items():
            self.put(name.replace("__", "."), value)

    def put(self, key: str, value: object) -> None:
        word = f"{key}={value}"
        at = next((i for i, other in enumerate(self.words) if other.partition("=")[0] == key), None)
        if at is None:
            self.words.append(word)
        else:
            self.words[at] = word

    def has(self, key: str) -> bool:
        return any(word.partition("=")[0] == key for word in self.words)

    def value(self, key: str) -> str | None:
        return next((w.partition("=")[2] for w in self.words if w.partition("=")[0] == key), None)


def training(rng: Random) -> Draft:
    """A training that is to be completed."""
    draft = Draft("train")
    draft.set(trainer__steps=values.typed(rng.randint(1, 3), int, rng), trainer__batch_size=rng.choice([2, 4]))
    draft.set(device=rng.choice(["cpu", "auto", "data_parallel"]))
    architecture = _dataset(draft, rng)
    _architecture(draft, architecture, rng)
    if rng.random() < 0.7:
        _loss(draft, rng)
    if rng.random() < 0.6:
        _optimizer(draft, rng)
    _trainer(draft, rng)
    if rng.random() < 0.4:
        draft.set(doctor="none")
    else:
        for key in rng.sample(DOCTOR, rng.choice([0, 0, 1, 3])):
            draft.put(key, values.right(*TRAIN_KEYS[key], rng))
        draft.set(doctor__samples=16)
    if rng.random() < 0.4:
        draft.set(seed=rng.choice(["0", "7", "123456"]))
    if rng.random() < 0.3:
        draft.set(name=rng.choice(["x", "lr-0.1", "a_b", "run.7", "A"]))
    elif rng.random() < 0.3:
        place = rng.choice(["here", "a/b/c", "run_7", "'with space'", "./x", "x/", "run-${seed}"])
        draft.put("hydra.run.dir", place)
        draft.may_write.append(place.strip("'./").split("/")[0].replace("${seed}", draft.value("seed") or "0"))
    rng.shuffle(draft.words)
    return draft


def _dataset(draft: Draft, rng: Random) -> str:
    """Chooses the data, with few samples for its metrics; returns which kind of networks fits."""
    name = rng.choice(
        ["pattern", "pattern", "gaussian_1d", "ring", "grid", "images", "images", "mnist", "stacked_mnist"]
    )
    name = rng.choice([name] * 9 + ["celeba", "fashion_mnist"])
    draft.set(dataset=name)
    if name in ("pattern", "gaussian_1d"):
        metric = {"pattern": "pattern", "gaussian_1d": "jsd"}[name]
        draft.put(f"metric.{metric}.samples", rng.choice([10, 50]))
        return "points"
    if name in ("ring", "grid"):
        draft.set(dataset__size=rng.choice([8, 64]), metric__modes__samples=20)
        return "points"
    if name in ("mnist", "fashion_mnist", "stacked_mnist"):
        draft.needs.add("digits")
        draft.set(dataset__root="digits", metric="[]")
        if name == "stacked_mnist":
            draft.set(dataset__size=32)
        elif rng.random() < 0.5:
            draft.set(metric="[neighbours]", metric__neighbours__samples=8)
        return "digits" if name == "stacked_mnist" else "labelled digits"
    metric = rng.choice(["[]", "[]", "[neighbours]"])
    draft.set(metric=metric)
    if metric != "[]":
        draft.set(metric__neighbours__samples=6)
    if name == "celeba":
        draft.needs.add("faces")
        attribute = rng.choice(["null", "Smiling"])
        draft.set(dataset__root="faces", dataset__size=16, dataset__attribute=attribute)
        return "images" if attribute == "null" else "labelled images"
    root = rng.choice(["photos", "photos", "flat", "photos.zip"])
    draft.needs.add(root)
    draft.set(dataset__root=root, dataset__size=rng.choice(["16", "[16,16]", "8" if metric == "[]" else "16"]))
    draft.set(dataset__channels=rng.choice([1, 3]))
    if rng.random() < 0.3:
        draft.put("dataset.value_range", rng.choice(["[-1,1]", "[-1.0,1.0]", "[0,1]"]))
    return "images" if root == "flat" else "labelled images"


def _architecture(draft: Draft, fits: str, rng: Random) -> None:
    mlp = ["mlp_points", "mlp_tanh", "mlp_layernorm", "mlp_batchnorm", "mlp_dropout", "linear_1d"]
    labelled = fits.startswith("labelled")
    choices = mlp + (["cnn_mnist"] if "digits" in fits else []) + (["dcgan", "resnet"] if "images" in fits else [])
    choices += ["mlp_fourier"] if fits == "points" else []
    choices += ["mlp_conditional"] if labelled else []
    name = rng.choice(choices)
    draft.set(architecture=name)
    if name in ("dcgan", "resnet"):
        draft.set(dataset__size=16)  # the least
        for network in NETWORKS:
            draft.put(f"{network}.channels", 2)
    elif name.startswith("mlp"):
        for network in NETWORKS:
            draft.put(f"{network}.hidden", rng.choice(["[4]", "[4,3]", "[ 2 , 2 ]"]))
    if labelled and name.startswith("mlp") and rng.random() < 0.3:
        draft.put("architecture.conditional", "true")
    if rng.random() < 0.3:
        draft.put("architecture.latent.dim", rng.choice([1, 2, 5]))
        draft.put("architecture.latent.distribution", rng.choice(["normal", "uniform", "constant"]))
        draft.put("architecture.latent.scale", rng.choice(["0.5", "1", "2.0"]))


def _loss(draft: Draft, rng: Random) -> None:
    losses = ["minimax", "nonsaturating", "lsgan", "lsgan_probability", "wasserstein", "hinge", "relativistic"]
    draft.set(loss=rng.choice(losses))
    if draft.value("loss") in ("minimax", "nonsaturating") and rng.random() < 0.3:
        draft.set(loss__label_smoothing=rng.choice(["null", "0.1", "0"]))
    normalized = ("mlp_batchnorm", "cnn_mnist", "dcgan")  # under batch norm, the penalties make no sense
    if draft.value("architecture") not in normalized and rng.random() < 0.6:
        chosen = rng.sample(["gradient_penalty", "r1", "r2", "dragan", "lecam"], rng.choice([1, 1, 2]))
        draft.set(regularizer=chosen[0] if len(chosen) == 1 and rng.random() < 0.5 else f"[{','.join(chosen)}]")
        draft.put(f"regularizer.{chosen[0]}.interval", rng.choice([1, 2, 16]))
        draft.put(f"regularizer.{chosen[0]}.weight", rng.choice(["0.1", "10", "1e-3"]))


def _optimizer(draft: Draft, rng: Random) -> None:
    draft.set(optimizer=rng.choice(["adam", "adam_default", "sgd", "rmsprop"]))
    for network in rng.sample(["generator", "discriminator"], rng.choice([0, 1, 2])):
        draft.put(f"optimizer.{network}.lr", rng.choice(["1e-4", "0.0001", "1.e-3", "0"]))
    draft.put("optimizer.schedule", rng.choice(["constant", "linear", "cosine"]))


def _trainer(draft: Draft, rng: Random) -> None:
    for key in ("log_every", "sample_every", "evaluate_every", "checkpoint_every", "keep_checkpoints"):
        if rng.random() < 0.3:
            draft.put(f"trainer.{key}", values.right(*TRAIN_KEYS[f"trainer.{key}"], rng))
    for key in ("sample_rows", "sample_columns"):
        draft.put(f"trainer.{key}", rng.choice([1, 2, 3]))
    if rng.random() < 0.4:
        draft.set(trainer__discriminator_steps=rng.choice([1, 2, 3]))
    if rng.random() < 0.3:
        draft.set(trainer__ema_decay=rng.choice(["null", "0.5", "0.999"]))
    if rng.random() < 0.3:
        draft.set(trainer__gradient_clip=rng.choice(["null", "1", "0.1"]))
    if rng.random() < 0.3:
        draft.set(trainer__generator_noise=rng.choice(["fresh", "reused"]))
    if rng.random() < 0.3:
        draft.set(trainer__weight_clip=rng.choice(["null", "0.01", "1"]))
    if draft.value("architecture") != "mlp_conditional" and draft.value("architecture.conditional") is None:
        packs = [1] if draft.value("trainer.batch_size") == "2" else [1, 2]  # batch norm cannot take one pack alone
        draft.set(trainer__packing=rng.choice(packs))
    paired = draft.value("loss") == "relativistic" or "lecam" in (draft.value("regularizer") or "")
    if not paired and rng.random() < 0.3:
        draft.set(trainer__discriminator_update="separate")
    elif rng.random() < 0.3:
        draft.set(trainer__discriminator_forward="concatenated")


def going_on(rng: Random) -> Draft:
    """A run that goes on, or one from its weights."""
    way = rng.choice(["stopped", "longer", "fork", "named", "labelled"])
    draft = Draft("train")
    if way == "stopped":
        draft.needs.add("stopped")
        draft.set(resume=rng.choice(["stopped", "./stopped", "stopped/", "@ROOT@/work/stopped"]))
        draft.may_write.append("stopped")
    elif way in ("longer", "labelled"):
        run = {"longer": "run", "labelled": "labelled"}[way]
        draft.needs |= {run} | ({"photos"} if way == "labelled" else set())
        draft.set(resume=run, trainer__steps=rng.choice([4, 5, 6]))
        draft.may_write.append(run)
    elif way == "fork":
        draft.needs.add("run")
        draft.set(fork_from="run", trainer__steps=2, trainer__batch_size=4, metric__pattern__samples=10)
        draft.set(architecture__generator__hidden="[4]", architecture__discriminator__hidden="[4]")
        draft.set(loss=rng.choice(["hinge", "lsgan"]))
    else:
        draft.needs.add("run")
        draft.put("hydra.run.dir", "run")
        draft.set(trainer__steps=5, trainer__batch_size=4, metric__pattern__samples=20, device="cpu")
        draft.set(trainer__checkpoint_every=2, trainer__log_every=2)
        draft.set(architecture__generator__hidden="[4]", architecture__discriminator__hidden="[4]")
        draft.may_write.append("run")
    rng.shuffle(draft.words)
    return draft


def sampling(rng: Random) -> Draft:
    """Samples of a run."""
    run = rng.choice(["run", "labelled"])
    draft = Draft("sample", needs={run})
    draft.set(run=run, count=values.typed(rng.choice([1, 2, 9]), int, rng))
    if run == "labelled" and rng.random() < 0.5:
        draft.set(label=rng.choice([0, 1, 2]))
    elif run == "labelled" and rng.random() < 0.5:
        draft.set(sheet=rng.choice(["[0]", "[5,0]"]))
    if run == "labelled" and rng.random() < 0.3:
        draft.set(interpolate_labels=rng.choice(["[cat,dog]", "[0,2,1]", "[owl, 1]"]))
    if run == "labelled" and rng.random() < 0.3:  # the latents of the other run are constant
        draft.set(truncation=rng.choice(["null", "0.7", "2", "1e-3"]))
    if rng.random() < 0.5:
        draft.set(columns=rng.choice([1, 3, 100]), seed=rng.choice([0, 5]))
    if rng.random() < 0.4:
        draft.set(images=rng.choice(["true", "false"]), checkpoint=rng.choice(["newest", "best"]))
    if rng.random() < 0.3:
        draft.set(interpolate=rng.choice(["[0,1]", "[3,2,1]"]), frames=rng.choice([0, 2]))
    draft.may_write.append(f"{run}/sampled")
    if rng.random() < 0.5:
        out = rng.choice(["samples", "a/b", "'x y'", "s.1"])
        draft.set(out=out)
        draft.may_write[-1] = out.strip("'").split("/")[0]
    return draft


def exporting(rng: Random) -> Draft:
    """A run's generator as one file."""
    run, (form, ending) = rng.choice(["run", "labelled"]), rng.choice([("torch", "pt2"), ("onnx", "onnx")])
    draft = Draft("export", needs={run}, may_write=[f"generator.{ending}"])
    draft.set(run=run)
    if form == "onnx" or rng.random() < 0.5:
        draft.set(format=form)
    if rng.random() < 0.3:
        draft.set(checkpoint=rng.choice(["newest", "best"]))
    if rng.random() < 0.5:
        out = rng.choice(["a", "a/b", "1.10"])
        draft.set(out=f"{out}.{ending}")
        draft.may_write[-1] = "a" if out == "a/b" else f"{out}.{ending}"
    return draft


def measuring(rng: Random) -> Draft:
    """Figures of a run, or of several."""
    draft = Draft("evaluate")
    which = rng.choice(["run", "runs", "labelled"])
    draft.needs |= {which} | ({"photos"} if which == "labelled" else set())
    draft.may_write.append(which)
    if which == "runs":
        draft.set(runs=rng.choice(["runs", "[runs/seed-1,runs/seed-2]"]))
    else:
        draft.set(run=which)
    if which == "labelled" and rng.random() < 0.5:
        draft.set(metric="[neighbours]", metric__neighbours__samples=rng.choice([2, 5]))
    elif which == "run" and rng.random() < 0.5:
        draft.set(metric="pattern", metric__pattern__samples=9)
    if rng.random() < 0.3:
        draft.set(checkpoint="best", seed=3)
    return draft


def reporting(rng: Random) -> Draft:
    """A report on a run, or on several."""
    which = rng.choice(["run", "runs"])
    draft = Draft("report", needs={which}, may_write=[which])
    draft.put(which, which)
    return draft


def classifying(rng: Random) -> Draft:
    """A classifier of photos."""
    draft = Draft("classifier", needs={"photos"})
    draft.set(dataset="images", dataset__root="photos", dataset__size=rng.choice([8, 16]), device="cpu")
    draft.set(steps=rng.choice([1, 2]), batch_size=4, width=rng.choice([2, 4]))
    if rng.random() < 0.5:
        draft.set(augment=rng.choice(["true", "false"]), lr=rng.choice(["0.001", "1e-3"]))
    if rng.random() < 0.5:
        draft.set(out=rng.choice(["a.safetensors", "b/c.safetensors"]))
        draft.may_write += ["a.safetensors", "b"]
    return draft


def printing(rng: Random) -> Draft:
    """What only prints."""
    command = rng.choice(["train", "train", "sample", "export", "evaluate", "classifier", "report"])
    draft = Draft(command, prints_only=True)
    shown = ["job", "hydra", "all"]
    info = ["all", "config", "defaults", "defaults-tree", "plugins", "searchpath"]
    options = [["--help"], ["--hydra-help"], ["--version"], ["-h"], *([["--info", i] for i in info])]
    options += [["--cfg", what] for what in shown] + [
        ["-c", "job", "-p", "device"] if command == "train" else ["-c", "job"]
    ]
    draft.words += rng.choice(options)
    if command == "train" and rng.random() < 0.5:
        draft.set(loss=rng.choice(["hinge", "lsgan"]), trainer__steps=3)
        if "job" in draft.words and rng.random() < 0.5:
            draft.words.append("--resolve")
    return draft


def sweeping(rng: Random) -> Draft:
    """A sweep: mostly what it would do."""
    draft = Draft("train", ["-m"])
    draft.set(trainer__steps=1, trainer__batch_size=2, metric="[]", doctor="none")
    swept = {"seed": ["0,1", "range(2)", "choice(1,2)"], "loss": ["hinge,lsgan", "glob(*n*)"], "name": ["a,b"]}
    for key in rng.sample(list(swept), rng.choice([1, 1, 2])):
        draft.put(key, rng.choice(swept[key]))
    if not draft.has("name") and rng.random() < 0.5:
        draft.set(name="swept")
    if rng.random() < 0.9:
        draft.put("hydra.launcher.dry_run", "true")
        draft.prints_only = True
    return draft
