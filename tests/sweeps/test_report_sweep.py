"""`gan-report runs=…`: the numbers are right, nothing is averaged that must not be, and nothing is left out unsaid."""

import csv
import io
import json
import re
import shutil

import pytest
import yaml
from scipy import stats

from gan_runner.errors import UserError
from gan_runner.runs.directory import RunDirectory
from gan_runner.sweeps.report.writing import write_sweep_report
from tests.sweeps.made_up import config, job, make_run, make_sweep, write_sweep
from tests.training import train

TINY = ("trainer.steps=40", "trainer.log_every=20", "metric.pattern.samples=64", "device=cpu")


def lines(markdown, start):
    """The cells of the rows of the tables that begin so."""
    rows = [re.split(r"(?<!\\)\|", line)[1:-1] for line in markdown.splitlines() if line.startswith("| ")]
    rows = [[cell.strip() for cell in row] for row in rows]
    return [row for row in rows if row[0].startswith(start)]


def table(folder):
    return list(csv.DictReader(io.StringIO((folder / "report.csv").read_text())))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    for loss in ("lsgan", "hinge"):
        for seed in range(3):
            train(folder / f"{loss}_{seed}", f"loss={loss}", f"seed={seed}", *TINY)
    return folder


def test_the_numbers_are_those_of_ten_lines_over_metrics_jsonl(trained):
    markdown = write_sweep_report(trained).markdown
    values: dict[str, dict[int, float]] = {"LSGAN": {}, "Hinge": {}}
    for run in trained.glob("*_*"):
        rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        plain = yaml.safe_load((run / "config.yaml").read_text())
        last = [row["metric/pattern_distance"] for row in rows if "metric/pattern_distance" in row][-1]
        values[plain["loss"]["_target_"].rpartition(".")[2]][plain["seed"]] = last
    for loss, by_seed in values.items():
        mean, half = sum(by_seed.values()) / 3, stats.t.ppf(0.975, 2) * stats.sem([*by_seed.values()])
        ends = [f"{by_seed[seed]:.4g} (seed {seed})" for seed in sorted(by_seed, key=by_seed.__getitem__)[::2]]
        assert [f"loss={loss}", f"{mean:.4g} ± {half:.4g}", "3", *ends, ""] in lines(markdown, "loss=")
    for line in table(trained):
        assert float(line["metric/pattern_distance"]) in values[line["loss"]].values()


def test_a_planted_difference_is_called_one(tmp_path):
    make_sweep(tmp_path / "s", {"lsgan": {0: 1.0, 1: 1.2, 2: 0.9}, "hinge": {0: 3.1, 1: 3.2, 2: 3.0}})
    markdown = write_sweep_report(tmp_path / "s").markdown
    assert (
        "loss=lsgan with 1.033 ± 0.3795 (n 3) comes first. Its lead is larger than chance over loss=hinge." in markdown
    )
    ((_, gap, p, adjusted, pairs, verdict),) = lines(markdown, "loss=lsgan − loss=hinge")
    assert float(p) == pytest.approx(stats.ttest_rel([1.0, 1.2, 0.9], [3.1, 3.2, 3.0]).pvalue, rel=0.05)
    assert (gap.split()[0], adjusted, pairs, verdict) == ("-2.067", p, "3 pairs", "yes")


def test_noise_is_not_called_a_difference(tmp_path):
    make_sweep(tmp_path / "s", {"lsgan": {0: 1.0, 1: 4.0, 2: 2.0}, "hinge": {0: 3.0, 1: 1.0, 2: 3.5}})
    markdown = write_sweep_report(tmp_path / "s").markdown
    assert "It is not told apart from loss=hinge." in markdown
    assert lines(markdown, "loss=lsgan − loss=hinge")[0][-1] == "not told apart"


def test_one_seed_has_no_interval_and_differs_from_nothing(tmp_path):
    make_sweep(tmp_path / "s", {"lsgan": {0: 1.0}, "hinge": {0: 300.0}})
    markdown = write_sweep_report(tmp_path / "s").markdown
    assert lines(markdown, "loss=lsgan")[0][1:3] == ["1", "1"]
    assert "Too few seeds tell whether it differs from loss=hinge." in markdown
    assert "larger than chance" not in markdown


