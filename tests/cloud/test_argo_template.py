"""What `argo-workflows create` makes of a config: a template that Argo knows all of, and is able to keep."""

from __future__ import annotations

import json
import re
import tarfile
from io import BytesIO
from pathlib import Path
from typing import Any

import boto3
import pytest
import yaml
from pydantic import ValidationError

from support.cloud.controller import check
from support.cloud.deployment import CLUSTER, GUIDE, SECRET, create, deploy
from support.cloud.templates import accepted, compact
from support.flows.flow_home import FLOW, Home

pytestmark = [pytest.mark.s3, pytest.mark.thorough]

PRESETS = sorted((FLOW.parent / "configs").glob("*.yaml"))
COMPARISON = FLOW.with_name("compare_flow.py")
KEPT = 1 << 20  # bytes; Argo keeps no larger run
STATUS = 200  # bytes of it for each task: its retries, inputs, outputs and times, compressed and in base64


@pytest.fixture
def home(tmp_path: Path, s3_server) -> Home:
    return Home(tmp_path, s3_server, changes={"cluster": CLUSTER})


@pytest.fixture(scope="module")
def smoke(tmp_path_factory: pytest.TempPathFactory, s3_server) -> dict[str, Any]:
    """The template of one iteration."""
    return deploy(Home(tmp_path_factory.mktemp("smoke"), s3_server, changes={"cluster": CLUSTER}))


def changed(home: Home, **values: Any) -> None:
    """Sets values at the top of the home's config."""
    config = yaml.safe_load((home.folder / "config.yaml").read_text())
    (home.folder / "config.yaml").write_text(yaml.safe_dump({**config, **values}))


