"""What is wrong with a YAML file of the user's own is told with the file, its line, and what it must be."""

from pathlib import Path

import pytest

from gan_runner.config import composition
from gan_runner.errors import UserError
from gan_runner.runs.directory import read_run
from tests.training import TINY

HEADER = "# @package _global_\n"
EXPERIMENT, LOSS, DATASET = "experiment/mine", "loss/mine", "dataset/mine"
MISTAKES: dict[str, tuple[str, str | bytes, str]] = {
    "no header": (EXPERIMENT, "trainer:\n  steps: 5\n", "line 1: must be `# @package _global_`"),
    "no header after a comment": (EXPERIMENT, "# mine\nseed: 1\n", "line 1: must be `# @package _global_`"),
    "a header below a comment": (EXPERIMENT, f"# mine\n{HEADER}seed: 1\n", "line 1: must be `# @package _global_`"),
    "a header and more": (EXPERIMENT, "# @package _global_ please\nseed: 1\n", "line 1: Too many components"),
    "a header too late": (EXPERIMENT, f"seed: 1\n{HEADER}", "line 1: must be `# @package _global_`"),
    "a header misspelt": (EXPERIMENT, "# @package global\nseed: 1\n", "line 1: must be `# @package _global_`"),
    "a search without one": ("hparams_search/mine", "seed: 1\n", "line 1: must be `# @package _global_`"),
    "byte-order mark": (EXPERIMENT, f"\ufeff{HEADER}seed: 1\n", "line 1: begins with a byte-order mark"),
    "empty": (EXPERIMENT, "", "is empty"),
    "empty but for its header": (EXPERIMENT, f"{HEADER}\n\n", "is empty"),
    "empty in another group": (LOSS, "# soon\n", "is empty"),
    "Latin-1": (EXPERIMENT, f"{HEADER}# gr\xf6\xdfer\nseed: 1\n".encode("latin-1"), "line 2: is not in UTF-8"),
    "UTF-16": (EXPERIMENT, f"{HEADER}seed: 1\n".encode("utf-16"), "line 1: is not in UTF-8"),
    "tab": (EXPERIMENT, f"{HEADER}trainer:\n\tsteps: 5\n", "line 3: has a tab; YAML is indented with spaces"),
    "no colon": (EXPERIMENT, f"{HEADER}trainer.steps 20\n", "line 2: is no `key: value`; is a colon missing?"),
    "no colon further down": (EXPERIMENT, f"{HEADER}seed: 1\ntrainer.steps 20\n", "line 4: is no `key: value`"),
    "no colon in a section": (EXPERIMENT, f"{HEADER}trainer:\n  steps 20\n", "line 2: found trainer: "),
    "a choice for a section": (EXPERIMENT, f"{HEADER}seed: 1\nloss: hinge\n", "line 3: found loss: "),
    "a number for a section": (EXPERIMENT, f"{HEADER}optimizer: 0.1\n", "line 2: found optimizer: "),
    "a dot": (EXPERIMENT, f"{HEADER}trainer.steps: 20\n", "line 2: found trainer.steps; in YAML, steps is indented"),
    "twice": (EXPERIMENT, f"{HEADER}seed: 1\ntrainer: {{}}\nseed: 2\n", "line 4: seed is there twice"),
    "twice further down": (LOSS, "_target_: gan_runner.losses.Hinge\na: {b: 1,\n b: 2}\n", "line 3: loss.a.b is there"),
    "a list": (EXPERIMENT, f"{HEADER}- seed\n", "line 2: is no `key: value`"),
    "a word": (LOSS, "hinge\n", "line 1: is no `key: value`"),
    "no end": (LOSS, "_target_: [gan_runner.losses.Hinge\nweight: 1\n", "line 2: while parsing a flow sequence"),
    "indentation": (EXPERIMENT, f"{HEADER}trainer:\n steps: 5\n  seed: 3\n", "line 4: mapping values are not allowed"),
    "a control character": (EXPERIMENT, f"{HEADER}name: a\x07\n", "special characters are not allowed"),
    "a number for a folder": (DATASET, "_target_: gan_runner.datasets.MNIST\nroot: 2026_11_25\n", 'root: "2026_11_25"'),
    "octal": (EXPERIMENT, f"{HEADER}dataset: {{root: 007}}\n", "line 2: dataset.root is a text, and 007 is none"),
    "a number for a name": (EXPERIMENT, f"{HEADER}seed: 1\nname: 1.10\n", "line 3: name is a text, and 1.10 is none"),
    "truth for a name": (EXPERIMENT, f"{HEADER}name: yes\n", 'write it in quotes: name: "yes"'),
    "a number for the directory": (EXPERIMENT, f"{HEADER}hydra: {{run: {{dir: 1_0}}}}\n", 'in quotes: dir: "1_0"'),
    "a number among what is swept": (
        "hparams_search/mine",
        f"{HEADER}hydra: {{mode: MULTIRUN, sweeper: {{params: {{dataset.root: 1.10}}}}}}\n",
        "dataset.root is a text, and 1.10 is none",
    ),
}


def write(choice: str, content: str | bytes) -> str:
    file = Path("groups", f"{choice}.yaml")
    file.parent.mkdir(parents=True)
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return choice.replace("/", "=")


