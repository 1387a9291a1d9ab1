"""What is typed for a path or a name is taken letter for letter, and what is printed can be typed."""

import json
import os
import random
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from gan_runner.config import composition
from gan_runner.errors import UserError
from gan_runner.overrides import TEXT_KEYS, as_typed, command, in_hydra_grammar, override
from gan_runner.runs.directory import read_run
from tests.conftest import tree
from tests.training import TINY, write_images

# What Hydra's grammar takes for numbers, truth values and lists, refuses, or reads in its own way.
LETTERS = [
    *("1.10", "2026_11_25", "007", "1e3", "0x10", "-0", "+5", "true", "False", "nan", "inf", "NULL", "~", "~nobody/x"),
    *("lr=0.1", "a b", "it's", "[old]", "{a:1}", "photos (1)", "größer", "猫", "c:\\data", "a\\", "$HOME", "100%"),
    *("a=b=c", "@x", "a:b", "\\(", "!x", "#x", "*", "a" * 200),
]


def value_of(word: str) -> object:
    return OverridesParser.create().parse_overrides([word])[0].value()


@pytest.mark.parametrize("text", LETTERS)
@pytest.mark.parametrize("sweep", [False, True])
def test_a_text_is_taken_letter_for_letter(text, sweep):
    for key in ("dataset.root", "+name", "++hydra.run.dir"):
        if "," not in text:
            assert value_of(in_hydra_grammar(f"{key}={text}", sweep)) == text


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("resume=null", None),
        ("name=null", "null"),
        ("dataset.root='1.10'", "1.10"),
        ('dataset.root="a,b"', "a,b"),
        ("dataset.root='it\\'s'", "it's"),
        ("dataset.root='a\\\\'", "a\\"),
        ("dataset.root=", ""),
        ("dataset.root= a ", " a "),
        ("dataset.root='a'b", "'a'b"),
        ("runs=[1.10, 2026_11_25]", ["1.10", "2026_11_25"]),
        ("runs=[]", []),
        ("runs=007", "007"),
        ("trust=[nan]", ["nan"]),
        ("hydra.run.dir=out/${seed}", "out/${seed}"),
        ("trainer.steps=1_000", 1000),  # any other key is Hydra's
        ("loss=[a,1.10]", ["a", 1.1]),
    ],
)
def test_what_stands_for_something_else(word, value):
    assert value_of(in_hydra_grammar(word)) == value


@pytest.mark.parametrize(
    ("word", "texts"),
    [
        ("dataset.root=1.10,1.20", ["1.10", "1.20"]),
        ("name=true, 'a,b' ,lr=0.1", ["true", "a,b", "lr=0.1"]),
        ("name=choice(1.10,'x y')", ["1.10", "x y"]),
        ("+name=sort(b,007)", ["007", "b"]),
        ("fork_from=/a/[b],/c(d", ["/a/[b]", "/c(d"]),
        ("name=range(2020,2022)", ["2020", "2021"]),
    ],
)
def test_a_sweep_goes_over_texts(word, texts):
    (swept,) = composition.parse([word], sweep=True)
    values = [as_typed("name", text) for text in swept.sweep_string_iterator()]
    assert [value_of(in_hydra_grammar(f"name={value}")) for value in values] == texts


@pytest.mark.parametrize("word", ["dataset.root=a,b", "name=a,'b'", "runs=1,2"])
def test_a_comma_outside_of_a_sweep_is_refused_with_what_to_type(word):
    with pytest.raises(UserError, match="comma") as refusal:
        in_hydra_grammar(word)
    typed = shlex.split(str(refusal.value).partition("of its own: ")[2].partition(";")[0])[0]
    assert value_of(in_hydra_grammar(typed)) == word.partition("=")[2]
    if word.startswith("runs"):
        assert "several are 'runs=[1,2]'" in str(refusal.value)


def test_deletion_stays_hydra_s():
    assert in_hydra_grammar("~name") == "~name"
    assert in_hydra_grammar("~dataset.root=1.10") == "~dataset.root=1.10"


