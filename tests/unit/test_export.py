import json
import os
import re
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from components.config.errors import StoreError
from components.config.sections import LoraConfig, PolicyConfig
from components.export import ExportError, export, load_snippet, main
from components.policy import lora
from components.policy.model import load
from components.stages.runs import RunError
from components.store import LocalStore
from support.models.tiny import make_policy

pytestmark = pytest.mark.thorough

with warnings.catch_warnings():  # of Metaflow's own copy of yaml
    warnings.filterwarnings("ignore", "The _yaml extension module", DeprecationWarning)
    from metaflow.client import core
    from metaflow.plugins.datastores.local_storage import LocalStorage

# Ends as WindFlow does, in a second; tests/flows exports what WindFlow itself made.
FLOW = """
import json
from metaflow import FlowSpec, Parameter, step


class Tiny(FlowSpec):
    ending = Parameter("ending")
    artifacts = Parameter("artifacts")

    @step
    def start(self):
        for name, value in json.loads(self.artifacts).items():
            setattr(self, name, value)
        self.next(self.end)

    @step
    def end(self):
        assert self.ending == "good"


if __name__ == "__main__":
    Tiny()
"""
FILES = {"config.json": b"{}", "model.safetensors": bytes(range(256)) * 9, "more/tokenizer.json": b'{"a": 1}'}
ANYBODY = {"METAFLOW_DEFAULT_DATASTORE": "local", "METAFLOW_DEFAULT_METADATA": "local", "METAFLOW_PROFILE": ""}


def store_policy(root, files):
    for name, content in files.items():
        path = root / "saved" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return LocalStore(str(root / "wind_store")).put(root / "saved")


def store_adapted(root):
    """A base in bf16 in several shards, and an adapter that does something."""
    policy = make_policy(hidden_size=64)
    policy.model.to(torch.bfloat16).save_pretrained(root / "base", max_shard_size="50KB")
    policy.tokenizer.save_pretrained(root / "base")
    lora.add(policy.model, LoraConfig(rank=2), 0)
    for parameter in lora.weights(policy.model).values():
        torch.nn.init.normal_(parameter, std=0.1, generator=torch.Generator().manual_seed(0))
    return LocalStore(str(root / "wind_store")).put(lora.save(policy.model, root / "base"))


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Home of four runs, and their ids: with a policy, failed at its end, without a policy, with an adapter."""
    home = tmp_path_factory.mktemp("runs")
    (home / ".metaflow").mkdir()
    (home / "tiny.py").write_text(FLOW)
    policy = {"policy": store_policy(home, FILES), "store_root": str(home / "wind_store")}
    env = {**os.environ, **ANYBODY, "USERNAME": "somebody", "METAFLOW_HOME": str(home)}
    adapted = {**policy, "policy": store_adapted(home)}
    started = {}
    for name, artifacts, ending in [
        *(("good", policy, "good"), ("failed", policy, "bad"), ("without", {}, "good"), ("adapted", adapted, "good"))
    ]:
        command = [sys.executable, "tiny.py", "--no-pylint", "run", "--run-id-file", name, "--ending", ending]
        command += ["--artifacts", json.dumps(artifacts)]
        started[name] = subprocess.Popen(command, cwd=home, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    for name, process in started.items():
        output = process.communicate()[0].decode()
        assert process.returncode == (name == "failed"), output
    return home, {name: (home / name).read_text() for name in started}


@pytest.fixture
def client(runs, tmp_path, monkeypatch):
    """The client in this process sees these runs, from an empty working directory; gives their pathspecs."""
    home, ids = runs
    for name, value in [("current_namespace", False), ("current_metadata", False), ("filecache", None)]:
        monkeypatch.setattr(core, name, value)
    monkeypatch.setattr(LocalStorage, "datastore_root", None)
    monkeypatch.setattr("metaflow.client.filecache.CLIENT_CACHE_PATH", str(tmp_path / "cache"))
    core.metadata(f"local@{home}")
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return {name: f"Tiny/{run}" for name, run in ids.items()}


def contents(directory):
    return {p.relative_to(directory).as_posix(): p.read_bytes() for p in directory.rglob("*") if p.is_file()}


def test_writes_the_files_of_the_policy(client, tmp_path):
    directory = tmp_path / "new" / "exported"
    assert export(client["good"], directory) == directory
    assert contents(directory) == FILES


def test_an_adapter_is_merged_into_its_base(client, runs, tmp_path):
    """The files are those of a plain model, in the base's dtype, and nothing of peft is needed to load them."""
    home, _ = runs
    directory = export(client["adapted"], tmp_path / "new" / "exported")
    assert [path.name for path in directory.parent.iterdir()] == ["exported"]
    assert not [name for name in contents(directory) if "adapter" in name]
    assert contents(directory)["tokenizer.json"] == contents(home / "base")["tokenizer.json"]
    merged = AutoModelForCausalLM.from_pretrained(directory)
    assert {p.dtype for p in merged.parameters()} == {torch.bfloat16}
    assert type(merged).__name__ == "LlamaForCausalLM"
    unmerged, base = (load(home / "base", PolicyConfig(), device=torch.device("cpu")).model for _ in "12")
    for parameter in lora.weights(base).values():
        parameter.data.zero_()
    with torch.no_grad():
        ours, theirs, without = (m(torch.arange(4, 16)[None]).logits.float() for m in (merged, unmerged, base))
    # Rounding to bf16 costs a hundredth of what the adapter does.
    assert (ours - theirs).norm() < 0.05 * (theirs - without).norm()