def test_what_is_undefined_is_counted(tmp_path):
    make_sweep(tmp_path / "s", {"lsgan": {0: 1.0, 1: None, 2: 3.0}, "hinge": {0: None}})
    markdown = write_sweep_report(tmp_path / "s").markdown
    assert lines(markdown, "loss=lsgan")[0] == [
        "loss=lsgan", "2 ± 12.71", "2", "1 (seed 0)", "3 (seed 2)", "1 undefined"
    ]  # fmt: skip
    assert lines(markdown, "loss=hinge")[0] == ["loss=hinge", "undefined", "0", "", "", "1 undefined"]
    assert [line["metric/fid"] for line in table(tmp_path / "s")] == ["1.0", "nan", "3.0", "nan"]


def test_runs_that_were_measured_otherwise_stand_apart(tmp_path):
    same = {"fid": 1.0}
    make_run(tmp_path / "a0", same, seed=0)
    make_run(tmp_path / "a1", same, seed=1)
    make_run(tmp_path / "other_data", same, fingerprint="0" * 64)
    make_run(tmp_path / "other_extractor", same, extractor="0" * 64)
    make_run(tmp_path / "other_number", same, "metric.pattern.samples=50")
    make_run(tmp_path / "other_steps", same, "trainer.steps=200", status={"state": "completed", "step": 200})
    markdown = write_sweep_report(tmp_path).markdown
    assert "not all comparable (data, extractor, metrics, steps), and stand in 5 tables" in markdown
    assert "repeated" not in markdown
    answers = [line for line in markdown.splitlines() if line.startswith("## Answer")]
    assert len(answers) == 5
    assert sum("steps 200" in line for line in answers) == 1
    assert [row[2] for row in lines(markdown, "samples=") if "±" in row[1]] == ["2"]


def test_where_data_lie_and_on_what_they_were_computed_makes_no_other_configuration(tmp_path):
    for seed, words in enumerate([["device=cpu"], ["device=auto"], ["name=other"], ["trust=[mine]"]]):
        make_run(tmp_path / str(seed), {"fid": float(seed)}, *words, seed=seed)
    assert lines(write_sweep_report(tmp_path).markdown, "this configuration")[0][2] == "4"


def test_a_repeated_seed_counts_once(tmp_path):
    make_run(tmp_path / "2026-01-01", {"fid": 1.0})
    make_run(tmp_path / "2026-01-02", {"fid": 2.0})
    make_run(tmp_path / "2026-01-03", {"fid": 4.0}, seed=1)
    found = lines(write_sweep_report(tmp_path).markdown, "this configuration")[0]
    assert (found[1].split()[0], found[2], found[-1]) == ("3", "2", "1 repeated")


def test_runs_that_did_not_complete_are_told_with_their_reasons_and_count_in_no_mean(tmp_path):
    make_run(tmp_path / "a", {"fid": 1.0})
    for seed, (state, why) in enumerate([("failed", "no | such luck"), ("diverged", "nan"), ("interrupted", None)], 1):
        told = {"state": state, "step": 70, "message": why}
        make_run(tmp_path / state, {"fid": 900.0}, seed=seed, status=told)
    markdown = write_sweep_report(tmp_path).markdown
    assert "4 runs: 1 completed, 1 interrupted, 1 failed, 1 diverged." in markdown
    assert lines(markdown, "this configuration")[0][1:3] == ["1", "1"]
    assert lines(markdown, "this configuration")[0][-1] == "1 diverged, 1 failed, 1 interrupted"
    assert "| failed      | failed      | 70   | no \\| such luck" in markdown
    assert lines(markdown, "diverged")[0][1:] == ["diverged", "70", "nan"]


def test_a_run_that_was_killed_does_not_go_on_running(tmp_path):
    make_run(tmp_path / "killed", {"fid": 1.0}, status={"state": "running", "step": 0})
    make_run(tmp_path / "running", {"fid": 1.0}, status={"state": "running", "step": 0})
    held = RunDirectory(tmp_path / "running")
    markdown = write_sweep_report(tmp_path).markdown
    held.close()
    assert "2 runs: 1 running, 1 interrupted." in markdown
    assert lines(markdown, "killed")[0][-1] == "it was killed"
    assert lines(markdown, "running")[1][:2] == ["running", "100 of 100"]


