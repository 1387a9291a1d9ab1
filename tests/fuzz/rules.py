"""What must hold for every case. Each rule looks at what came of it, and yields what is broken, in a sentence."""

import getpass
import json
import os
import re
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import yaml

from tests.fuzz.case import COMPLETED, REFUSED, Case, Ended, Entry

Rule = Callable[[Case, Ended, Path], Iterator[str]]
# Lines that may stand on standard error before the one that refuses.
REMARKS = ("warning: ", "data: ", "device=", "Decoding images", "Reading images", "evaluated ", "images ")
NOISE = re.compile(r"^.*(?:Exception ignored|Fatal Python error|Segmentation fault|[A-Z]\w*Warning: ).*$", re.MULTILINE)
_CACHED = re.compile(
    r"cache(/[\w-]+)*(/[\w-]+(\.[\w-]+)+)?"
)  # a finished entry, or a folder: not hidden, with an extension
_OF_TORCH = (f"tmp/torchinductor_{getpass.getuser()}",)  # an empty folder that an import of torch._inductor makes
_OF_RUN = ("config.yaml", "status.json", "manifest.json", "log.txt", "metrics.jsonl", "generator.safetensors")


def ends_in_time(case: Case, ended: Ended, place: Path) -> Iterator[str]:
    if ended.status is None:
        yield f"still at work after {ended.seconds:.0f} s; last on stderr: {_last_line(ended.err)}"
    elif ended.status < 0:
        yield f"killed by signal {-ended.status}"


def has_the_right_status(case: Case, ended: Ended, place: Path) -> Iterator[str]:
    if ended.status is not None and ended.status >= 0 and ended.status not in case.expect:
        wanted = " or ".join(map(str, sorted(case.expect)))
        yield f"status {ended.status} instead of {wanted}; last on stderr: {_last_line(ended.err)}"


def shows_no_traceback(case: Case, ended: Ended, place: Path) -> Iterator[str]:
    if case.faults_of_user:
        return
    for where, text in (("stderr", ended.err), ("stdout", ended.out), *ended.logs.items()):
        if "Traceback (most recent call last)" in text:
            yield f"a traceback on {'log.txt' if where in ended.logs else where}: {_exception(text)}"


def is_silent_otherwise(case: Case, ended: Ended, place: Path) -> Iterator[str]:
    if found := NOISE.search(ended.err + ended.out):
        yield f"noise: {found[0].strip()}"


def tells_a_mistake_in_one_line(case: Case, ended: Ended, place: Path) -> Iterator[str]:
    if ended.status != REFUSED or _is_sweep_that_ran(case, ended) or case.faults_of_user:
        return
    lines = ended.err.splitlines()
    errors = [line for line in lines if line.startswith("error: ")]
    others = [line for line in lines if not line.startswith(("error: ", *REMARKS))]
    if len(errors) != 1:
        yield f"{len(errors)} lines begin with 'error: '; last on stderr: {_last_line(ended.err)}"
    elif len(errors[0]) < len("error: ") + 8:
        yield f"says nothing: {errors[0]}"
    elif others:
        yield f"besides the mistake: {others[0]}"
    if ended.out.strip():
        yield f"a mistake, and on stdout: {_last_line(ended.out)}"


def names_the_mistake(case: Case, ended: Ended, place: Path) -> Iterator[str]:
    if ended.status == REFUSED and case.names and not any(name in ended.err for name in case.names):
        yield f"does not name {' or '.join(case.names)}: {_last_line(ended.err)}"


def leaves_nothing_after_a_mistake(case: Case, ended: Ended, place: Path) -> Iterator[str]:
    """But decoded images and features, whole, in the cache: it took time to make them, and they are right."""
    if ended.status == REFUSED:
        yield from (f"left behind: {path}" for path in sorted(_new(ended)) if not _CACHED.fullmatch(path))


def touches_nothing_else(case: Case, ended: Ended, place: Path) -> Iterator[str]:
    allowed = () if ended.status == REFUSED or case.prints_only else _writable(case, ended, place)
    for path, entry in ended.before.items():
        after = ended.after.get(path)
        if after != entry and not _is_below(path, allowed):
            yield f"{'gone' if after is None else 'changed'}: {path}{_how(entry, after)}"