def test_an_empty_directory_will_do(client, tmp_path):
    (tmp_path / "empty").mkdir()
    export(client["good"], tmp_path / "empty")
    assert contents(tmp_path / "empty") == FILES


def test_the_command_writes_to_a_directory_named_after_the_run(client, capsys):
    main([client["good"]])
    run = client["good"].removeprefix("Tiny/")
    assert contents(Path(run)) == FILES
    assert capsys.readouterr().out.splitlines() == [
        f"The final policy of Tiny/{run} is in {run}. It loads as any other:",
        "",
        "from transformers import AutoModelForCausalLM, AutoTokenizer",
        f"tokenizer = AutoTokenizer.from_pretrained('{run}')",
        f"model = AutoModelForCausalLM.from_pretrained('{run}')",
    ]


def test_a_policy_with_code_of_its_own_is_loaded_with_it(tmp_path):
    (tmp_path / "modeling_own.py").touch()
    assert load_snippet(tmp_path).count("trust_remote_code=True") == 2


@pytest.mark.parametrize("taken", ["file", "directory"])
def test_overwrites_nothing(client, tmp_path, taken):
    target = tmp_path / "taken"
    if taken == "file":
        target.write_text("mine")
    else:
        target.mkdir()
        (target / "notes.txt").write_text("mine")
    with pytest.raises(ExportError, match="taken: is there already and is not an empty directory"):
        export(client["good"], target)
    assert (target if taken == "file" else target / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("pathspec", ["Tiny", "Tiny/", "/1", "", "Tiny/1/end", "Tiny/1/end/2"])
def test_refuses_what_does_not_name_a_run(client, tmp_path, pathspec):
    with pytest.raises(RunError, match=f"^'{pathspec}': does not name a run. Write FLOW/RUN, such as"):
        export(pathspec, tmp_path / "new")


@pytest.mark.parametrize("pathspec", ["Tiny/1", "Huge/1"])
def test_refuses_a_run_that_is_not_there(client, tmp_path, pathspec):
    message = f"^{pathspec}: there is no such run in the datastore that is used from {re.escape(str(Path.cwd()))}. "
    with pytest.raises(RunError, match=message):
        export(pathspec, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_run_that_failed_is_to_be_resumed(client, tmp_path):
    with pytest.raises(RunError) as error:
        export(client["failed"], tmp_path / "new")
    run = client["failed"].removeprefix("Tiny/")
    sentence, command = str(error.value).splitlines()
    assert sentence.startswith(f"Tiny/{run}: has not finished, so it has no final policy.")
    assert command == f"  python flows/tiny.py resume --origin-run-id {run}"
    assert not (tmp_path / "new").exists()


def test_refuses_a_run_without_a_policy(client, tmp_path):
    with pytest.raises(RunError, match=f"^{client['without']}: has no final policy. Name a run of WindFlow.$"):
        export(client["without"], tmp_path / "new")


def test_a_missing_weight_file_is_told(client, runs, tmp_path):
    home, _ = runs
    [blob] = [path for path in (home / "wind_store").rglob("*") if path.is_file() and path.stat().st_size == 256 * 9]
    blob.rename(blob.with_suffix(".away"))
    try:
        with pytest.raises(StoreError, match=r"^model\.safetensors: the stored .* is missing\. Restore it"):
            export(client["good"], tmp_path / "new")
    finally:
        blob.with_suffix(".away").rename(blob)
    assert not (tmp_path / "new").exists()


def test_the_module_runs_as_anybody_and_ends_without_traceback(runs):
    """Root without a user name, as in many containers, is nobody to Metaflow; the runs are somebody else's."""
    home, ids = runs
    nobody = dict.fromkeys(["METAFLOW_USER", "USERNAME", "USER", "SUDO_USER"], "")
    env = {**os.environ, **ANYBODY, **nobody, "METAFLOW_HOME": str(home)}
    command = [sys.executable, "-m", "components.export", f"Tiny/{ids['good']}", "exported"]
    results = [subprocess.run(command, cwd=home, env=env, capture_output=True, text=True, check=False) for _ in "12"]
    assert [result.returncode for result in results] == [0, 1]
    assert contents(home / "exported") == FILES
    assert results[1].stderr == "error: exported: is there already and is not an empty directory. Name a new one.\n"
