"""What a cluster itself would refuse of a compiled template: by Kubernetes' schemas and limits, slip by slip."""

from __future__ import annotations

import copy
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from pydantic import ValidationError

from support.cloud.controller import check, manifest, resources
from support.cloud.deployment import CLUSTER, GUIDE, create, deploy
from support.cloud.infra import INFRA, documents
from support.cloud.limits import STRING
from support.cloud.templates import accepted, compact, without_nulls
from support.flows.flow_home import Home

pytestmark = [pytest.mark.s3, pytest.mark.thorough]

REFUSED = (AssertionError, ValidationError, kubernetes_validate.ValidationError)
Slip = Callable[[dict[str, Any], dict[str, Any], dict[str, Any]], object]  # of a template, its container, the workflow


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory, s3_server) -> dict[str, Any]:
    """That of a run on GPUs as the guide has it, with a volume."""
    guide = yaml.safe_load(re.findall(r"```yaml\n(.*?)```", GUIDE, flags=re.S)[0])
    guide["cluster"]["volumes"] = {"models": "/models"}
    return deploy(Home(tmp_path_factory.mktemp("guide"), s3_server, changes=guide))


@pytest.fixture(scope="module")
def jobset(tmp_path_factory: pytest.TempPathFactory, s3_server) -> dict[str, Any]:
    """That of a run whose training has two nodes."""
    changes = {"cluster": CLUSTER, "training": {"nodes": 2}}
    return deploy(Home(tmp_path_factory.mktemp("nodes"), s3_server, changes=changes))


def test_a_cluster_takes_the_template(template) -> None:
    check(template)


def test_two_nodes_are_a_jobset_that_a_cluster_takes(jobset) -> None:
    check(jobset)
    accepted(jobset)
    [train] = [one for one in jobset["spec"]["templates"] if one["name"] == "train-1"]
    made = manifest(without_nulls(train), "wind-x7k2p")
    assert [(job["name"], job["replicas"]) for job in made["spec"]["replicatedJobs"]] == [("control", 1), ("worker", 1)]
    for job in made["spec"]["replicatedJobs"]:
        pod = job["template"]["spec"]["template"]["spec"]
        assert pod["nodeSelector"] == {"pool": "gpu"}
        assert pod["serviceAccountName"] == "wind"
        assert pod["activeDeadlineSeconds"] == 72 * 3600
        assert pod["containers"][0]["securityContext"]["runAsNonRoot"] is True
        assert job["template"]["spec"]["backoffLimit"] == 0  # Argo begins all nodes again, not Kubernetes one
    assert train["retryStrategy"]["limit"] == 2


MANIFEST = {
    "of the set": ("replicatedJobs:", "replicatedJob:"),
    "of a job": ("replicas: 1", "replica: 1"),
    "of a job's own": ("backoffLimit:", "backoffLimits:"),
    "of a pod": ("setHostnameAsFQDN:", "setHostnameAsFqdn:"),
    "of a container": ("terminationMessagePolicy:", "terminationMessagesPolicy:"),
    "a number as text": ("completions: 1", "completions: 'one'"),
    "a long host name": ("namespace: wind", f"namespace: {'w' * 13}"),
    "a label": ("part-of: metaflow", "part-of: meta flow"),
    "another version": ("v1alpha2", "v1alpha1"),
}


@pytest.mark.parametrize("slip", MANIFEST)
def test_a_slip_in_a_jobset_is_refused(jobset, slip: str) -> None:
    workflow = copy.deepcopy(without_nulls(jobset))
    [train] = [one for one in workflow["spec"]["templates"] if one["name"] == "train-1"]
    right, wrong = MANIFEST[slip]
    assert right in train["resource"]["manifest"]
    train["resource"]["manifest"] = train["resource"]["manifest"].replace(right, wrong)
    with pytest.raises(REFUSED):
        check(workflow)


@pytest.mark.parametrize(
    ("cluster", "env", "message"),
    [
        (None, {}, "training.nodes: 2 nodes need pods, which the section `cluster` describes"),
        (CLUSTER, {"METAFLOW_KUBERNETES_NAMESPACE": "alignment-runs"}, "training.nodes: pods of the namespace align"),
    ],
)
def test_nodes_that_could_not_start_are_refused(tmp_path: Path, s3_server, cluster, env, message: str) -> None:
    home = Home(tmp_path, s3_server, changes={"training": {"nodes": 2}})
    config = yaml.safe_load((tmp_path / "config.yaml").read_text())
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({**config, "cluster": cluster}))
    refused = create(home, **env)
    assert refused.status == 1
    assert message in refused.stderr


def test_executors_may_do_what_argo_does_and_no_more(jobset) -> None:
    [role] = [one for one in documents((INFRA / "kubernetes" / "wind.yaml").read_text()) if is_role_of_pods(one)]
    rules = role["rules"]
    allowed = [(resource, verb) for rule in rules for resource in rule["resources"] for verb in rule["verbs"]]
    assert sorted(allowed) == sorted(set(resources(jobset)))


def is_role_of_pods(document: dict[str, Any]) -> bool:
    return (document["kind"], document["metadata"]["name"]) == ("Role", "wind")


