"""What a run records of its machine."""

import getpass
import platform
import socket

import torch
import transformers

from components.runtime import machine


def test_hardware_and_versions_and_no_name_of_the_machine(monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    found = machine.described()
    assert found["python"] == platform.python_version()
    assert found["torch"] == torch.__version__
    assert found["transformers"] == transformers.__version__
    assert " of " in found["hardware"]
    assert socket.gethostname() not in found["hardware"]
    assert getpass.getuser() not in found.values()


def test_gpus_are_counted_by_their_names(monkeypatch):
    names = ["NVIDIA H100", "NVIDIA A100", "NVIDIA H100"]
    monkeypatch.setattr("torch.cuda.device_count", lambda: 3)
    monkeypatch.setattr("torch.cuda.get_device_name", names.__getitem__)
    assert machine.described()["hardware"] == "2 × NVIDIA H100, 1 × NVIDIA A100"
