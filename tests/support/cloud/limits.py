"""Limits of Kubernetes and Argo that their schemas do not state; each function raises AssertionError beyond one."""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")  # RFC 1123
QUALIFIED = re.compile(r"[A-Za-z0-9]([-\w.]{0,61}[A-Za-z0-9])?", re.ASCII)
VARIABLE = re.compile(r"[-._a-zA-Z][-._a-zA-Z0-9]*")
QUANTITY = re.compile(r"(\d+\.?\d*|\.\d+)((?:[KMGTPE]i|[numkMGTPE])?)", re.ASCII)
UNITS = {"": 1, "n": Decimal("1e-9"), "u": Decimal("1e-6"), "m": Decimal("1e-3"), "k": 1000}
UNITS |= {unit: 1000 ** (2 + power) for power, unit in enumerate("MGTPE")}
UNITS |= {f"{unit}i": 1024 ** (1 + power) for power, unit in enumerate("KMGTPE")}

ANNOTATIONS = 256 << 10  # bytes, all of one object together
STRING = 128 << 10  # bytes; Linux takes no longer variable or argument
PARAMETER = 256 << 10  # bytes; etcd's share of a parameter
CRON_NAME = 52  # Argo's, which appends the time
RUN_SUFFIX = 6  # a hyphen and five letters that Kubernetes appends
FIELD = re.compile(r"[a-zA-Z0-9][-a-zA-Z0-9]{0,127}")  # Argo's names of templates and tasks
HOST = 64  # bytes of a host's whole name, on Linux


def subdomain(name: str) -> None:
    """A name of most objects: labels between dots."""
    assert len(name) <= 253, f"{name}: {len(name)} characters"
    assert all(LABEL.fullmatch(part) for part in name.split(".")), name


def key(name: str) -> None:
    """The key of a label or an annotation."""
    prefix, slash, rest = name.rpartition("/")
    assert QUALIFIED.fullmatch(rest), name
    if slash:
        subdomain(prefix)


def labels(given: Mapping[str, str]) -> None:
    """Labels of an object."""
    for name, value in given.items():
        key(name)
        assert value == "" or QUALIFIED.fullmatch(value), f"{name}: {value}"


def metadata(given: Mapping[str, Any]) -> None:
    """Name, labels and annotations of an object."""
    if "name" in given:
        subdomain(given["name"])
    labels(given.get("labels", {}))
    annotations = given.get("annotations", {})
    for name in annotations:
        key(name)
    size = sum(len(name.encode()) + len(value.encode()) for name, value in annotations.items())
    assert size <= ANNOTATIONS, f"annotations of {size} bytes"


def quantity(text: object) -> Decimal:
    """An amount of a resource."""
    found = QUANTITY.fullmatch(str(text))
    assert found, f"{text} is no quantity"
    return Decimal(found[1]) * UNITS[found[2]]


def resources(given: Mapping[str, Mapping[str, Any]]) -> None:
    """What a container asks for, no more than it may have; of devices whole ones."""
    requests, most = ({name: quantity(one) for name, one in given.get(k, {}).items()} for k in ("requests", "limits"))
    for name, amount in {**requests, **most}.items():
        key(name)
        assert amount == int(amount) or name in ("cpu", "memory", "ephemeral-storage"), f"{name}: {amount}"
        if name in requests and name in most:
            assert requests[name] <= most[name], f"{name}: asks for more than it may have"
        if "/" in name and name in requests:
            assert requests[name] == most.get(name), f"{name}: devices need a limit that equals the request"


def pod_spec(spec: Mapping[str, Any]) -> None:
    """Names within a pod, and what refers to them."""
    volumes = [volume["name"] for volume in spec.get("volumes", ())]
    assert len(volumes) == len({*volumes}), f"a volume comes twice: {volumes}"
    for name in volumes:
        assert LABEL.fullmatch(name), f"volume {name}"
    labels(spec.get("nodeSelector", {}))
    if "serviceAccountName" in spec:
        subdomain(spec["serviceAccountName"])
    for toleration in spec.get("tolerations", ()):
        taint(toleration)
    for container in spec["containers"]:
        _container(container, volumes)


