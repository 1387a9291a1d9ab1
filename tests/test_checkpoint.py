import hashlib
import os
import stat

import pytest
import torch
from safetensors.torch import save as save_tensors
from torch import nn

from gan_runner.errors import UserError
from gan_runner.runs import checkpoint


def state_of(value: float) -> checkpoint.Kept:
    return {"generator": {"weight": torch.full((2, 3), value)}, "step": 1}


def test_a_state_comes_back_as_it_was(tmp_path):
    network = nn.Linear(3, 2)
    adam = torch.optim.Adam(network.parameters(), fused=True)
    network(torch.ones(4, 3)).sum().backward()
    adam.step()
    state = {
        "network": dict(network.state_dict()),
        "optimizer": {"network": adam.state_dict()["state"]},
        "counts": {"epoch": 3, "best": 0.25, "name": "é", "none": None, "list": [1, 2]},
    }
    found = checkpoint.parse(checkpoint.dump(state), tmp_path)
    assert torch.equal(found["network"]["weight"], network.weight)
    assert found["counts"] == state["counts"]
    moments = found["optimizer"]["network"]
    assert moments.keys() == {"0", "1"}
    for index, moment in adam.state_dict()["state"].items():
        for name, value in moment.items():
            assert torch.equal(moments[str(index)][name], value)
            assert moments[str(index)][name].dtype == value.dtype


def test_tied_and_transposed_weights_are_kept(tmp_path):
    weight = torch.arange(6.0).view(2, 3)
    found = checkpoint.parse(checkpoint.dump({"one": weight, "tied": weight, "transposed": weight.T}), tmp_path)
    assert torch.equal(found["tied"], weight)
    assert torch.equal(found["transposed"], weight.T)


def test_the_name_tells_step_and_content(tmp_path):
    path = checkpoint.save(tmp_path, 12, state_of(1), keep=2)
    assert path.name == f"step_00000012-{hashlib.sha256(path.read_bytes()).hexdigest()[:16]}.safetensors"
    assert checkpoint.step_of(path) == 12


def test_the_newest_are_kept(tmp_path):
    for step in (900, 1000, 99_999_999, 100_000_000):
        checkpoint.save(tmp_path, step, state_of(step), keep=2)
    assert [checkpoint.step_of(path) for path in checkpoint.checkpoints(tmp_path)] == [99_999_999, 100_000_000]


def test_what_a_kill_left_half_written_goes_too(tmp_path):
    (tmp_path / ".step_00000001-0123456789abcdef.safetensors.tmp").write_bytes(b"half")
    path = checkpoint.save(tmp_path, 2, state_of(2), keep=1)
    assert list(tmp_path.iterdir()) == [path]


def test_the_newest_intact_one_is_loaded(tmp_path):
    for step in (1, 2, 3):
        checkpoint.save(tmp_path, step, state_of(step), keep=3)
    one, two, three = checkpoint.checkpoints(tmp_path)
    three.write_bytes(three.read_bytes()[:-1])
    two.write_bytes(one.read_bytes())  # intact, but not what it says it is
    step, state, damaged = checkpoint.load_newest(tmp_path)
    assert step == 1
    assert torch.equal(state["generator"]["weight"], torch.ones(2, 3))
    assert damaged == [three, two]
    one.write_bytes(b"")
    with pytest.raises(UserError, match="every checkpoint in it is damaged"):
        checkpoint.load_newest(tmp_path)


def test_without_checkpoints_a_run_is_at_step_0(tmp_path):
    assert checkpoint.load_newest(tmp_path / "checkpoints") == (0, {}, [])


def test_a_pickle_is_not_loaded(tmp_path):
    executed = tmp_path / "executed"

    class Attack:
        def __reduce__(self):
            return (os.mkdir, (str(executed),))

    torch.save({"generator": Attack()}, tmp_path / "attack")
    content = (tmp_path / "attack").read_bytes()
    digest = hashlib.sha256(content).hexdigest()[:16]
    (tmp_path / f"step_00000001-{digest}.safetensors").write_bytes(content)
    with pytest.raises(UserError, match="is no safetensors file of this program"):
        checkpoint.load_newest(tmp_path)
    assert not executed.exists()


@pytest.mark.parametrize("content", [b"", b"\xff" * 40, save_tensors({"a": torch.ones(1)}, {"values": "[1]"})])
def test_what_is_no_checkpoint_is_said_so(tmp_path, content):
    with pytest.raises(UserError, match="is no safetensors file of this program"):
        checkpoint.parse(content, tmp_path / "x.safetensors")


def test_a_write_that_fails_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    path = tmp_path / "file"
    checkpoint.write_atomically(path, b"old")

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        checkpoint.write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_of_two_that_write_a_shared_file_at_once_each_publishes_all_of_its_own(tmp_path):
    path = tmp_path / "file"

    def content():
        yield b"first "
        checkpoint.write_atomically(path, b"another's", shared=True)
        assert path.read_bytes() == b"another's"
        yield b"and last"

    checkpoint.write_atomically(path, content(), shared=True)
    assert path.read_bytes() == b"first and last"
    assert list(tmp_path.iterdir()) == [path]


def test_content_is_on_the_disk_before_it_gets_its_name(tmp_path, monkeypatch):
    path, synced = tmp_path / "file", []
    fsync = os.fsync

    def note(descriptor):
        is_file = stat.S_ISREG(os.fstat(descriptor).st_mode)
        synced.append((("file" if is_file else "directory"), path.exists()))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", note)
    checkpoint.write_atomically(path, b"new")
    assert synced == [("file", False), ("directory", True)]
