"""What a cluster would refuse of a compiled WorkflowTemplate, found without one.

Each template becomes the pods or the JobSet that Argo makes of it. Kubernetes' own schemas judge these, unknown fields
refused; limits of names, labels, quantities and sizes, which no schema states, are in `limits.py`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

import kubernetes_validate
import yaml
from kubeflow_trainer_api.models.jobset_v1alpha2_job_set import JobsetV1alpha2JobSet

from support.cloud import limits
from support.cloud.infra import KUBERNETES
from support.cloud.templates import PLACEHOLDER, UnsupportedError, without_nulls

# What of a template is the pod's own, and what Argo itself reads; `accepted` of the tests knows Argo's types.
OF_POD = {"activeDeadlineSeconds", "affinity", "nodeSelector", "serviceAccountName", "tolerations", "volumes"}
OF_ARGO = {
    "container",
    "dag",
    "failFast",
    "inputs",
    "metadata",
    "name",
    "outputs",
    "resource",
    "retryStrategy",
    "steps",
}

NUMBERS = {"asInt(inputs.parameters.workerCount)": "1", "inputs.parameters.num-parallel": "2"}


def check(workflow: Mapping[str, Any]) -> None:
    """Raises AssertionError, or ValidationError of kubernetes_validate or pydantic, for what a cluster would refuse."""
    workflow = without_nulls(workflow)
    name, spec = workflow["metadata"]["name"], workflow["spec"]
    limits.workflow(workflow)
    for template in spec["templates"]:
        if unknown := set(template) - OF_POD - OF_ARGO:
            raise UnsupportedError(f"{template['name']}: {sorted(unknown)}")
        if "container" in template:
            checked_pod(pod(template, spec, f"{name}-x7k2p"))
        if "resource" in template:
            checked_jobset(manifest(template, f"{name}-x7k2p"))


def pod(template: Mapping[str, Any], spec: Mapping[str, Any], run: str) -> dict[str, Any]:
    """The pod that Argo makes of a template with a container, in a run of this name."""
    metadata = spec.get("podMetadata", {}), template.get("metadata", {})
    labels = {"workflows.argoproj.io/workflow": run, "workflows.argoproj.io/completed": "false"}
    whole = json.dumps(template, separators=(",", ":"))
    container = {**template["container"], "name": "main"}
    container["env"] = [*container.get("env", ()), {"name": "ARGO_TEMPLATE", "value": whole}]
    found = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": f"{run}-{template['name']}-1234567890",
            "labels": {**merged(metadata, "labels"), **labels},
            "annotations": merged(metadata, "annotations"),
        },
        "spec": {
            "containers": [container],
            "restartPolicy": "Never",
            **{key: value for key, value in template.items() if key in OF_POD},
        },
    }
    return dict(replaced(found, run))


def merged(parts: tuple[Mapping[str, Any], ...], key: str) -> dict[str, str]:
    """Labels or annotations of several metadata."""
    return {name: value for part in parts for name, value in part.get(key, {}).items()}


def replaced(value: Any, run: str) -> Any:
    """`value` with what Argo fills in: the run's name, numbers, and for the rest ten letters."""
    if isinstance(value, dict):
        return {replaced(key, run): replaced(item, run) for key, item in value.items()}
    if isinstance(value, list):
        return [replaced(item, run) for item in value]
    if not isinstance(value, str):
        return value
    return PLACEHOLDER.sub(lambda found: _filled(found[1].removeprefix("="), run), value)


def _filled(name: str, run: str) -> str:
    if name == "workflow.name":
        return run
    if name == "inputs.parameters.jobset-name":
        return "js-abcdef0"  # what the task before it made of eight characters is checked where that is made
    if name in ("retries", "inputs.parameters.retryCount"):
        return "0"
    return NUMBERS.get(name, "abcdef")


def checked_pod(document: Mapping[str, Any]) -> None:
    """A pod that Kubernetes takes."""
    for version in KUBERNETES:
        kubernetes_validate.validate(document, version, strict=True)
    limits.metadata(document["metadata"])
    limits.pod_spec(document["spec"])


def manifest(template: Mapping[str, Any], run: str) -> dict[str, Any]:
    """The object that a template with a resource makes."""
    text = template["resource"]["manifest"]
    found = yaml.safe_load(PLACEHOLDER.sub(lambda place: _filled(place[1].removeprefix("="), run), text))
    return dict(without_nulls(found))


def checked_jobset(document: Mapping[str, Any]) -> None:
    """A JobSet that its controller takes, with Jobs and pods that Kubernetes takes."""
    assert (document["apiVersion"], document["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
    jobs = document["spec"].get("replicatedJobs", [])
    assert jobs, "a JobSet without Jobs"
    bare = {**document["spec"], "replicatedJobs": [{**job, "template": {}} for job in jobs]}
    JobsetV1alpha2JobSet.model_validate({**document, "spec": bare}, extra="forbid", by_alias=True, by_name=False)
    limits.metadata(document["metadata"])
    for job in jobs:
        made = {"apiVersion": "batch/v1", "kind": "Job", **job["template"]}
        for version in KUBERNETES:
            kubernetes_validate.validate(made, version, strict=True)
        template = made["spec"]["template"]
        limits.metadata(template["metadata"])
        limits.pod_spec(template["spec"])
        for index in range(job["replicas"]):
            host = f"{document['metadata']['name']}-{job['name']}-{index}-0"
            limits.host(host, template["spec"], template["metadata"]["namespace"])


def resources(workflow: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What the executor asks Kubernetes for, as (resource, verb): results of tasks, and what templates make and watch.

    Argo's executor makes a resource by `kubectl create`, then reads it until a condition holds and for its outputs.
    """
    yield from (("workflowtaskresults", verb) for verb in ("create", "patch"))
    for template in without_nulls(workflow)["spec"]["templates"]:
        if resource := template.get("resource"):
            [kind] = re.findall(r"^kind: (\w+)$", resource["manifest"], flags=re.M)
            yield from ((f"{kind.lower()}s", verb) for verb in (resource["action"], "get"))