def test_a_sweep_at_work_shows_where_it_stands(tmp_path):
    make_run(tmp_path / "loss-lsgan_seed-0", {"fid": 1.0}, "loss=lsgan")
    running = make_run(tmp_path / "loss-hinge_seed-0", {"fid": 5.0}, "loss=hinge")
    (running / "status.json").unlink()
    jobs = {
        "loss-lsgan_seed-0": job({"loss": "lsgan", "seed": "0"}, "completed", 100),
        "loss-hinge_seed-0": job({"loss": "hinge", "seed": "0"}, "running", 0),
        "loss-hinge_seed-1": job({"loss": "hinge", "seed": "1"}, "waiting", 0),
        "loss-hinge_seed-2": job({"loss": "hinge", "seed": "2"}, "refused", 0, "out of memory"),
    }
    (tmp_path / "loss-hinge_seed-2").mkdir()
    (tmp_path / "loss-hinge_seed-2" / "log.txt").write_text("error: out of memory\n")
    markdown = write_sweep_report(write_sweep(tmp_path, jobs)).markdown
    assert "None has completed of loss=hinge." in markdown
    assert "4 runs: 1 completed, 1 running, 1 waiting, 1 refused." in markdown
    assert lines(markdown, "loss-hinge_seed-0")[0] == ["loss-hinge_seed-0", "100 of 100", "2.0 s", "metric/fid 5"]
    assert lines(markdown, "loss-hinge_seed-2")[0][-1] == "out of memory"
    assert [line["state"] for line in table(tmp_path)] == ["completed", "running", "waiting", "refused"]


def test_a_completed_job_whose_directory_is_gone_is_told(tmp_path):
    sweep = make_sweep(tmp_path / "s", {"lsgan": {0: 1.0, 1: 2.0}})
    shutil.rmtree(sweep / "loss-lsgan_seed-1")
    markdown = write_sweep_report(sweep).markdown
    assert lines(markdown, "loss-lsgan_seed-1")[0] == ["loss-lsgan_seed-1", "lost", "100", "its directory is gone"]
    assert lines(markdown, "loss=lsgan")[0][-1] == "1 lost"


def test_an_objective_that_was_chosen_is_also_shown_at_its_best(tmp_path):
    sweep = make_sweep(tmp_path / "s", {"lsgan": {0: 7.0, 1: 9.0}}, "trainer.objective=metric/fid")
    for path in sweep.glob("*/evaluation.json"):
        found = json.loads(path.read_text())
        found["objective"] |= {"value": found["objective"]["value"] - 4}
        path.write_text(json.dumps(found))
    markdown = write_sweep_report(sweep).markdown
    assert "**metric/fid (smaller is better; a perfect sampler 0.1; N 1,000; digits abababab)**" in markdown
    assert "**metric/fid, at its best on the way (smaller is better; " in markdown
    assert [row[1].split()[0] for row in lines(markdown, "loss=lsgan")] == ["8", "4"]


def test_the_effect_of_a_key_is_the_mean_over_the_combinations_of_the_others(tmp_path):
    for loss, at_loss in (("lsgan", 0.0), ("hinge", 10.0)):
        for batch, at_batch in ((16, 0.0), (32, 3.0)):
            for seed in range(2):
                words = [f"loss={loss}", f"trainer.batch_size={batch}"]
                make_run(tmp_path / f"{loss}{batch}{seed}", {"fid": at_loss + at_batch + seed}, *words, seed=seed)
    make_run(tmp_path / "alone", {"fid": 1000.0}, "loss=lsgan", "trainer.batch_size=64")  # of no value's shared choices
    markdown = write_sweep_report(tmp_path).markdown
    effects = markdown.partition("## The effect of each swept key")[2]
    assert lines(effects, "loss=LSGAN")[0] == ["loss=LSGAN", "2 ± 6.353", "2", "2"]
    assert lines(effects, "loss=Hinge")[0] == ["loss=Hinge", "12 ± 6.353", "2", "2"]
    shutil.rmtree(tmp_path / "alone")
    effects = write_sweep_report(tmp_path).markdown.partition("## The effect of each swept key")[2]
    assert lines(effects, "trainer.batch_size=16")[0] == ["trainer.batch_size=16", "5.5 ± 6.353", "2", "2"]
    assert lines(effects, "trainer.batch_size=32")[0] == ["trainer.batch_size=32", "8.5 ± 6.353", "2", "2"]


