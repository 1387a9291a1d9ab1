import platform

import pytest
import torch

from gan_runner.machine import precision


def warned(capsys, monkeypatch, device: str, cost: float) -> str:
    monkeypatch.setattr(precision, "_cost_of_bf16", lambda _: cost)
    precision.warn_of_emulated_bf16(torch.device(device))
    return str(capsys.readouterr().err)


def test_a_processor_that_is_faster_in_bf16_is_nothing_to_warn_of(capsys, monkeypatch):
    assert warned(capsys, monkeypatch, "cpu", 0.27) == ""


@pytest.mark.parametrize("cost", [1.33, 37.1, 841])  # measured: AVX-512 without bf16, AVX2, ARM without a backend
def test_what_emulation_costs_is_said(capsys, monkeypatch, cost):
    said = warned(capsys, monkeypatch, "cpu", cost)
    assert said.startswith("warning: trainer.precision=bf16: this machine's CPU has no bf16 arithmetic")
    assert f"takes {cost:g} times as long as in fp32" in said


@pytest.mark.parametrize("has_arithmetic", [True, False])
def test_a_gpu_is_asked_whether_it_emulates(capsys, monkeypatch, has_arithmetic):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: has_arithmetic)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Tesla T4")
    said = warned(capsys, monkeypatch, "cuda", 2.5)
    assert ("Tesla T4 has no bf16 arithmetic" in said) == (not has_arithmetic)


@pytest.mark.skipif(platform.machine() != "x86_64", reason="oneDNN can be told to forget what an x86 processor can do")
def test_a_run_says_it_before_it_starts_and_goes_on(gan_train):
    words = ("trainer.steps=1", "doctor=none", "metric=[]", "device=cpu")
    runs = {
        kind: gan_train(*words, f"trainer.precision={kind}", env={"ONEDNN_MAX_CPU_ISA": "AVX2"})
        for kind in ("bf16", "fp32")
    }
    assert {run.returncode for run in runs.values()} == {0}, runs
    assert runs["bf16"].stderr.startswith("warning: trainer.precision=bf16: this machine's CPU has no bf16 arithmetic")
    assert "bf16" not in runs["fp32"].stderr
