"""Launchers that are not ours: the jobs are isolated, and what became of them is told truthfully."""

import pytest

from tests.sweeps.test_sweep import DIGITS, moods, moody, states  # noqa: F401 (a fixture)


@pytest.mark.parametrize(
    ("launcher", "module", "settings"),
    [
        ("basic", "hydra", ()),
        ("joblib", "hydra_plugins.hydra_joblib_launcher", ("hydra.launcher.n_jobs=2",)),
        ("submitit_local", "hydra_plugins.hydra_submitit_launcher", ("hydra.launcher.timeout_min=5",)),
    ],
)
def test_jobs_are_isolated_and_counted(gan_train, moody, launcher, module, settings):  # noqa: F811
    pytest.importorskip(module)
    ended = gan_train(
        *moods("good", "raises", "killed"), "name=foreign", *DIGITS, f"hydra/launcher={launcher}", *settings
    )
    assert ended.returncode == 1, ended.stderr
    assert states(moody / "outputs/foreign") == {
        "mood-good": "completed",
        "mood-raises": "failed",
        "mood-killed": "failed",
    }
    assert "mood-killed: failed after" in ended.stderr
    assert "was killed by SIGKILL" in ended.stdout


def test_the_same_command_goes_on(gan_train, moody):  # noqa: F811
    words = (*moods("raises"), "name=foreign", *DIGITS, "hydra/launcher=basic")
    assert gan_train(*words).returncode == 1
    (moody / "bad").unlink()
    assert gan_train(*words).returncode == 0
    assert states(moody / "outputs/foreign") == {"job": "completed"}


def test_all_jobs_refused(gan_train, moody):  # noqa: F811
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    words = ("-m", "seed=0,1", "name=none", *DIGITS, "metric=[fid]", "trainer.objective=metric/fidd")
    ended = gan_train(*words, "hydra/launcher=joblib")
    assert ended.returncode == 2, ended.stderr
    assert ended.stderr.count("did you mean 'metric/fid'?") == 2
    assert not (moody / "outputs").exists()