def templates(workflow: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {template["name"]: template for template in workflow["spec"]["templates"]}


def test_what_the_config_says_is_in_the_template(smoke) -> None:
    workflow = json.loads(compact(smoke))
    assert workflow["metadata"]["annotations"]["metaflow/cron"] == '{"schedule": "0 3 * * *", "tz": "Europe/Berlin"}'
    train, plan = (templates(workflow)[name] for name in ("train-1", "plan-1"))
    assert train["nodeSelector"] == {"pool": "gpu"}
    assert {"name": "dhsm", "emptyDir": {"sizeLimit": "1024Mi", "medium": "Memory"}} in train["volumes"]
    assert not plan.get("nodeSelector")
    for one in (train, plan):
        assert one["container"]["image"] == "wind:1"
        assert one["serviceAccountName"] == "wind"
        assert one["retryStrategy"]["limit"] == 2
        assert one["activeDeadlineSeconds"] == 72 * 3600
        assert one["container"]["envFrom"] == [{"secretRef": {"name": "hub"}}]


def test_containers_have_no_rights_that_a_restricted_namespace_refuses(smoke, home: Home) -> None:
    """What the standard asks of a container (kubernetes.io, Pod Security Standards, restricted)."""
    wanted = {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "runAsNonRoot": True,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    of = templates(json.loads(compact(smoke)))
    steps = ["start", "plan-1", "generate-1", "score-1", "gather-1", "train-1", "evaluate-1", "end"]
    assert [of[name]["container"].get("securityContext") for name in steps] == [wanted] * len(steps)
    changed(home, cluster={**CLUSTER, "root": True})
    of = templates(json.loads(compact(deploy(home))))
    assert of["train-1"]["container"]["securityContext"] == {**wanted, "runAsNonRoot": False}


@pytest.mark.parametrize(
    "env", [{"METAFLOW_SERVICE_AUTH_KEY": SECRET}, {"METAFLOW_SERVICE_HEADERS": f'{{"x-api-key": "{SECRET}"}}'}]
)
def test_the_key_of_the_metadata_service_does_not_reach_the_template(home: Home, env: dict[str, str]) -> None:
    refused = create(home, **env)
    assert refused.status == 1
    assert "METAFLOW_SERVICE_AUTH_KEY: would stand in the deployed template" in refused.stderr
    assert "name that in cluster.secrets" in refused.stderr
    assert SECRET not in refused.stdout + refused.stderr


def test_the_judge_and_the_prompts_are_in_the_code_package(home: Home, s3_server) -> None:
    """Beside the flow's file, where a pod works."""
    files = {
        "prompts.jsonl": '{"prompt": "sort 2 1"}\n',
        "my_judge.py": "import helper\n\n\ndef score(response, prompt):\n    return helper.length(response)\n",
        "helper.py": "def length(response):\n    return len(response)\n",
    }
    for name, text in files.items():
        (home.folder / name).write_text(text)
    judge = {"name": "verifier", "function": "my_judge:score"}
    values = {"policy": {"model": "some/model"}, "prompts": {"train": "prompts.jsonl"}, "judge": judge}
    (home.folder / "config.yaml").write_text(yaml.safe_dump({**values, "iterations": 1, "cluster": CLUSTER}))
    start = templates(deploy(home))["start"]
    [address] = [one["value"] for one in start["container"]["env"] if one["name"] == "METAFLOW_CODE_URL"]
    bucket, _, key = address.removeprefix("s3://").partition("/")
    keys = {name.lower(): s3_server.env[name] for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")}
    s3 = boto3.client("s3", endpoint_url=s3_server.endpoint, region_name="us-east-1", **keys)
    with tarfile.open(fileobj=BytesIO(s3.get_object(Bucket=bucket, Key=key)["Body"].read())) as package:
        held = {name: package.extractfile(name).read().decode() for name in files}
        assert "wind_flow.py" in package.getnames()
    assert held == files
    (home.folder / "prompts.jsonl").unlink()
    refused = create(home)
    assert refused.status == 1
    assert "prompts.train: prompts.jsonl: there is no such file here" in refused.stderr


def test_the_steps_of_a_comparison_have_pods(home: Home) -> None:
    values = yaml.safe_load((FLOW.parent / "configs" / "compare_smoke.yaml").read_text())
    (home.folder / "config.yaml").write_text(yaml.safe_dump({**values, "cluster": CLUSTER}))
    of = templates(deploy(home, flow=COMPARISON))
    assert of["branch"]["nodeSelector"] == of["train-2"]["nodeSelector"] == {"pool": "gpu"}
    assert of["join"]["container"]["image"] == "wind:1"
    assert not of["join"].get("nodeSelector")


# Argo's own types


@pytest.mark.parametrize("preset", PRESETS, ids=lambda path: path.stem)
def test_argo_knows_all_of_a_presets_template(preset: Path, tmp_path: Path, s3_server) -> None:
    home, values = Home(tmp_path, s3_server), yaml.safe_load(preset.read_text())
    if preset.stem == "compare":
        values["iterations"] = 5  # of 14, see below
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(values))
    workflow = deploy(home, flow=COMPARISON if "compare" in values else FLOW)
    accepted(workflow)
    check(workflow)
    tasks = [task for template in templates(workflow).values() for task in (template.get("dag") or {}).get("tasks", [])]
    assert any(task.get("withParam") for task in tasks)  # the shards
    assert not any(task.get("when") for task in tasks)  # Argo hangs on the conditions of Metaflow (its issue 3043)
    assert len(compact(workflow)) < KEPT


@pytest.mark.parametrize(
    "field",
    [
        "entrypoint",
        "depends",
        "withParam",
        "retryStrategy",
        "emptyDir",
        "envFrom",
        "secretRef",
        "fieldPath",
        "requests",
    ],
)
def test_a_slip_in_a_template_is_refused(smoke, field: str) -> None:
    text = json.dumps(smoke)
    accepted(json.loads(text))
    assert f'"{field}": ' in text
    with pytest.raises(ValidationError, match=f"{field}s"):
        accepted(json.loads(text.replace(f'"{field}": ', f'"{field}s": ', 1)))


# Its size


@pytest.mark.parametrize(("iterations", "most"), [(3, 300_000), (20, 1_000_000)])
def test_size_of_a_template(home: Home, iterations: int, most: int) -> None:
    changed(home, iterations=iterations)
    assert len(compact(deploy(home))) < most


@pytest.mark.slow
def test_more_iterations_than_argo_keeps_are_refused(home: Home) -> None:
    """With what the guide's config asks for and many shards; as many as are left do fit, with all their tasks."""
    guide = re.findall(r"```yaml\n(.*?)```", GUIDE, flags=re.S)[0]
    changed(home, cluster=yaml.safe_load(guide)["cluster"], prompts={"shards": 8, "held_out": 16}, iterations=60)
    refused = create(home)
    found = re.search(r"iterations: 60 are too many for Argo Workflows.* Use (\d+) or fewer", refused.stderr)
    assert refused.status == 1
    assert found, refused.stderr
    assert "start_from: latest" in refused.stderr

    changed(home, iterations=int(found[1]) + 1)
    assert create(home).status == 1
    changed(home, iterations=int(found[1]))
    tasks = 2 + int(found[1]) * (4 + 2 * 8)
    assert 0.85 * KEPT < len(compact(deploy(home))) + tasks * STATUS < KEPT


def test_the_long_comparison_is_refused(home: Home) -> None:
    """Seven arms with five seeds, and eight tasks in each of their iterations: 3,920 for Argo to keep."""
    refused = create(home, FLOW.parent / "configs" / "compare.yaml", COMPARISON)
    assert refused.status == 1
    assert re.search(r"iterations: 14 are too many for Argo Workflows.* Use \d or fewer\. `run", refused.stderr)
