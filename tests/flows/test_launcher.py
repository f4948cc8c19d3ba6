"""How a flow's command line begins and ends: runs that cannot be resumed, failures, signals, many shards."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml
from metaflow.plugins.datastores.local_storage import LocalStorage

import launcher
from components.store import s3_client
from support.flows.signals import HEARING
from support.flows.wind_runs import FLOW, SMOKE, preset

pytestmark = pytest.mark.thorough


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with a local datastore that has a run 12 of WindFlow, and the working directory there."""
    (tmp_path / ".metaflow" / "WindFlow" / "12" / "_parameters" / "1").mkdir(parents=True)
    monkeypatch.setattr(LocalStorage, "datastore_root", None)
    monkeypatch.setattr(LocalStorage, "SYSROOT_VAR", None)
    monkeypatch.setattr("metaflow.metaflow_config.DEFAULT_DATASTORE", "local")
    monkeypatch.setattr(sys, "argv", [str(FLOW)])
    monkeypatch.chdir(tmp_path)
    return tmp_path


def resume(words):
    launcher.check_resume("WindFlow", ["resume", *words.split()])


def test_a_run_that_is_there(place):
    resume("--origin-run-id 12")
    (place / "deep" / "er").mkdir(parents=True)
    os.chdir(place / "deep" / "er")
    resume("--origin-run-id=12 --max-workers 2")
    (place / ".metaflow" / "WindFlow" / "latest_run").write_text("12")
    resume("")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--origin-run-id 13", r"WindFlow has no run 13 in the local datastore .*\.metaflow\. .* \(or set METAFLOW_"),
        ("--origin-run-id WindFlow/12", rf"number alone:\n  python {re.escape(str(FLOW))} resume --origin-run-id 12$"),
        ("--origin-run-id CompareFlow/9", r"number alone:\n  python \S+/compare_flow\.py resume --origin-run-id 9$"),
        ("", "is required, no run of WindFlow was started"),
    ],
)
def test_a_run_that_is_not(place, words, message):
    with pytest.raises(launcher.ResumeError, match=f"^--origin-run-id: .*{message}"):
        resume(words)


def test_another_flows_run(place):
    (place / ".metaflow" / "CompareFlow" / "9" / "_parameters" / "1").mkdir(parents=True)
    with pytest.raises(launcher.ResumeError, match=r"9 is a run of CompareFlow, not of WindFlow:\n  python \S+/com"):
        resume("--origin-run-id 9")


def test_another_directory(place, tmp_path_factory):
    os.chdir(tmp_path_factory.mktemp("elsewhere"))
    with pytest.raises(launcher.ResumeError, match=r"has no run 12 .* go to the directory that the flow was run in"):
        resume("--origin-run-id 12")
    assert not Path(".metaflow").exists()


def test_a_stale_latest_run(place):
    (place / ".metaflow" / "WindFlow" / "latest_run").write_text("11")
    with pytest.raises(launcher.ResumeError, match="has no run 11"):
        resume("")


def test_options_that_a_resume_needs_again():
    words = "--no-pylint --datastore s3 --metadata=service --config config a.yaml run --max-workers 2"
    assert launcher.kept_options(words.split()) == ["--datastore", "s3", "--metadata=service"]


def test_the_folder_is_named_where_the_runs_are_found_only_there(place, monkeypatch):
    monkeypatch.setattr("metaflow.metaflow_config.DATASTORE_SYSROOT_LOCAL", None)
    monkeypatch.delenv(launcher.LOCAL_ROOT, raising=False)
    monkeypatch.delenv(launcher.LAUNCHER, raising=False)
    assert (launcher.script(), launcher.run_folder()) == ("flows/wind_flow.py", None)  # a pod's folders are nobody's
    monkeypatch.setenv(launcher.LAUNCHER, "1")
    assert (launcher.script(), launcher.run_folder()) == (str(FLOW), str(place))
    monkeypatch.setenv(launcher.LOCAL_ROOT, str(place))
    assert launcher.run_folder() is None


@pytest.fixture
def begin(tmp_path, flow_env):
    """`begin(config)`: the launcher of a run in a folder of its own, with TMPDIR in it; found only from there."""
    own = {**os.environ, **flow_env, "TMPDIR": str(tmp_path / "scratch"), "OMP_NUM_THREADS": "1"}
    del own["METAFLOW_DATASTORE_SYSROOT_LOCAL"]
    (tmp_path / "scratch").mkdir()
    (tmp_path / ".metaflow").mkdir()

    def start(config, *words, env=None):
        (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
        command = [
            *HEARING,
            sys.executable,
            str(FLOW),
            "--no-pylint",
            *(words or ("--config", "config", "config.yaml", "run")),
        ]
        pipe = subprocess.PIPE
        return subprocess.Popen(command, cwd=tmp_path, env={**(env or {}), **own}, stdout=pipe, stderr=pipe, text=True)

    return start


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_to_the_launcher_leaves_nothing_in_tmpdir(begin, tmp_path, number, wait_for):
    config = preset(iterations=1)
    config["demo"] = {**config["demo"], "steps": 1_000_000}
    scratch = tmp_path / "scratch"
    with begin(config) as process:
        wait_for(lambda: list(scratch.glob("wind-start-*/*")), seconds=120)
        process.send_signal(number)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert [path.name for path in scratch.iterdir() if path.name.startswith("wind-")] == []
    words = shlex.split(said.rpartition("To resume it where it failed:\n")[2])
    assert words[:3] == ["cd", str(tmp_path), "&&"]
    assert words[3:6] == ["python", str(FLOW), "resume"]
    assert "killed from outside" not in said


@pytest.mark.slow
def test_ctrl_c_while_a_run_is_imported(tmp_path, flow_env, wait_for):
    """`wind run` has become the flow, whose imports take seconds; these end first."""
    command = [*HEARING, sys.executable, "-m", "components.cli", "run", "--config", str(SMOKE)]
    env, pipe = {**os.environ, **flow_env}, subprocess.PIPE
    with subprocess.Popen(command, cwd=tmp_path, env=env, stdout=pipe, stderr=pipe, text=True) as process:
        wait_for(lambda: FLOW.name in Path(f"/proc/{process.pid}/cmdline").read_text(), seconds=120)
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=120) == ("", "interrupted\n")
    assert process.returncode == 130


