"""The files of infra/, read and checked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import boto3
import kubernetes_validate
import pytest
import yaml

ROOT = Path(__file__).parents[3]
INFRA = ROOT / "infra"
STACK = (INFRA / "aws" / "wind.yaml").read_text()
UNSUPPORTED = pytest.mark.filterwarnings("ignore:Tried to parse AWS..S3..BucketPolicy")  # moto leaves it out
KUBERNETES = ("1.31", "1.37")  # the oldest and the newest version that the manifests are checked against


def slip(text: str, right: str, wrong: str) -> str:
    """`text` with its first `right` turned into `wrong`."""
    assert right in text
    return text.replace(right, wrong, 1)


# Karpenter's own keys; the Kubernetes types within are checked as parts of objects that have them too.
NODE_POOL = {"disruption", "limits", "template", "weight"}
NODE = {"expireAfter", "nodeClassRef", "requirements", "startupTaints", "taints", "terminationGracePeriod"}
DISRUPTION = {"budgets", "consolidateAfter", "consolidationPolicy"}


def documents(text: str) -> list[dict[str, Any]]:
    return [document for document in yaml.safe_load_all(text) if document]


def pod(spec: dict[str, Any]) -> dict[str, Any]:
    """A Pod of one container with `spec`."""
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {}, "spec": {"containers": [{"name": "main"}], **spec}}


def checked(document: dict[str, Any]) -> None:
    """Raises ValidationError of kubernetes_validate, or AssertionError, for what Kubernetes would not take or know."""
    if document["kind"] != "NodePool":
        for version in KUBERNETES:
            kubernetes_validate.validate(document, version, strict=True)
        return
    spec = document["spec"]
    node = spec["template"]["spec"]
    assert (document["apiVersion"], set(document)) == ("karpenter.sh/v1", {"apiVersion", "kind", "metadata", "spec"})
    assert set(spec) <= NODE_POOL
    assert set(spec["template"]) <= {"metadata", "spec"}
    assert {"nodeClassRef", "requirements"} <= set(node) <= NODE
    assert set(node["nodeClassRef"]) == {"group", "kind", "name"}
    assert set(spec["disruption"]) <= DISRUPTION
    assert spec["disruption"]["consolidationPolicy"] in ("WhenEmpty", "WhenEmptyOrUnderutilized")
    checked({"apiVersion": "v1", "kind": "Node", "metadata": {}, "spec": {"taints": node["taints"]}})
    wanted = {"nodeSelectorTerms": [{"matchExpressions": node["requirements"]}]}
    required = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": wanted}}
    checked(pod({"affinity": required}))
    checked(pod({"containers": [{"name": "main", "resources": {"limits": spec["limits"]}}]}))


def stack() -> dict[str, str]:
    """Outputs of a stack made from the template."""
    formation = boto3.client("cloudformation", "us-east-1")
    issuer = {"ParameterKey": "OidcIssuer", "ParameterValue": "oidc.example.com/id/1"}
    formation.create_stack(StackName="wind", TemplateBody=STACK, Parameters=[issuer], Capabilities=["CAPABILITY_IAM"])
    made = formation.describe_stacks(StackName="wind")["Stacks"][0]
    assert made["StackStatus"] == "CREATE_COMPLETE"
    return {output["OutputKey"]: output["OutputValue"] for output in made["Outputs"]}