def test_5000_texts_come_back_from_a_shell_as_they_were():
    rng = random.Random(0)
    for _ in range(5000):
        text = "".join(rng.choices("ab1.~\\'\"$ {}[](),=:#/-_\n\tü", k=rng.choice([1, 2, 3, 8, 20])))
        (typed,) = shlex.split(override("dataset.root", text))
        for sweep in (False, True):
            value = OmegaConf.create({"value": value_of(in_hydra_grammar(typed, sweep))})
            assert OmegaConf.to_container(value, resolve=True) == {"value": text}, text
        assert in_hydra_grammar(in_hydra_grammar(typed)) == in_hydra_grammar(typed)


@pytest.mark.parametrize("key", sorted(TEXT_KEYS))
def test_the_key_exists(key):
    """One that is renamed in conf/ would be a number again."""
    composed = [
        composition.compose([], command) for command in ("sample", "export", "evaluate", "classifier", "report")
    ]
    composed += [composition.compose(["dataset=mnist", "hydra/launcher=slurm"], "train")]
    parent, _, name = key.rpartition(".")
    nodes = [OmegaConf.select(config, parent) if parent else config for config in composed]
    assert any(node is not None and name in [*node] for node in nodes)


@pytest.mark.parametrize("name", ["1.10", "2026_11_25", "007", "true", "nan"])
def test_a_run_is_where_it_was_typed_and_is_read_from_there(typed, name):
    assert typed(f"hydra.run.dir={name}", *TINY, "trainer.steps=2").out.splitlines()[-1] == name
    assert typed(f"resume={name}", "trainer.steps=3").out.splitlines()[-1] == name
    assert typed(f"run={name}", "count=1", command="sample").out.splitlines()[-1] == f"{name}/sampled"
    assert typed(f"run={name}", "count=1", "out=1e3", command="sample").out.splitlines()[-1] == "1e3"
    assert typed(f"runs={name}", command="report").status == 0
    assert typed(f"runs=[{name}]", "device=cpu", command="evaluate").status == 0
    assert {path.name for path in Path.cwd().iterdir()} == {name, "1e3"}


@pytest.mark.parametrize("name", ["lr=0.1 größer", "1.10", "a/b", "..", "null", "x" * 300, "a,b"])
def test_a_name_is_kept_and_its_directory_is_legal_anywhere(typed, name):
    directory = Path(typed(*shlex.split(override("name", name)), *TINY, "trainer.steps=1").out.splitlines()[-1])
    assert directory.parent.parent == Path("outputs")
    assert directory.parent.name.isascii()
    assert directory.parent.name.replace("-", "").replace(".", "").replace("_", "").isalnum()
    assert len(directory.parent.name) <= 120
    assert read_run(directory, [], "run")["name"] == name


def test_a_sweep_over_data_has_a_directory_for_each(gan_train, tmp_path):
    for name in ("1.10", "1.1", "a,b", "[c]"):
        write_images(tmp_path / name)
    words = ("dataset=images", "dataset.size=8", "dataset.channels=1", "architecture=mlp_layernorm", "metric=[]")
    roots = "dataset.root=1.10,1.1,'a,b',[c]"
    ended = gan_train(
        "-m", *words, *TINY, "trainer.steps=1", "doctor=none", "name=data", roots, "hydra.launcher.jobs=2"
    )
    assert ended.returncode == 0, ended.stderr
    jobs = [path for path in (tmp_path / "outputs/data").iterdir() if path.is_dir()]
    assert {"root-1.10", "root-1.1"} < {path.name for path in jobs}
    found = {Path(read_run(path, [], "run")["dataset"]["root"]).name for path in jobs}
    assert found == {"1.10", "1.1", "a,b", "[c]"}
    assert len(jobs) == 4


PLACES = [
    *("plain", "a b", "lr=0.1", "it's", 'say "x"', "a,b", "[x]", "photos (1)", "$HOME", "${seed}", "~x", "back\\"),
    *("é;ls", "null"),
]


