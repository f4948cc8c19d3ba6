"""Exports of any iteration, of failed runs, and in any type of weights."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from components.config.sections import LoraConfig, PolicyConfig
from components.export import export, main
from components.policy import findings, lora
from components.policy.model import load, save
from components.stages.runs import RunError
from components.store import LocalStore
from support.models.tiny import make_policy

pytestmark = pytest.mark.thorough

with warnings.catch_warnings():  # of Metaflow's own copy of yaml
    warnings.filterwarnings("ignore", "The _yaml extension module", DeprecationWarning)
    from metaflow.client import core
    from metaflow.plugins.datastores.local_storage import LocalStorage

# Continues from iteration 4 of another run; its third iteration fails.
FLOW = """
import json, os
from metaflow import FlowSpec, step


class Tiny(FlowSpec):
    def take(self, iteration):
        self.iteration = iteration
        for name, value in json.loads(os.environ["ARTIFACTS"])[iteration - 4].items():
            setattr(self, name, value)

    @step
    def start(self):
        self.take(4)
        self.next(self.evaluate_1)

    @step
    def evaluate_1(self):
        self.take(5)
        self.next(self.evaluate_2)

    @step
    def evaluate_2(self):
        self.take(6)
        self.next(self.evaluate_3)

    @step
    def evaluate_3(self):
        self.take(7)
        self.next(self.end)

    @step
    def end(self):
        pass


if __name__ == "__main__":
    Tiny()
"""


def policies(home):
    """A base whose files are bf16, the policy after one and, an adapter on it, after two iterations; its directory."""
    base = make_policy()
    base.model.to(torch.bfloat16).save_pretrained(home / "base")
    base.tokenizer.save_pretrained(home / "base")
    findings.write(findings.Findings(caching="equal"), home / "base")
    store = LocalStore(str(home / "wind_store"))
    stored = [store.put(home / "base")]
    trained = load(home / "base", PolicyConfig())
    with torch.no_grad():
        for parameter in trained.model.parameters():
            parameter.add_(0.013)
    stored.append(store.put(save(trained, home / "trained")))
    lora.add(trained.model, LoraConfig(rank=2), 0)
    with torch.no_grad():
        for parameter in lora.weights(trained.model).values():
            parameter.add_(0.1)
    stored.append({**stored[0], **store.put(lora.save(trained.model, home / "adapted"))})
    return stored


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    home = tmp_path_factory.mktemp("runs")
    (home / ".metaflow").mkdir()
    (home / "tiny.py").write_text(FLOW)
    stored = policies(home)
    common = {"store_root": str(home / "wind_store"), "reference": stored[0]}
    env = {**os.environ, "METAFLOW_DEFAULT_DATASTORE": "local", "METAFLOW_DEFAULT_METADATA": "local"}
    env |= {"METAFLOW_PROFILE": "", "USERNAME": "somebody", "METAFLOW_HOME": str(home)}
    env["ARTIFACTS"] = json.dumps([{"policy": policy, **common} for policy in stored])
    command = [sys.executable, "tiny.py", "--no-pylint", "run", "--run-id-file", "id"]
    done = subprocess.run(command, cwd=home, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stdout + done.stderr
    return home, f"Tiny/{(home / 'id').read_text()}"


@pytest.fixture(autouse=True)
def client(run, tmp_path, monkeypatch):
    for name, value in [("current_namespace", False), ("current_metadata", False), ("filecache", None)]:
        monkeypatch.setattr(core, name, value)
    monkeypatch.setattr(LocalStorage, "datastore_root", None)
    monkeypatch.setattr("metaflow.client.filecache.CLIENT_CACHE_PATH", str(tmp_path / "cache"))
    core.metadata(f"local@{run[0]}")
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")


def weights(directory):
    return load_file(directory / "model.safetensors")


@pytest.mark.thorough(but=["4"])
@pytest.mark.parametrize(
    ("dtype", "expected"),
    [(None, torch.bfloat16), ("bf16", torch.bfloat16), ("fp16", torch.float16), ("fp32", torch.float32)],
)
@pytest.mark.parametrize("iteration", [4, 5, 6])
def test_weights_have_the_type_of_the_base_or_the_one_asked_for(run, tmp_path, iteration, dtype, expected):
    home, name = run
    found = export(name, tmp_path / "exported", iteration=iteration, dtype=dtype)
    exported = weights(found)
    assert {tensor.dtype for tensor in exported.values()} == {expected}
    assert json.loads((found / "config.json").read_text())["dtype"] == str(expected).removeprefix("torch.")
    assert not (found / findings.FILE).exists()
    assert [path.name for path in tmp_path.iterdir() if "wind-export" in path.name] == []
    base = weights(home / "base")
    if iteration == 5:
        for key, tensor in exported.items():
            ours = base[key].float() + 0.013
            torch.testing.assert_close(tensor.float(), ours.to(expected).float(), rtol=0, atol=0)
    assert AutoModelForCausalLM.from_pretrained(found).dtype == expected


def test_an_adapter_in_fp32_is_added_up_in_fp32(run, tmp_path):
    home, name = run
    found = weights(export(name, tmp_path / "exported", iteration=6, dtype="fp32"))
    adapter, base = load_file(home / "adapted" / "adapter" / "adapter_model.safetensors"), weights(home / "base")
    layer = "model.layers.0.self_attn.q_proj"
    a, b = (adapter[f"base_model.model.{layer}.lora_{x}.weight"].double() for x in "AB")
    expected = base[f"{layer}.weight"].double() + 32 / 2 * b @ a
    torch.testing.assert_close(found[f"{layer}.weight"].double(), expected, rtol=1e-6, atol=1e-6)


def test_the_last_of_a_failed_run(run, tmp_path):
    _, name = run
    last, sixth = (export(name, tmp_path / str(i), iteration=i) for i in ("last", 6))
    assert {path.name: path.read_bytes() for path in last.iterdir()} == {
        p.name: p.read_bytes() for p in sixth.iterdir()
    }


@pytest.mark.parametrize("iteration", [0, 3, 7])
def test_an_iteration_that_is_not_there(run, tmp_path, iteration):
    with pytest.raises(RunError, match=rf"has no policy after iteration {iteration}; it has those after: 4, 5, 6\. "):
        export(run[1], tmp_path / "exported", iteration=iteration)
    assert not (tmp_path / "exported").exists()


def test_the_command_says_which_and_in_what(run, capsys):
    main([run[1], "five", "--iteration", "5"])
    assert capsys.readouterr().out.startswith(
        f"The policy after iteration 5 of {run[1]} is in five. Its weights are bfloat16, as those of the "
        "base model. It loads as any other:"
    )
    main([run[1], "last", "--iteration", "last", "--dtype", "fp32"])
    assert capsys.readouterr().out.startswith(
        f"The policy after the last whole iteration of {run[1]} is in last. Its weights are float32. "
        "It loads as any other:"
    )


@pytest.mark.parametrize("wrong", ["-1", "first", "1.5", ""])
def test_the_command_refuses_what_is_no_iteration(run, capsys, wrong):
    with pytest.raises(SystemExit):
        main([run[1], "--iteration", wrong])
    assert "is neither a number of `history` nor `last`" in capsys.readouterr().err or wrong == "-1"
