"""A closed pipe or closed standard streams end no run; real processes, in a real shell."""

import shlex
import subprocess
import sys

import pytest

from tests.training import TINY, rows, status

WORDS = (*TINY, "trainer.steps=20", "metric=[]", "doctor=none", "hydra.run.dir=run")


@pytest.fixture
def shell(tmp_path, environment):
    """Runs a line in bash, in which $gan-COMMAND can be typed; returns the exit status of its first command."""

    def run(line: str) -> tuple[int, str]:
        here = tmp_path / "here"
        here.mkdir(exist_ok=True)
        for name in ("train", "sample", "report"):
            line = line.replace(f"gan-{name}", f"{shlex.quote(sys.executable)} -m gan_runner.{name}")
        script = f"{line}; exit ${{PIPESTATUS[0]}}"
        words = ["bash", "-c", script]
        done = subprocess.run(words, cwd=here, env=environment, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout + done.stderr

    return run


@pytest.mark.parametrize(
    "ending",
    ["| head -1", "2>&1 | true", ">&-", "2>&-", "<&-", "<&- >&- 2>&-", ">/dev/full", "2>/dev/full", ">/dev/full 2>&1"],
)
def test_a_run_completes_whoever_has_left(tmp_path, shell, ending):
    ended, printed = shell(f"gan-train {' '.join(WORDS)} {ending}")
    run = tmp_path / "here" / "run"
    assert ended == 0, printed
    assert status(run)["state"] == "completed"
    assert [row["step"] for row in rows(run)] == [5, 10, 15, 20]
    log = (run / "log.txt").read_text()
    assert "step 20/20" in log
    assert log.splitlines()[-1].endswith(" run")  # the last line of its output
    assert "Exception ignored" not in printed
    assert "Error" not in printed
    assert {file.name for file in run.iterdir()} >= {"manifest.json", "metrics.jsonl", "generator.safetensors"}
    for name in ("config.yaml", "metrics.jsonl", "status.json"):  # no message has found its way into another file
        assert "step 5/20" not in (run / name).read_text()


@pytest.mark.parametrize("ending", ["| true", ">&- 2>&-", ">/dev/full"])
def test_other_commands_complete_too(tmp_path, shell, ending):
    assert shell(f"gan-train {' '.join(WORDS)}")[0] == 0
    run = tmp_path / "here" / "run"
    for command in ("gan-sample run=run count=3", "gan-report run=run"):
        ended, printed = shell(f"{command} {ending}")
        assert ended == 0, printed
        assert "Exception ignored" not in printed
    assert (run / "sampled" / "samples.npy").is_file()
    assert (run / "report.html").is_file()


@pytest.mark.parametrize("ending", ["2>&1 | true", ">&- 2>&-"])
def test_a_sweep_and_several_processes_complete(tmp_path, shell, ending):
    words = " ".join(WORDS[:-1])
    ended, printed = shell(f"gan-train -m {words} seed=0,1 name=pair hydra.launcher.jobs=1 {ending}")
    assert ended == 0, printed
    sweep = tmp_path / "here" / "outputs" / "pair"
    assert [status(run)["state"] for run in sweep.iterdir() if (run / "status.json").exists()] == ["completed"] * 2
    ended, printed = shell(f"gan-train {words} hydra.run.dir=both device=ddp device.processes=2 {ending}")
    assert ended == 0, printed
    assert status(tmp_path / "here" / "both")["state"] == "completed"


def test_help_still_ends_by_its_pipe(shell):
    ended, printed = shell("gan-train --help | true")
    assert ended in (0, 141), printed  # whether the pipe takes it all before it closes is up to the system
    assert "Traceback" not in printed
