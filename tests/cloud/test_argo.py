"""Scheduled runs, proved without a cluster: every container of a compiled template, run here."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.cloud.deployment import CLUSTER, SECRET, TELL, deploy, in_cluster, needs_namespaces
from support.cloud.templates import UnsupportedError, filled, needs
from support.flows.flow_home import FLOW, Home, differences

STEPS = ("start", "plan-1", "generate-1", "score-1", "gather-1", "train-1", "evaluate-1", "end")

pytestmark = [pytest.mark.s3, pytest.mark.thorough]


@pytest.fixture(scope="module")
def local(tmp_path_factory) -> dict[str, Any]:
    """What a run of the same config on this machine ends with."""
    home = Home(tmp_path_factory.mktemp("local"), changes={"cluster": CLUSTER})
    return home.artifacts(home.flow("local", "run"))


@pytest.fixture
def home(tmp_path: Path, s3_server) -> Home:
    return Home(tmp_path, s3_server, changes={"cluster": CLUSTER})


@pytest.mark.slow
@pytest.mark.usefixtures("every_kill")
@needs_namespaces
def test_every_container_is_killed_once_and_the_next_goes_on(home: Home, local) -> None:
    """One kill at each kind of step, and the template's own retries bring it to the same end. Then the next run."""
    template = deploy(home)
    killed = Counter()

    def kill(name: str, attempt: int) -> float | None:
        killed[name] += attempt == 0
        return None if attempt else 0.2 if name in ("plan-1", "gather-1", "end") else 2.5

    workflow = in_cluster(home, template, "wind-1", kill=kill)
    assert workflow.run() == "Succeeded", workflow.containers[-1].log
    ended = Counter((container.template, container.status == 0) for container in workflow.containers)
    for step in STEPS:
        shards = 2 if step in ("generate-1", "score-1") else 1
        assert ended[step, True] == shards  # nothing is done twice
        assert ended[step, False] == killed[step] == shards
    assert differences(home.artifacts("argo-wind-1"), local) == []

    config = yaml.safe_load((home.folder / "config.yaml").read_text())
    (home.folder / "next.yaml").write_text(yaml.safe_dump({**config, "start_from": "latest"}))
    after = in_cluster(home, deploy(home, home.folder / "next.yaml"), "wind-2")
    assert after.run() == "Succeeded", after.containers[-1].log
    assert "Continues from WindFlow/argo-wind-1 after its iteration 1." in after.logs("start")
    assert list(home.artifacts("argo-wind-2")["history"]["iteration"]) == [1, 2]

    assert SECRET in str(workflow.secrets)
    assert find(SECRET, home, template, [*workflow.containers, *after.containers]) == []


def find(secret: str, home: Home, template: dict[str, Any], containers: list[Any]) -> list[str]:
    """Where a secret is to be read: template, logs, and all that the runs left in S3 and on this disk."""
    import boto3

    found = ["template"] if secret in json.dumps(template) else []
    found += [f"log of {container.template}" for container in containers if secret in container.log]
    found += [str(path) for path in home.folder.rglob("*") if path.is_file() and secret.encode() in path.read_bytes()]
    keys = {name.lower(): home.env[name] for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")}
    bucket = boto3.resource("s3", endpoint_url=home.env["METAFLOW_S3_ENDPOINT_URL"], **keys).Bucket("wind")
    prefix = home.env["METAFLOW_DATASTORE_SYSROOT_S3"].removeprefix("s3://wind/").removesuffix("/metaflow")
    objects = list(bucket.objects.filter(Prefix=prefix))
    assert objects
    return found + [item.key for item in objects if secret.encode() in readable(item.get()["Body"].read())]


def readable(content: bytes) -> bytes:
    """As Metaflow stores artifacts and code: compressed."""
    import gzip

    return gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content


@pytest.mark.slow
@pytest.mark.usefixtures("every_kill")
@needs_namespaces
def test_a_run_that_fails_for_good_says_so_and_is_resumed_on_this_machine(home: Home, local, webhook) -> None:
    template = deploy(home, METAFLOW_ARGO_WORKFLOWS_CAPTURE_ERROR_SCRIPT=TELL)
    secrets = {"hub": {"WEBHOOK": webhook.address}}
    kill = {"kill": lambda name, _: 0.0 if name == "train-1" else None}
    workflow = in_cluster(home, template, "wind-1", secrets=secrets, **kill)
    assert workflow.run() == "Failed"
    ended = Counter((container.template, container.status == 0) for container in workflow.containers)
    assert ended["train-1", False] == 1 + CLUSTER["retries"]
    assert ended["error-msg-capture-hook", True] == 1
    assert webhook.posted == [{"text": "wind-1: train-1: Error (exit code 137)"}]
    run = home.flow("s3", "resume", "--origin-run-id", "argo-wind-1")
    (cloned,) = home.tasks([run])
    assert {name for name, was_cloned in cloned.items() if not was_cloned} == {"train_1", "evaluate_1", "end"}
    assert differences(home.artifacts(run), local) == []


@pytest.mark.slow
@pytest.mark.usefixtures("every_kill")
@needs_namespaces
def test_the_demo_in_containers_equals_the_demo_on_this_machine(tmp_path: Path, s3_server) -> None:
    home = Home(tmp_path, s3_server)
    (tmp_path / "config.yaml").write_text((FLOW.parent / "configs" / "demo.yaml").read_text())
    expected = home.artifacts(home.flow("local", "run"))
    workflow = in_cluster(home, deploy(home), "demo")
    assert workflow.run() == "Succeeded", workflow.containers[-1].log
    assert len(expected["history"]) == 3
    assert differences(home.artifacts("argo-demo"), expected) == []


# The executor itself


def test_an_unresolved_placeholder_is_an_error() -> None:
    assert filled("a-{{b}}", {"b": "c"}) == "a-c"
    with pytest.raises(AssertionError, match=r"\{\{d\}\} is not resolved"):
        filled("a-{{d}}", {"b": "c"})


def test_what_it_does_not_know_is_an_error() -> None:
    assert needs({"name": "a", "depends": "b.Succeeded && c-1.Succeeded"}) == {"b", "c-1"}
    with pytest.raises(UnsupportedError):
        needs({"name": "a", "depends": "b.Succeeded || c.Failed"})
