"""Flows as they are deployed to Argo: the compiled template, and a run of it on this machine."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from support.cloud.argo import Workflow
from support.flows.flow_home import FLOW, ROOT, Ended, Home

CLUSTER = {
    "image": "wind:1",
    "service_account": "wind",
    "secrets": ["hub"],
    "project": "wind",
    "schedule": {"cron": "0 3 * * *", "timezone": "Europe/Berlin"},
    "minutes_between_retries": 0,
    "retries": 2,
    "steps": {"train": {"shared_memory": 1024, "node_selector": {"pool": "gpu"}}},
}
SECRET = "planted-6f1d2c"  # of the secret "hub"

GUIDE = (ROOT / "infra" / "README.md").read_text()
TELL = re.findall(r"^export METAFLOW_ARGO_WORKFLOWS_CAPTURE_ERROR_SCRIPT='(.*?)'$", GUIDE, flags=re.M | re.S)[0]

needs_namespaces = pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("unshare"), reason="containers get a /mnt of their own, which needs root"
)


def create(home: Home, config: Path | None = None, flow: Path = FLOW, **env: str) -> Ended:
    """`argo-workflows create --only-json`."""
    top = ["--no-pylint", "--datastore", "s3", "--config", "config", str(config or home.folder / "config.yaml")]
    # With the project's root on its path, Metaflow packs the metadata of an editable install, in half.
    env = {"METAFLOW_KUBERNETES_NAMESPACE": "wind", **env, "PYTHONPATH": str(FLOW.parent)}
    return home.command(str(flow), *top, "argo-workflows", "create", "--only-json", **env)


def deploy(home: Home, config: Path | None = None, flow: Path = FLOW, **env: str) -> dict[str, Any]:
    """What `argo-workflows create` would send to the cluster."""
    ended = create(home, config, flow, **env)
    assert ended.status == 0, ended.stderr
    template: dict[str, Any] = json.loads(ended.stdout)
    return template


def in_cluster(home: Home, template: dict[str, Any], name: str, **options: Any) -> Workflow:
    """A run of the template; all containers share the home's metadata, as they would share a metadata service."""
    passed = [name for name in home.env if name.startswith(("AWS_", "OMP_", "COVERAGE_", "METAFLOW_S3_WORKER"))]
    environment = {
        **{name: home.env[name] for name in passed},
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "HOME": str(home.folder),
        "METAFLOW_SKIP_INSTALL_DEPENDENCIES": "1",  # an image has them
        "METAFLOW_DATASTORE_SYSROOT_LOCAL": str(home.folder),
    }
    folder = home.folder / name
    folder.mkdir()
    options.setdefault("secrets", {"hub": {"HF_TOKEN": SECRET}})
    return Workflow(template, name, folder, environment, **options)