def test_findings_of_the_doctor_are_added_up(tmp_path):
    found = {"name": "mode_collapse", "step": 90, "evidence": "two of eight", "cause": "G wins", "try": ["seed=1"]}
    sick = {"step": 100, "verdict": "mode_collapse", "findings": [{**found, "resolved": None}]}
    make_run(tmp_path / "a", {"fid": 1.0}, health=sick)
    make_run(tmp_path / "b", {"fid": 1.0}, seed=1, health=sick)
    make_run(tmp_path / "c", {"fid": 1.0}, seed=2)
    markdown = write_sweep_report(tmp_path).markdown
    assert "Verdicts: mode collapse: 2; healthy: 1." in markdown
    assert lines(markdown, "mode collapse")[0] == ["mode collapse", "2", "two of eight (step 90)", "G wins", "a and b"]


def test_what_was_common_stands_on_the_page_and_the_command_everywhere(tmp_path):
    written = write_sweep_report(make_sweep(tmp_path / "s", {"lsgan": {0: 1.0}, "hinge": {0: 2.0}}))
    page = written.page.read_text()
    for text in ("c0ffee" * 6, "9.8.7", "trainer.batch_size", "gan-train -m loss=lsgan,hinge seed=0,1,2"):
        assert text in page
    assert "gan-train -m loss=lsgan,hinge seed=0,1,2" in written.markdown
    assert (tmp_path / "s" / "report.md").read_text() == written.markdown
    assert "Learning curves" in page
    assert "Learning curves" not in written.markdown


def test_a_run_that_cannot_be_read_is_told_and_hides_no_other(typed, tmp_path):
    make_run(tmp_path / "s" / "good", {"fid": 1.0})
    make_run(tmp_path / "s" / "bad", {"fid": 1.0}, seed=1)
    (tmp_path / "s" / "bad" / "metrics.jsonl").write_text("nonsense\n")
    make_run(tmp_path / "s" / "huge", {"fid": 1.0}, seed=2)
    (tmp_path / "s" / "huge" / "metrics.jsonl").write_text(f'{{"step": 1{"0" * 400}}}\n')
    ended = typed(f"runs={tmp_path / 's'}", command="report")
    assert ended.status == 1
    assert "3 runs: 1 completed, 2 cannot be read." in ended.out
    assert "error: " in ended.err
    assert "line 1 is no row of metrics" in ended.err


def test_mistakes_are_refused_in_one_line(refused, tmp_path):
    (tmp_path / "empty").mkdir()
    assert "name one run directory with run=…" in refused(command="report")
    assert "name one run directory" in refused("run=a", "runs=b", command="report")
    assert "there is no run directory in it" in refused(f"runs={tmp_path / 'empty'}", command="report")
    assert "is no run directory" in refused(f"run={tmp_path / 'empty'}", command="report")
    assert "did you mean 'runs'?" in refused("runns=a", command="report")


def test_names_in_sweep_json_lead_nowhere_else(tmp_path):
    make_run(tmp_path / "elsewhere", {"fid": 1.0})
    for name in ("../elsewhere", "..", ".", "a/b", "", "a\n"):
        write_sweep(tmp_path / "s", {name: job({"loss": "lsgan", "seed": "0"}, "completed", 100)})
        with pytest.raises(UserError, match=r"sweep\.json"):
            write_sweep_report(tmp_path / "s")


def test_a_report_is_not_written_through_a_link(tmp_path):
    make_run(tmp_path / "s" / "a", {"fid": 1.0})
    (tmp_path / "mine").write_text("precious")
    (tmp_path / "s/report.html").symlink_to(tmp_path / "mine")
    with pytest.raises(UserError, match="is a link"):
        write_sweep_report(tmp_path / "s")
    assert (tmp_path / "mine").read_text() == "precious"


def test_jobs_whose_configuration_was_refused_need_none(tmp_path):
    make_run(tmp_path / "loss-lsgan_seed-0", {"fid": 1.0}, "loss=lsgan")
    jobs = {"loss-lsgan_seed-0": job({"loss": "lsgan", "seed": "0"}, "completed", 100)}
    for number, plain in enumerate([{}, {"trainer": "what"}, {"trainer": {"steps": "x"}, "seed": [1]}, config()]):
        for state in ("refused", "running", "completed"):
            swept = {"loss": "lsgan", "seed": "9"}
            jobs[f"{state}-{number}"] = job(swept, state, 0, "no such key") | {"config": plain}
    markdown = write_sweep_report(write_sweep(tmp_path, jobs)).markdown
    assert "13 runs: 1 completed, 4 running, 4 refused, 4 lost." in markdown