def writes_nowhere_else(case: Case, ended: Ended, place: Path) -> Iterator[str]:
    allowed = ("cache", *_OF_TORCH, *(() if case.prints_only else _writable(case, ended, place)))
    if ended.status != REFUSED:
        for path in sorted(_new(ended)):
            if not _is_below(path, allowed) and not any(other.startswith(f"{path}/") for other in allowed):
                yield f"written: {path}"


def leaves_no_process(case: Case, ended: Ended, place: Path) -> Iterator[str]:
    for line in ended.left:
        yield f"left a process: {line[:80]}"


def leaves_no_half_made_file(case: Case, ended: Ended, place: Path) -> Iterator[str]:
    for path in sorted(_new(ended)):
        if path.endswith(".tmp") or (path.startswith("cache/") and not _CACHED.fullmatch(path)):
            yield f"half-made: {path}"


def a_completed_training_has_its_files(case: Case, ended: Ended, place: Path) -> Iterator[str]:
    if case.command != "train" or ended.status != COMPLETED or case.prints_only or "-m" in case.words:
        return
    if case.stdout is not None:
        return
    if not ended.out.endswith("\n") or not ended.out.strip():
        yield "the last line on stdout is no run directory"
        return
    run = place / "work" / ended.out.splitlines()[-1]
    missing = [name for name in _OF_RUN if not (run / name).is_file()]
    if missing:
        yield f"lacks {', '.join(missing)}"
        return
    status = json.loads((run / "status.json").read_text())
    if status["state"] != "completed":
        yield f"is {status['state']} in status.json"
    config = yaml.safe_load((run / "config.yaml").read_text())
    if status["step"] != config["trainer"]["steps"]:
        yield f"completed at step {status['step']} of {config['trainer']['steps']}"
    for key, text in case.keeps.items():
        if config[key] != text:
            yield f"{key} is {config[key]!r} in config.yaml, typed as {text!r}"


def makes_what_was_typed(case: Case, ended: Ended, place: Path) -> Iterator[str]:
    if ended.status == COMPLETED and case.makes is not None and not os.path.isdir(place / "work" / case.makes):
        made = [path for path in sorted(_new(ended)) if path.count("/") == 1 and path.startswith("work/")]
        yield f"typed was {case.makes!r}, made was {', '.join(made)}"


def _new(ended: Ended) -> set[str]:
    return ended.after.keys() - ended.before.keys()


def _how(before: Entry, after: Entry | None) -> str:
    if after is None:
        return ""
    changes = [f"mode {stat.filemode(after.mode)}"] if after.mode != before.mode else []
    changes += ["content"] if after.content != before.content else []
    return f" ({', '.join(changes) or 'time'})"


def _writable(case: Case, ended: Ended, place: Path) -> tuple[str, ...]:
    """Where the case may write: outputs/, what the generator says, and the directory that the command printed."""
    allowed = ["work/outputs", *(os.path.normpath(f"work/{path}") for path in case.may_write)]
    printed = ended.out.splitlines()[-1:] if case.about.startswith("wild") else []
    for line in printed:
        allowed.append(os.path.relpath(os.path.normpath(place / "work" / line), place))
    if case.about.startswith("wild"):
        allowed += [f"work/{path}" for path in (case.needs if case.command != "train" else ()) if "run" in path]
    return tuple(allowed)


def _is_below(path: str, folders: tuple[str, ...]) -> bool:
    return any(path == folder or path.startswith(f"{folder}/") for folder in folders)


def _is_sweep_that_ran(case: Case, ended: Ended) -> bool:
    """Whether jobs were started, of which a table tells."""
    return bool({"-m", "--multirun"} & {*case.words}) and "┃" in ended.out


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["nothing"])[-1].strip()


def _exception(text: str) -> str:
    """The last line of the last traceback."""
    after = text.rpartition("Traceback (most recent call last)")[2].splitlines()[1:]
    return next((line.strip() for line in after if line and not line.startswith((" ", "\t"))), "?")


RULES: tuple[Rule, ...] = (
    ends_in_time,
    has_the_right_status,
    shows_no_traceback,
    is_silent_otherwise,
    tells_a_mistake_in_one_line,
    names_the_mistake,
    leaves_nothing_after_a_mistake,
    touches_nothing_else,
    writes_nowhere_else,
    leaves_no_process,
    leaves_no_half_made_file,
    a_completed_training_has_its_files,
    makes_what_was_typed,
)