def taint(toleration: Mapping[str, Any]) -> None:
    """A toleration of a taint."""
    operator = toleration.get("operator", "Equal")
    assert operator in ("Equal", "Exists"), toleration
    assert operator == "Equal" or "value" not in toleration, toleration
    assert toleration.get("key") or operator == "Exists", toleration
    assert toleration.get("effect", "") in ("", "NoSchedule", "PreferNoSchedule", "NoExecute"), toleration
    labels({toleration["key"]: toleration.get("value", "")} if toleration.get("key") else {})


def _container(container: Mapping[str, Any], volumes: list[str]) -> None:
    assert LABEL.fullmatch(container["name"]), f"container {container['name']}"
    assert re.fullmatch(r"\S+", container["image"]), f"image {container['image']!r}"
    resources(container.get("resources", {}))
    mounts = container.get("volumeMounts", [])
    assert {mount["name"] for mount in mounts} <= {*volumes}, f"{mounts} name no volume of {volumes}"
    paths = [mount["mountPath"] for mount in mounts]
    assert len(paths) == len({*paths}), f"mounted twice: {paths}"
    assert all(path.startswith("/") and ":" not in path for path in paths), paths
    for variable in container.get("env", ()):
        assert VARIABLE.fullmatch(variable["name"]), variable["name"]
        assert ("value" in variable) != ("valueFrom" in variable), variable["name"]
        size = len(f"{variable['name']}={variable.get('value', '')}".encode())
        assert size < STRING, f"{variable['name']}: {size} bytes"
    for word in [*container.get("command", ()), *container.get("args", ())]:
        assert len(word.encode()) < STRING, f"a word of {len(word)} characters"
    for source in container.get("envFrom", ()):
        subdomain(source["secretRef"]["name"])


def workflow(given: Mapping[str, Any]) -> None:
    """Names of a WorkflowTemplate and within it, also once a schedule or a run has appended to its own."""
    metadata(given["metadata"])
    name, spec = given["metadata"]["name"], given["spec"]
    assert len(name) <= CRON_NAME, f"{name}: too long for a schedule"
    labels({"workflows.argoproj.io/workflow": f"{name}{'-' * (RUN_SUFFIX - 1)}x"})
    for part in ("workflowMetadata", "podMetadata"):
        metadata(spec.get(part, {}))
    for parameter in spec.get("arguments", {}).get("parameters", ()):
        assert len(str(parameter.get("value", "")).encode()) < PARAMETER, parameter["name"]
    templates = {template["name"]: template for template in spec["templates"]}
    assert len(templates) == len(spec["templates"]), "a template comes twice"
    assert spec["entrypoint"] in templates, spec["entrypoint"]
    for one, template in templates.items():
        assert FIELD.fullmatch(one), one
        _calls(template, templates)


def _calls(template: Mapping[str, Any], templates: Mapping[str, Any]) -> None:
    """Tasks name templates that are there and hand them their parameters, and wait for tasks that are there."""
    tasks = [*template.get("dag", {}).get("tasks", ()), *(one for group in template.get("steps", ()) for one in group)]
    names = {task["name"] for task in tasks}
    for task in tasks:
        assert FIELD.fullmatch(task["name"]), task["name"]
        assert task["template"] in templates, f"{task['name']}: there is no template {task['template']}"
        wanted = templates[task["template"]].get("inputs", {}).get("parameters", ())
        given = {parameter["name"] for parameter in task.get("arguments", {}).get("parameters", ())}
        missing = {parameter["name"] for parameter in wanted if "value" not in parameter} - given
        assert not missing, f"{task['name']}: is not given {missing}"
        before = set(re.findall(r"([\w-]+)\.\w+", task.get("depends", "")))
        assert before <= names, f"{task['name']}: waits for {before - names}"


def host(name: str, spec: Mapping[str, Any], namespace: str) -> None:
    """The name of a JobSet's pod, to which five letters are added, and that of its host."""
    assert LABEL.fullmatch(f"{name}-abcde"), name
    whole = f"{name}.{spec['subdomain']}.{namespace}.svc.cluster.local"
    assert not spec.get("setHostnameAsFQDN") or len(whole) <= HOST, f"{whole}: {len(whole)} characters"