@pytest.mark.parametrize(("choice", "content", "said"), MISTAKES.values(), ids=MISTAKES)
def test_mistake(refused, choice, content, said):
    word = write(choice, content)
    line = refused("--config-dir=groups", word)
    assert line.startswith(f"error: {Path.cwd()}/groups/{choice}.yaml")
    assert said in line


@pytest.mark.parametrize(
    "options",
    [
        "--cfg job",
        "--cfg job --resolve",
        "--cfg hydra",
        "--info config",
        "--info defaults-tree",
        "--help",
        "-m seed=0,1",
    ],
)
@pytest.mark.parametrize("mistake", ["no header", "Latin-1", "no colon", "a number for a name"])
def test_under_every_option(refused, options, mistake):
    choice, content, said = MISTAKES[mistake]
    word = write(choice, content)
    assert said in refused("--config-dir=groups", word, *options.split(" "))


def test_what_is_no_mistake(typed):
    words = ("--config-dir=groups", *TINY)
    windows = f"\r\n{HEADER.strip()}\r\n# mine\r\nname: größer\r\ntrainer:\r\n  steps: 1\r\n"
    (directory,) = typed(*words, write(EXPERIMENT, windows)).out.splitlines()[-1:]
    assert read_run(Path(directory), [], "run")["name"] == "größer"
    Path("groups/experiment/mine.yaml").write_text(
        f'{HEADER}name: "007"\ntrainer: &steps {{steps: 1}}\nhydra: {{run: {{dir: "1.10"}}}}\n'
    )
    assert typed(*words, "experiment=mine").out.splitlines()[-1] == "1.10"
    assert typed(*words, "experiment=mine", "hydra.run.dir=2.20").out.splitlines()[-1] == "2.20"
    Path("groups/experiment/mine.yaml").write_text(f"{HEADER}trainer: {{steps: 1}}\ndoctor: null\nregularizer:\n")
    assert typed("--config-dir=groups", "--cfg", "job", "experiment=mine").status == 0
    Path("groups/experiment/mine.yaml").write_text(f"{HEADER}loss: ${{hydra:runtime.choices}}\ndoctor: null\n")
    assert typed("--config-dir=groups", "--cfg", "job", "experiment=mine").status == 0


def test_a_broken_file_that_is_not_chosen_is_in_nobody_s_way(typed):
    write(EXPERIMENT, "trainer.steps 20")
    assert typed("--config-dir=groups", *TINY, "trainer.steps=1").status == 0


def test_names_that_hydra_does_not_read(refused):
    write(EXPERIMENT, HEADER)
    Path("groups/experiment/other.yml").write_text(f"{HEADER}seed: 1\n")
    Path("groups/experiment/folder.yaml").mkdir()
    assert "experiment/other.yml has to end in .yaml" in refused("--config-dir=groups", "experiment=other")
    assert "experiment=folder: no such experiment" in refused("--config-dir=groups", "experiment=folder")


def test_unreadable(refused, monkeypatch):
    word = write(EXPERIMENT, HEADER)
    read = Path.read_bytes

    def denied(path: Path) -> bytes:
        if path.name == "mine.yaml":
            raise PermissionError(13, "Permission denied")
        return read(path)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", denied)

        with pytest.raises(UserError, match=r"mine\.yaml: cannot be read: Permission denied"):
            composition.compose([word], "train", "groups")


@pytest.mark.parametrize("others", [{}, {"other": "mine"}])
@pytest.mark.parametrize("words", ["", "--cfg job", "--info defaults-tree", "-m seed=0,1"])
def test_defaults_that_lead_back(refused, others, words):
    """A file that names itself, and two that name each other."""
    Path("groups/experiment").mkdir(parents=True)
    for name, leads_to in {"mine": next(iter(others), "mine"), **others}.items():
        Path(f"groups/experiment/{name}.yaml").write_text(f"{HEADER}defaults: [{leads_to}, _self_]\nseed: 1\n")
    line = refused("--config-dir=groups", "experiment=mine", *words.split())
    assert line.endswith("its defaults lead back to itself")
    assert "experiment/" in line


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            "seed=interval(0,3)",
            "seed=interval(0,3): has no end of values, which needs a search: -m hydra/sweeper=search",
        ),
        ("-m seed=interval(0,3)", "which needs a search: -m hydra/sweeper=search"),
        ("optimizer.generator.lr=tag(log,interval(1e-5,1e-2))", "which needs a search: -m hydra/sweeper=search"),
        ("--cfg job seed=interval(0,3)", "which needs a search: -m hydra/sweeper=search"),
        ("--cfg nope", "--cfg/-c: invalid choice: 'nope' (choose from 'job', 'hydra', 'all')"),
        ("--info nope", "--info/-i: invalid choice: 'nope'"),
        ("--info defaults loss=hing", "loss=hing: no such loss; did you mean 'hinge'?"),
        ("--help loss=hing", "loss=hing: no such loss; did you mean 'hinge'?"),
        ("--cfg job trainer.stpes=5", "trainer.stpes: no such key; did you mean 'steps'?"),
        ("--nonsense", "unrecognized arguments: --nonsense"),
    ],
)
def test_one_line_under_hydra_s_options(refused, words, said):
    assert said in refused(*words.split(" "))
