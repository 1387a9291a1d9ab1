"""Runs a case: in a fork of this process, which has imported everything, or as a process of its own."""

import atexit
import ctypes
import gc
import hashlib
import importlib
import json
import os
import resource
import shutil
import signal
import stat
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.conftest import REPOSITORY
from tests.fuzz.case import Case, Ended, Entry, Tree
from tests.fuzz.world import Inputs

LIMIT = 60.0  # seconds that a case may take
MEMORY = 12 * 2**30  # bytes of address space; a fork has 4 GiB of them from the start
GRACE = 5.0  # seconds in which what it has started has to end after it
WARM = (
    *(
        f"gan_runner.commands.{name}"
        for name in ("train", "sample", "export", "evaluate", "classifier", "report", "sweep")
    ),
    *(f"gan_runner.{name}" for name in ("train", "sample", "export", "evaluate", "classifier", "report")),
    "matplotlib.pyplot",
    "scipy.stats",
    "torch._dynamo",
    "torch.utils.tensorboard",
    "torchvision",
)
_CAPABILITIES = (1, 2)  # CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH: by these, the modes of files mean nothing to root
_PR_CAPBSET_DROP, _PR_SET_CHILD_SUBREAPER = 24, 36
_LIBC = ctypes.CDLL(None, use_errno=True)


def warm_up() -> None:
    """Imports what the commands need, for all forks, and starts no thread."""
    for module in WARM:
        importlib.import_module(module)
    from hydra.core.plugins import Plugins
    from PIL import Image

    Plugins.instance()
    Image.init()
    if sys.platform == "linux":
        _LIBC.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)  # whom a case leaves behind becomes a child of this process
    gc.freeze()
    assert threading.active_count() == 1, "a fork would lack the other threads"


def run(case: Case, inputs: Inputs, place: Path, limit: float = LIMIT) -> Ended:
    """Makes the case's working directory in `place`, runs it there, and returns what came of it."""
    for folder in ("work", "home", "cache", "tmp"):
        (place / folder).mkdir(parents=True)
    inputs.lay_out(case, place / "work")
    before, children = snapshot(place), _children()
    begun = time.monotonic()
    out, err = place.with_suffix(".out"), place.with_suffix(".err")
    pid = _start(case, place, out, err)
    status = _wait(pid, begun + limit)
    seconds = time.monotonic() - begun
    left = _end_children(children, pid)
    after = snapshot(place)
    printed = [path.read_bytes().decode(errors="backslashreplace") for path in (out, err)]
    logs = {n: (place / n).read_text(errors="replace") for n, entry in after.items() if _is_log(n, entry)}
    for path in (out, err):
        path.unlink()
    return Ended(status, printed[0], printed[1], seconds, left, before, after, logs)


def remove(place: Path) -> None:
    """Removes a case's directory, whatever the modes in it."""
    for folder, _, _ in os.walk(place):
        with suppress(OSError):
            os.chmod(folder, 0o700)
    shutil.rmtree(place, ignore_errors=True)


def snapshot(place: Path) -> Tree:
    """Everything in `place`; folders that cannot be opened by their modes as well, if this user may."""
    found: Tree = {}
    for folder, folders, files in os.walk(os.fsencode(place)):
        for name in [*folders, *files]:
            path = os.path.join(folder, name)
            about, content = os.lstat(path), ""
            if stat.S_ISLNK(about.st_mode):
                content = os.fsdecode(os.readlink(path))
            elif stat.S_ISREG(about.st_mode):
                with suppress(PermissionError), open(path, "rb") as file:
                    content = hashlib.sha256(file.read()).hexdigest()
            changed = about.st_mtime_ns if stat.S_ISREG(about.st_mode) else 0
            found[os.fsdecode(os.path.relpath(path, os.fsencode(place)))] = Entry(about.st_mode, content, changed)
    return found


def _is_log(name: str, entry: Entry) -> bool:
    return name.endswith("/log.txt") and stat.S_ISREG(entry.mode) and bool(entry.mode & stat.S_IRUSR)


def _start(case: Case, place: Path, out: Path, err: Path) -> int:
    environment = _environment(case, place)
    pid = os.fork()
    if pid:
        return pid
    try:
        os.setsid()
        with open(os.devnull, "rb") as nothing, out.open("wb") as to, err.open("wb") as errors:
            for source, target in ((nothing, 0), (to, 1), (errors, 2)):
                os.dup2(source.fileno(), target)
        if case.stdout is not None:
            _take_nothing(case.stdout)
        drop_capabilities()
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        os.chdir(place / "work")
        words = [word.replace("@ROOT@", str(place)) for word in case.words]
        if case.as_process:
            command = [sys.executable, "-m", f"gan_runner.{case.command}", *words]
            os.execve(sys.executable, [os.fsencode(word) for word in command], environment)
        os._exit(_run_in_this_process(case.command, words, environment))
    except BaseException:
        traceback.print_exc()
        os._exit(99)


