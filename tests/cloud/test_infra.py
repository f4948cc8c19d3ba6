"""Argo's values and the guide: they agree with each other, with the manifests and with the code."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import boto3
import kubernetes_validate
import pytest
import yaml
from hera.workflows import models as argo
from moto import mock_aws
from pydantic import ValidationError

from components.run_config import parse
from support.cloud.deployment import GUIDE, TELL
from support.cloud.infra import INFRA, ROOT, UNSUPPORTED, checked, documents, pod, slip, stack

pytestmark = pytest.mark.thorough

VALUES = (INFRA / "argo" / "values.yaml").read_text()
CHART = yaml.safe_load((INFRA / "argo" / "chart-keys.yaml").read_text())
CHART_NAMED_IN = ("README.md", "argo/values.yaml", "argo/chart-keys.yaml")
CONTAINERS = ("controller", "executor", "mainContainer", "server")


def check_values(values: dict[str, Any]) -> None:
    """Raises for keys that the chart, Argo or Kubernetes does not know."""
    pending = [("top", values)]
    while pending:
        level, given = pending.pop()
        assert set(given) <= set(CHART[level]), level
        inner = {f"{level}.{key}".removeprefix("top."): value for key, value in given.items()}
        pending += [(name, value) for name, value in inner.items() if name in CHART]
    for name in CONTAINERS:
        parts = {key: values[name][key] for key in ("resources", "securityContext") if key in values[name]}
        checked(pod({"containers": [{"name": "main", **parts}]}))
    defaults = {"metadata": {}, **values["controller"]["workflowDefaults"]}
    argo.Workflow.model_validate(defaults, extra="forbid", by_alias=True, by_name=False)


def test_argo_knows_all_values() -> None:
    check_values(yaml.safe_load(VALUES))


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("singleNamespace:", "singleNamespaces:"),
        ("authModes:", "authMods:"),
        ("secondsAfterSuccess:", "secondsAfterSucces:"),
        ("podMetadata:", "podMetaData:"),
        ("allowPrivilegeEscalation:", "allowPrivilegesEscalation:"),
        ("requests:", "request:"),
    ],
)
def test_a_slip_in_argos_values_is_refused(right: str, wrong: str) -> None:
    with pytest.raises((AssertionError, ValidationError, kubernetes_validate.ValidationError)):
        check_values(yaml.safe_load(slip(VALUES, right, wrong)))


@UNSUPPORTED
def test_files_agree_on_namespace_and_service_account() -> None:
    accounts = [
        (document["metadata"]["namespace"], document["metadata"]["name"])
        for document in documents((INFRA / "kubernetes" / "wind.yaml").read_text())
        if document["kind"] == "ServiceAccount"
    ]
    namespace, account = accounts[0]
    values = yaml.safe_load(VALUES)
    assert values["workflow"]["serviceAccount"]["name"] == account
    assert values["controller"]["workflowDefaults"]["spec"]["serviceAccountName"] == account
    with mock_aws():
        trust = boto3.client("iam", "us-east-1").get_role(RoleName=stack()["PodRoleArn"].split("/")[-1])
    statement = trust["Role"]["AssumeRolePolicyDocument"]["Statement"][0]
    assert statement["Principal"]["Federated"].endswith(":oidc-provider/oidc.example.com/id/1")
    assert statement["Condition"]["StringEquals"] == {
        "oidc.example.com/id/1:aud": "sts.amazonaws.com",
        "oidc.example.com/id/1:sub": f"system:serviceaccount:{namespace}:{account}",
    }


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", GUIDE, flags=re.S)


def test_the_guides_configs_are_valid() -> None:
    own, demo = blocks("yaml")
    task = "policy: {model: somewhere}\nprompts: {train: p.jsonl}\njudge: {name: verifier, function: 'm:score'}\n"
    cluster = parse(task + own)["cluster"]
    tolerated = cluster["steps"]["train"]["tolerations"][0]
    (taint,) = documents((INFRA / "kubernetes" / "eks-gpu.yaml").read_text())[0]["spec"]["template"]["spec"]["taints"]
    assert (tolerated["key"], tolerated["effect"]) == (taint["key"], taint["effect"])
    local = parse((ROOT / "flows" / "configs" / "demo.yaml").read_text() + demo)["cluster"]
    assert cluster["service_account"] == local["service_account"] == "wind"


def test_the_guides_commands_are_whole_and_name_what_is_there() -> None:
    for block in blocks("bash"):
        subprocess.run(["bash", "-n"], input=block, text=True, check=True)
    named = set(re.findall(r"(?:infra|flows|tests)/[\w./$-]+\w", GUIDE))
    assert len(named) > 8
    assert all((ROOT / name.replace("$kind", kind)).exists() for name in named for kind in ("cpu", "gpu"))
    client = re.search(r"kubernetes==[\d.]+", GUIDE)
    assert client
    assert client[0] in (ROOT / "requirements-dev.txt").read_text().splitlines()
    charts = [re.findall(r"\b1\.0\.\d+\b", (INFRA / name).read_text()) for name in CHART_NAMED_IN]
    assert len({version for versions in charts for version in versions}) == 1
    assert all(charts)


def test_a_failed_run_tells_what_the_guide_says(webhook) -> None:
    """As Metaflow's hook does it at the end of a run."""
    error = json.dumps({"templateName": "train-2", "message": "OOMKilled (exit code 137)"})
    variables = {"METAFLOW_WORKFLOW_NAME": "wind-abcde", "METAFLOW_ARGO_ERROR": error, "WEBHOOK": webhook.address}
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    env = {**os.environ, **variables, "PATH": path, "SCRIPT": TELL}
    subprocess.run(["bash", "-c", 'eval "${SCRIPT}"'], env=env, timeout=300, check=True)
    assert webhook.posted == [{"text": "wind-abcde: train-2: OOMKilled (exit code 137)"}]
