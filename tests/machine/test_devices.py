import pytest
import torch

from gan_runner.config.schema import Device
from gan_runner.errors import UserError
from gan_runner.machine.devices import check_device, process_count
from gan_runner.status import Status
from tests.training import TINY, status, train


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def device(kind, **keys) -> Device:
    values = {"device_ids": None, "processes": None, "sync_batchnorm": False, "hold_dataset": False} | keys
    return Device(kind=kind, **values)


@pytest.mark.parametrize(
    ("chosen", "sentence"),
    [
        (device("cuda"), "device=cuda: this machine has no CUDA GPU; use device=cpu or device=auto"),
        (device("mps"), "device=mps: this machine has no Apple GPU"),
        (device("cuda", device_ids=[0]), "device=cuda: this machine has no CUDA GPU"),
        (device("auto", device_ids=[1]), r"device.device_ids=\[1\]: 1 is not there"),
        (device("ddp", processes=3), "trainer.batch_size=64: 3 processes cannot share it evenly"),
        (device("ddp", processes=2, sync_batchnorm=True), "device.sync_batchnorm=true: works on GPUs alone"),
    ],
)
def test_what_this_machine_cannot_do_is_refused(chosen, sentence, monkeypatch):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(UserError, match=sentence):
        check_device(chosen, batch_size=64)


@pytest.mark.parametrize("kind", ["auto", "cpu", "data_parallel", "ddp"])
def test_what_runs_anywhere_is_not(kind):
    check_device(device(kind), batch_size=64)


def test_several_processes_of_torchrun_need_ddp(monkeypatch):
    for name, value in {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match="device=cpu: torchrun started 2 processes; to share a run: device=ddp"):
        check_device(device("cpu"), batch_size=64)
    with pytest.raises(UserError, match=r"trainer\.batch_size=7: 2 processes cannot share it evenly"):
        check_device(device("ddp"), batch_size=7)


def test_ddp_starts_one_process_where_nothing_else_is_said():
    assert process_count(device("ddp")) == 1
    assert process_count(device("ddp", processes=3)) == 3
    assert process_count(device("ddp", device_ids=[0, 2])) == 2


def test_data_parallel_without_a_gpu_runs_on_the_cpu_and_says_so(tmp_path, capsys):
    assert train(tmp_path / "run", *TINY, "trainer.steps=2", "device=data_parallel") == Status.COMPLETED
    said = capsys.readouterr().err
    assert said.count("device=data_parallel: this machine has no CUDA GPU; running on the CPU") == 1
    assert status(tmp_path / "run")["state"] == "completed"