def _take_nothing(how: str) -> None:
    """Makes standard output a stream that takes nothing."""
    os.close(1)
    if how == "full":
        os.open("/dev/full", os.O_WRONLY)  # gets the number that is free
    elif how == "pipe":
        nobody, pipe = os.pipe()
        os.close(nobody)
        os.dup2(pipe, 1)
        os.close(pipe)


def _run_in_this_process(command: str, words: list[str], environment: Mapping[str, str]) -> int:
    """What `python -m gan_runner.command` does, and its exit status."""
    for name in [*os.environ]:
        del os.environ[name]
    os.environ.update(environment)
    sys.stdin = open(0, encoding="utf-8")  # noqa: SIM115 (they are this process's own)
    sys.stdout = open(1, "w", encoding="utf-8", errors="strict")  # noqa: SIM115
    sys.stderr = open(2, "w", encoding="utf-8", errors="backslashreplace", buffering=1)  # noqa: SIM115
    sys.modules["__main__"] = sys.modules[f"gan_runner.{command}"]  # the server of a sweep imports it by its name
    sys.argv = [str(REPOSITORY / "gan_runner" / f"{command}.py"), *words]
    sys.path[0] = os.getcwd()
    try:
        sys.modules[f"gan_runner.{command}"].main()
        status = 0
    except SystemExit as stop:
        status = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BaseException:
        traceback.print_exc()
        status = 1
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except (OSError, ValueError):
        status = 120
    return status & 0xFF


def _environment(case: Case, place: Path) -> dict[str, str]:
    own = {
        "HOME": str(place / "home"),
        "TMPDIR": str(place / "tmp"),
        "GAN_RUNNER_CACHE": str(place / "cache"),
        "PYTHONPATH": str(REPOSITORY),
        "PYTHONDONTWRITEBYTECODE": "1",
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "MPLCONFIGDIR": os.environ["MPLCONFIGDIR"],
    }
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH") if name in os.environ}
    wanted: dict[str, str | None] = {**kept, **own, **case.environment}
    return {k: v.replace("@ROOT@", str(place)) for k, v in wanted.items() if v is not None}


def drop_capabilities() -> None:
    """Makes root heed the modes of files, in what it starts as well."""
    if os.geteuid() != 0 or sys.platform != "linux":
        return
    for capability in _CAPABILITIES:
        _LIBC.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    sets = (ctypes.c_uint32 * 6)()
    _LIBC.capget(header, sets)
    for i in range(3):
        sets[i] &= ~sum(1 << capability for capability in _CAPABILITIES)
    _LIBC.capset(header, sets)


def _wait(pid: int, until: float) -> int | None:
    """The exit status, negative for a signal; None where it had to be killed because it took too long."""
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > until:
            os.killpg(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return None
        time.sleep(0.003)


def _children() -> set[int]:
    """The processes that this one has to wait for, if the system says so."""
    with suppress(OSError):
        return {int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()}
    return set()


def _end_children(before: set[int], pid: int) -> tuple[str, ...]:
    """Waits for whom the case has left behind, and ends those that stay; returns their command lines."""
    until = time.monotonic() + GRACE
    while left := _children() - before - {pid}:
        for child in left:
            with suppress(ChildProcessError):
                os.waitpid(child, os.WNOHANG)
        if time.monotonic() > until:
            break
        time.sleep(0.003)
    lines = []
    for child in left:
        with suppress(OSError):
            lines.append(Path(f"/proc/{child}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace"))
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
    return tuple(lines)


def train(words: list[str], cwd: Path) -> None:
    """Runs a training that has to be completed, in a fork, so that no thread starts here."""
    pid = os.fork()
    if not pid:
        os.chdir(cwd)
        for descriptor in (1, 2):
            os.dup2(os.open(cwd / ".said", os.O_WRONLY | os.O_CREAT | os.O_APPEND), descriptor)
        os._exit(_run_in_this_process("train", words, os.environ | {"GAN_RUNNER_CACHE": str(cwd / ".cache")}))
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert status == 0, f"gan-train {words} ended with {status}: {(cwd / '.said').read_text()}"


def in_fork(function: Callable[[], object], limit: float = LIMIT) -> Any:
    """What `function` returns, by way of JSON, from a fork; UserErrors and faults are raised here as RuntimeError."""
    ours, theirs = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            answer: dict[str, object] = {"result": function()}
        except BaseException as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        with os.fdopen(theirs, "w") as stream:
            json.dump(answer, stream)
        os._exit(0)
    os.close(theirs)
    with os.fdopen(ours) as stream:
        answer = json.loads(stream.read() or "{}")
    _wait(pid, time.monotonic() + limit)
    if "result" not in answer:
        raise RuntimeError(answer.get("error", "no answer"))
    return answer["result"]