@pytest.mark.slow
def test_what_a_user_can_put_right_comes_without_a_traceback_and_with_a_new_run(begin, tmp_path):
    (tmp_path / "prompts.jsonl").write_text('{"answer": "3 4"}\n')
    judge = {"name": "verifier", "function": "components.demo:score"}
    config = {"policy": {"model": "none"}, "prompts": {"train": "prompts.jsonl"}, "judge": judge}
    with begin(config) as process:
        out, said = process.communicate(timeout=120)
    assert "policy.model: 'none' is neither a directory here" in out + said
    assert "Traceback" not in out + said
    lines = [line.strip() for line in said.splitlines() if line.startswith("  cd ")]
    assert lines[0] == f"cd {tmp_path} && python {FLOW} --no-pylint --config config config.yaml run"
    assert lines[1].startswith(f"cd {tmp_path} && python {FLOW} resume --origin-run-id ")
    assert "a resumed run would keep its config" in said


@pytest.mark.slow
def test_where_the_config_is_at_fault_a_new_run_alone_is_advised(begin, tmp_path):
    with begin(
        preset(iterations=1, training={"optimizer": "adamw", "lora": {"target_modules": ["nowhere"]}})
    ) as process:
        out, said = process.communicate(timeout=120)
    assert "training.lora.target_modules: 'nowhere' is no linear layer" in out + said
    assert "Traceback" not in out + said
    assert said.rstrip().endswith(f"cd {tmp_path} && python {FLOW} --no-pylint --config config config.yaml run")
    assert "resume --origin-run-id" not in said


class Expired(BaseHTTPRequestHandler):
    """Answers everything as S3 does when a session is over."""

    def refuse(self):
        body = b"<Error><Code>ExpiredToken</Code><Message>The provided token has expired.</Message></Error>"
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.send_response(400)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


for command in ("GET", "HEAD", "PUT"):
    setattr(Expired, f"do_{command}", Expired.refuse)


@pytest.mark.parametrize("words", ["run", "resume --origin-run-id 1", "argo-workflows create"])
def test_an_expired_session_is_told_at_once(begin, monkeypatch, words):
    monkeypatch.setenv("METAFLOW_DATASTORE_SYSROOT_S3", "s3://wind/metaflow")
    keys = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"]
    for name, value in {**dict.fromkeys(keys, "old"), "AWS_DEFAULT_REGION": "us-east-1"}.items():
        monkeypatch.setenv(name, value)
    with ThreadingHTTPServer(("127.0.0.1", 0), Expired) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("METAFLOW_S3_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
        process = begin({"demo": {}}, "--datastore", "s3", *words.split(), env=os.environ)
        out, said = process.communicate(timeout=60)
        server.shutdown()
    assert process.returncode == 1
    assert "error: s3://wind/wind_store: the session token is not valid, or no longer" in said
    assert "Log in again" in said
    assert "Traceback" not in out + said


@pytest.mark.s3
@pytest.mark.parametrize("there", [True, False])
def test_a_run_on_s3(begin, moto_server, use_server, there):
    """One that Metaflow's client does not know, as those that Argo started; what it holds is no artifact."""
    place = f"s3://wind/{use_server(moto_server).split('/')[3]}/metaflow"
    if there:
        where = {"Bucket": "wind", "Key": f"{place[10:]}/WindFlow/argo-1/_parameters/1/0.data.json"}
        s3_client.connect(place).put_object(**where, Body=b"{}")
    env = {**os.environ, "METAFLOW_DATASTORE_SYSROOT_S3": place, "METAFLOW_S3_WORKER_COUNT": "2"}
    with begin({"demo": {}}, "--datastore", "s3", "resume", "--origin-run-id", "argo-1", env=env) as process:
        _, said = process.communicate(timeout=120)
    assert process.returncode != 0
    assert (f"error: --origin-run-id: WindFlow has no run argo-1 in the s3 datastore {place}." in said) is not there


@pytest.mark.slow
def test_more_than_a_hundred_shards(begin, tmp_path):
    """The foreach is made; the first shard then ends the run, for all of them would take minutes."""
    config = preset(iterations=1, prompts={"held_out": 16, "per_iteration": 101, "shards": 101})
    config["demo"] = {**config["demo"], "prompts": 128}
    with begin(config) as process:
        for line in process.stdout:
            if "generate_1" in line:
                break
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=60)
    assert "num-splits" not in said
    [run] = (path for path in (tmp_path / ".metaflow" / "WindFlow").glob("[0-9]*"))
    assert (run / "generate_1").is_dir()