@pytest.mark.parametrize("name", PLACES)
def test_what_is_printed_can_be_pasted_into_a_shell(typed, environment, name):
    """In a real shell, which would expand, split or run what is not quoted."""
    where = Path(name)
    first = typed(*shlex.split(override("hydra.run.dir", where)), *TINY, "trainer.steps=2")
    assert (first.status, first.out.splitlines()[-1]) == (0, name)
    refusal = typed(*shlex.split(override("resume", where)), "seed=3")
    assert refusal.status == 2
    fork = refusal.err.strip().partition("from its weights: ")[2]
    lines = subprocess.run(["bash", "-c", f"printf '%s\\n' {fork}"], capture_output=True, text=True, check=True).stdout
    (word,) = lines.splitlines()
    forked = typed(word, *TINY, "trainer.steps=2", "seed=3", "hydra.run.dir=forked")
    assert (forked.status, forked.out.splitlines()[-1]) == (0, "forked")


def test_a_command_is_named_so_that_this_installation_is_found(tmp_path, monkeypatch):
    scripts = tmp_path / "a project/.venv/bin"
    scripts.mkdir(parents=True)
    monkeypatch.setattr(sys, "executable", str(scripts / "python"))
    monkeypatch.setenv("PATH", "/usr/bin")
    monkeypatch.chdir(tmp_path)
    assert command("train") == f"'{scripts}/python' -m gan_runner.train"  # as in a checkout that is not installed
    (scripts / "gan-train").touch(mode=0o755)
    assert command("train") == "'a project/.venv/bin/gan-train'"
    monkeypatch.chdir(tmp_path / "a project")
    assert command("train") == ".venv/bin/gan-train"
    monkeypatch.chdir("/usr")
    assert command("train") == f"'{scripts}/gan-train'"
    monkeypatch.setenv("PATH", f"/usr/bin:{scripts}")
    assert command("train") == "gan-train"


@pytest.mark.parametrize("name", ["lr=0.1", "it's (1), [x] ${seed}"])
def test_the_printed_command_goes_on(gan_train, tmp_path, environment, name):
    ended = gan_train(
        *shlex.split(override("hydra.run.dir", Path(name))),
        *("trainer.steps=100000000", "trainer.log_every=100000", "trainer.checkpoint_every=100000", "doctor=none"),
        *("trainer.evaluate_every=100000000", "trainer.sample_every=100000000", "device=cpu"),
        preexec_fn=term_after_a_while,
    )
    assert ended.returncode == 75, ended.stderr
    printed = next(line for line in ended.stdout.splitlines() if line.startswith("go on with: "))[len("go on with: ") :]
    refused = subprocess.run(
        ["bash", "-c", f"{printed} trainer.steps=1"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert refused.returncode == 2
    assert "was started with 100000000; it can only be extended" in refused.stderr  # it found the run


def term_after_a_while() -> None:
    """To the process itself, while it trains."""
    if os.fork() == 0:
        os.execvp("sh", ["sh", "-c", f"sleep 8; kill -TERM {os.getppid()}"])


def test_values_in_a_resume_are_resolved_and_stored_ones_are_not(typed, monkeypatch):
    write_images(Path("${x}"))
    write_images(Path("other"))
    words = ["dataset=images", "dataset.size=8", "dataset.channels=1", "architecture=mlp_layernorm", "metric=[]"]
    words += (*TINY, "hydra.run.dir=run")
    assert typed(*words, "trainer.steps=1", *shlex.split(override("dataset.root", Path("${x}")))).status == 0
    assert typed("resume=run", "trainer.steps=2").status == 0
    monkeypatch.setenv("DATA", "other")
    assert typed("resume=run", "trainer.steps=3", "dataset.root=${oc.env:DATA}").status == 0
    assert Path(read_run(Path("run"), [], "run")["dataset"]["root"]).name == "other"


def test_what_is_no_utf_8_is_refused_in_one_line(refused):
    for word in ("name=a\udcff", "dataset.root=\udcff", "resume=x\udcff", "trainer.steps=\udcff"):
        assert "is not in UTF-8" in refused(word)


def test_a_foreign_package_is_trusted_as_the_refusal_says(typed, refused):
    assert typed("hydra.run.dir=run", *TINY, "trainer.steps=1").status == 0
    config = Path("run/config.yaml")
    config.write_text(config.read_text().replace("gan_runner.losses.NonSaturating", "mine.Loss"))
    before = tree(Path.cwd())
    assert refused("resume=run").endswith("add 'trust=[mine]'")
    assert tree(Path.cwd()) == before
    assert json.loads(Path("run/status.json").read_text())["state"] == "completed"
