"""Manifests for Kubernetes, by its schemas, and the rights of who deploys."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from support.cloud.infra import INFRA, checked, documents, slip
from support.cloud.loopback import serving

pytestmark = pytest.mark.thorough

MANIFESTS = sorted((INFRA / "kubernetes").glob("*.yaml"))


def test_kubernetes_knows_all_of_the_manifests() -> None:
    for manifest in MANIFESTS:
        for document in documents(manifest.read_text()):
            checked(document)
            assert document["kind"] != "Secret"
    text = (INFRA / "kubernetes" / "wind.yaml").read_text()
    with pytest.raises(kubernetes_validate.ValidationError):
        for document in documents(slip(text, "verbs:", "verb:")):
            checked(document)


# What a deployer does: deploy with a schedule, deploy again, start, look, suspend, continue, terminate, delete.
DEPLOY = """
from metaflow.plugins.argo.argo_client import ArgoClient
client = ArgoClient("wind")
for _ in range(2):
    client.register_workflow_template("flow", {"metadata": {}})
    client.schedule_workflow_template("flow", "0 3 * * 1", "Europe/Berlin")
list(client.get_workflow_templates())
client.get_workflow_template("flow"), client.get_cronworkflow("flow")
client.trigger_workflow_template("flow", "user", "tester", {"seed": 1})
client.suspend_workflow("run")
client.unsuspend_workflow("waits")
client.terminate_workflow("run")
client.delete_cronworkflow("flow")
client.delete_workflow_template("flow")
"""


class Recorder(BaseHTTPRequestHandler):
    """Stands where Kubernetes' API would, has what was posted, and notes what it is asked for."""

    asked: set[tuple[str, str]]
    posted: set[str]

    def answer(self) -> None:
        path = self.path.split("?")[0]
        where = path.removeprefix("/apis/argoproj.io/v1alpha1/namespaces/wind/").split("/")
        verbs = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
        self.asked.add((where[0], verbs.get(self.command, "get" if where[1:] else "list")))
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.command == "POST":
            self.posted.add(where[0])
        missing = self.command == "GET" and where[0] not in {"workflows", *self.posted}
        body = {"metadata": {"resourceVersion": "1"}, "items": [], "status": {"finishedAt": None}, "message": "none"}
        body["spec"] = {"suspend": where[-1] == "waits"}
        self.send_response(404 if missing else 200)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = answer  # noqa: N815

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def recorder() -> Iterator[HTTPServer]:
    Recorder.asked, Recorder.posted = set(), set()
    with serving(Recorder) as server:
        yield server


def test_a_deployer_may_do_what_metaflow_does_and_no_more(recorder: HTTPServer, tmp_path: Path) -> None:
    cluster = {"name": "here", "cluster": {"server": f"http://127.0.0.1:{recorder.server_port}"}}
    context = {"name": "here", "context": {"cluster": "here", "user": "me"}}
    user = {"name": "me", "user": {}}
    config = {"clusters": [cluster], "contexts": [context], "current-context": "here", "users": [user]}
    (tmp_path / "config").write_text(yaml.safe_dump({"apiVersion": "v1", "kind": "Config", **config}))
    env = {**os.environ, "KUBECONFIG": str(tmp_path / "config"), "METAFLOW_HOME": str(tmp_path)}
    subprocess.run([sys.executable, "-c", DEPLOY], env={**env, "USERNAME": "tester"}, timeout=300, check=True)

    roles = {
        document["metadata"]["name"]: document
        for document in documents((INFRA / "kubernetes" / "wind.yaml").read_text())
        if document["kind"] == "Role"
    }
    allowed = {
        (resource, verb)
        for rule in roles["wind-deployer"]["rules"]
        if rule["apiGroups"] == ["argoproj.io"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
    # The rest is what kubectl and Argo's page do: list, watch, and delete runs.
    assert Recorder.asked <= allowed
    assert {verb for _, verb in allowed - Recorder.asked} <= {"list", "watch", "delete"}