SLIPS: dict[str, Slip] = {
    "a container's unknown field": lambda _, c, __: c.update(imagePolicy="Always"),
    "a resource's unknown field": lambda _, c, __: c["resources"].update(request={"cpu": 1}),
    "text for a number": lambda t, _, __: t.update(activeDeadlineSeconds="72h"),
    "no quantity": lambda _, c, __: c["resources"]["requests"].update(memory="48000 MB"),
    "more than the limit": lambda _, c, __: c["resources"].update(limits={"cpu": "1"}),
    "half a GPU": lambda _, c, __: c["resources"].update(limits={"nvidia.com/gpu": "0.5"}),
    "a mount without a volume": lambda _, c, __: c["volumeMounts"].append({"name": "cache", "mountPath": "/cache"}),
    "a mount twice": lambda _, c, __: c["volumeMounts"].append(dict(c["volumeMounts"][0])),
    "a volume with a dot": lambda t, _, __: t["volumes"].append({"name": "my.claim", "emptyDir": {}}),
    "a volume's unknown field": lambda t, _, __: t["volumes"][0].update(emptyDir={"size": "1Gi"}),
    "a toleration's unknown field": lambda t, _, __: t["tolerations"].append({"taint": "gpu"}),
    "an effect": lambda t, _, __: t["tolerations"].append({"key": "gpu", "operator": "Exists", "effect": "NoStart"}),
    "a value that exists": lambda t, _, __: t["tolerations"].append({"key": "g", "operator": "Exists", "value": "1"}),
    "an affinity's unknown field": lambda t, _, __: t.update(affinity={"nodesAffinity": {}}),
    "a node's label": lambda t, _, __: t.update(nodeSelector={"pool": "a b"}),
    "a node's long label": lambda t, _, __: t.update(nodeSelector={"pool": "a" * 64}),
    "a security context's unknown field": lambda _, c, __: c["securityContext"].update(runAsRoot=False),
    "a capability that is no list": lambda _, c, __: c["securityContext"].update(capabilities={"drop": "ALL"}),
    "a secret's name": lambda _, c, __: c["envFrom"].append({"secretRef": {"name": "My_Secret"}}),
    "a service account's name": lambda t, _, __: t.update(serviceAccountName="Wind"),
    "a variable's name": lambda _, c, __: c["env"].append({"name": "A B", "value": ""}),
    "a variable's number": lambda _, c, __: c["env"].append({"name": "A", "value": 1}),
    "a long variable": lambda _, c, __: c["env"].append({"name": "A", "value": "a" * STRING}),
    "a template that as a variable is long": lambda t, _, __: t["metadata"].update(annotations={"a": "b" * STRING}),
    "an image of nothing": lambda _, c, __: c.update(image=""),
    "a label of the pods": lambda _, __, w: w["spec"]["podMetadata"]["labels"].update(user="me@here"),
    "many annotations": lambda _, __, w: w["spec"]["workflowMetadata"]["annotations"].update(a="a" * (256 << 10)),
    "a template's name": lambda t, _, __: t.update(name="train_1"),
    "a task without a template": lambda t, _, __: t.update(name="train-one"),
    "a parameter that nobody gives": lambda t, _, __: t["inputs"]["parameters"].append({"name": "extra"}),
    "a task that is not there": lambda _, __, w: dag(w)["tasks"][1].update(depends="begin.Succeeded"),
    "a schedule's long name": lambda _, __, w: w["metadata"].update(name="a" * 53),
    "a name in capitals": lambda _, __, w: w["metadata"].update(name="WindFlow"),
    "a large parameter": lambda _, __, w: w["spec"]["arguments"]["parameters"][0].update(value="1" * (256 << 10)),
}


def dag(workflow: dict[str, Any]) -> dict[str, Any]:
    [found] = [one["dag"] for one in workflow["spec"]["templates"] if one["name"] == workflow["spec"]["entrypoint"]]
    return dict(found)


@pytest.mark.parametrize("slip", SLIPS)
def test_a_slip_is_refused(template, slip: str) -> None:
    workflow = copy.deepcopy(without_nulls(template))
    [train] = [one for one in workflow["spec"]["templates"] if one["name"] == "train-1"]
    check(workflow)
    SLIPS[slip](train, train["container"], workflow)
    with pytest.raises(REFUSED):
        check(workflow)


def test_as_many_iterations_on_nodes_as_are_let_through_fit(tmp_path: Path, s3_server) -> None:
    home = Home(tmp_path, s3_server, changes={"cluster": CLUSTER, "training": {"nodes": 2}})
    config = yaml.safe_load((tmp_path / "config.yaml").read_text())
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({**config, "iterations": 40}))
    found = re.search(r"iterations: 40 are too many for Argo Workflows.* Use (\d+) or fewer", create(home).stderr)
    assert found
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({**config, "iterations": int(found[1])}))
    workflow = deploy(home)
    check(workflow)
    assert 0.75 * (1 << 20) < len(compact(workflow)) < 1 << 20


# A thousand shards

SHARDS = {"prompts": {"shards": 1000, "per_iteration": 1000, "held_out": 16}, "cluster": CLUSTER}


def test_a_thousand_shards_fit_in_one_iteration(tmp_path: Path, s3_server) -> None:
    """The template does not grow with them, and what `gather` gets as a variable of its shell stays short."""
    home = Home(tmp_path, s3_server, changes=SHARDS)
    workflow = deploy(home)
    check(workflow)
    assert len(compact(workflow)) < 100_000
    assert len(json.dumps(list(range(1000)))) < 256 << 10  # the parameter of Argo's loop
    module = "metaflow.plugins.argo.generate_input_paths"
    arguments = ["score_1", "2026-01-01T00:00:00Z", "argo-wind-1/plan_1/t-12345678", "1000"]
    paths = subprocess.run([sys.executable, "-m", module, *arguments], capture_output=True, check=True).stdout
    assert 10_000 < len(paths) < STRING

    config = yaml.safe_load((tmp_path / "config.yaml").read_text())
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({**config, "iterations": 20}))
    refused = create(home)
    assert refused.status == 1
    assert "iterations: 20 are too many for Argo Workflows" in refused.stderr
    assert "Use 1 or fewer" in refused.stderr
