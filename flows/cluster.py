"""What the config's `cluster` section says, as Metaflow's decorators: pods, retries, time limits, project, schedule."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from metaflow import FlowMutator, kubernetes, metaflow_config, project, retry, schedule, timeout
from metaflow.packaging_sys import ContentType
from metaflow.util import get_username

import shipping
from base import BadConfig
from components.config.cluster import ClusterConfig
from components.config.steps import SHARDED
from components.reporting.commands import kind_of
from components.run_config import RunConfig

COMMANDS = {"argo-workflows", "kubernetes"}
RENAMED = {"volumes": "persistent_volume_claims"}
# Steps that have the resources and the pods of others.
LIKE = {"branch": "train", "join": "gather", "spread": "gather", "collect": "gather"}

# Argo keeps a run as one object, of at most a MiB: the whole compiled template and, compressed, each task's status.
# A run that outgrows it fails on the way. What Metaflow 2.19 makes of a step, beside its pod options, is 6,900 bytes
# with a datastore root of 50 characters, which comes seven times; of a task, with its attempts, Argo keeps 200.
ARGO_KEEPS = 1 << 20
# A step of several nodes is a manifest of two kinds of pods, and 25,500 bytes.
STEP_BYTES, TASK_BYTES, OTHER_BYTES, JOBSET_BYTES = 7_600, 250, 10_000, 20_000
# A host's name has 64 characters, of which js-1234560-control-0-0.js-1234560..svc.cluster.local has 52.
LONGEST_NAMESPACE = 12


class OnCluster(FlowMutator):
    """Flow decorator: decorates for a deployment to Argo and a run `--with kubernetes`, and for nothing else.

    So a run of the same config without that stays on this machine, and so does the `resume` of one that failed there.
    """

    def pre_mutate(self, mutable_flow: Any) -> None:
        """Decorates; above `@unroll`, so that the copies are decorated and no step of a base class."""
        config = _plain(dict(mutable_flow.configs)["config"])
        self._shipped: dict[str, Path] = {}
        if {"argo-workflows", "create"} <= {*sys.argv}:
            refuse_plain_key(metaflow_config.SERVICE_HEADERS)
            refuse_nodes(config, metaflow_config.KUBERNETES_NAMESPACE)
            refuse_user(config, get_username(), sys.argv)
            refuse_too_many(config, [name for name, _ in mutable_flow.steps])
        if not leaves_this_machine(sys.argv, os.environ):
            return
        if {"run", "resume", "create"} & {*sys.argv}:
            self._shipped = shipping.files(config, begins="resume" not in sys.argv)
        if config["cluster"] is None:
            return
        cluster = ClusterConfig.model_validate(config["cluster"])
        for name, step in mutable_flow.steps:
            options = {**pod_options(cluster, kind_of(name)), "security_context": security_context(cluster)}
            step.add_decorator(kubernetes, deco_kwargs=options)
            step.add_decorator(timeout, deco_kwargs={"hours": cluster.timeout_hours})
            again = {"times": cluster.retries, "minutes_between_retries": cluster.minutes_between_retries}
            step.add_decorator(retry, deco_kwargs=again)
        if cluster.project:
            mutable_flow.add_decorator(project, deco_kwargs={"name": cluster.project})
        if cluster.schedule:
            mutable_flow.add_decorator(schedule, deco_kwargs=cluster.schedule.model_dump())

    def add_to_package(self) -> Iterator[tuple[str, str, ContentType]]:
        """What the config names on this machine, beside the flow's own files."""
        for name, path in self._shipped.items():
            yield str(path), name, ContentType.USER_CONTENT


def pod_options(cluster: ClusterConfig, kind: str) -> dict[str, Any]:
    """`@kubernetes`'s options for a kind of step; what is not given stays Metaflow's own choice."""
    given = cluster.pod(LIKE.get(kind, kind)).model_dump(exclude_none=True)
    return {RENAMED.get(name, name): value for name, value in given.items()}


def security_context(cluster: ClusterConfig) -> dict[str, Any]:
    """What a step's container may do: nothing that a namespace of the standard "restricted" refuses, by default."""
    return {
        "allow_privilege_escalation": False,
        "run_as_non_root": not cluster.root,
        "capabilities": {"drop": ["ALL"]},
        "seccomp_profile": {"type": "RuntimeDefault"},
    }


def refuse_plain_key(headers: Mapping[str, str]) -> None:
    """Raises BadConfig for headers of the metadata service: Metaflow would write them into the template as they are."""
    if headers:
        raise BadConfig(
            "METAFLOW_SERVICE_AUTH_KEY: would stand in the deployed template, where all who may read that can read it. "
            "Make a secret of it (kubectl create secret generic wind-metadata --from-literal="
            "METAFLOW_SERVICE_AUTH_KEY=…), name that in cluster.secrets, and unset METAFLOW_SERVICE_AUTH_KEY and "
            "METAFLOW_SERVICE_HEADERS, here and in Metaflow's own configuration, for `create`."
        )


def refuse_nodes(config: Mapping[str, Any], namespace: str) -> None:
    """Raises BadConfig for training on several nodes whose pods would not start."""
    if config["training"]["nodes"] == 1:
        return
    if config["cluster"] is None:
        raise BadConfig(
            f"training.nodes: {config['training']['nodes']} nodes need pods, which the section `cluster` describes: "
            "image, service account and what the nodes tolerate. Add it, or set training.nodes: 1."
        )
    if len(namespace) > LONGEST_NAMESPACE:
        raise BadConfig(
            f"training.nodes: pods of the namespace {namespace} would have longer host names than Linux takes. Use a "
            f"namespace (METAFLOW_KUBERNETES_NAMESPACE) of at most {LONGEST_NAMESPACE} characters."
        )


def refuse_user(config: Mapping[str, Any], user: str, arguments: Sequence[str]) -> None:
    """Raises BadConfig where Metaflow's @project names the deployment by a user whose name Kubernetes does not take."""
    named = any(word.partition("=")[0] in ("--branch", "--production") for word in arguments)
    if named or not (config["cluster"] or {}).get("project") or re.fullmatch(r"[A-Za-z0-9._@+-]*", user):
        return
    raise BadConfig(
        f"cluster.project: names the deployment by its user, and {user!r} has letters that no name of Kubernetes has. "
        "Set METAFLOW_USER to one of a to z, digits, '-' and '.', or deploy with --branch NAME."
    )


def most_iterations(config: Mapping[str, Any], steps: Sequence[str]) -> int:
    """How many iterations Argo can keep of the flow with these steps, whose loop is unrolled; a low estimate."""
    run = RunConfig.model_validate(config)
    cluster, branches = run.cluster or ClusterConfig(), _shards_of_branches(run)

    def size(step: str) -> int:
        kind = kind_of(step)
        tasks = 1 if kind in ("start", "join", "end") else sum(branches) if kind in SHARDED else len(branches)
        jobset = kind == "train" and run.training.nodes > 1
        pods = len(json.dumps(pod_options(cluster, kind))) * (2 if jobset else 1)
        return STEP_BYTES + (JOBSET_BYTES if jobset else 0) + pods + tasks * TASK_BYTES

    inside = {step for step in steps if step != kind_of(step)}
    once = OTHER_BYTES + sum(size(step) for step in steps if step not in inside)
    return (ARGO_KEEPS - once) * run.iterations // sum(size(step) for step in inside)


def _shards_of_branches(run: RunConfig) -> list[int]:
    """How many shards an iteration has at most in each branch of the flow: one, or those of a comparison."""
    if run.compare is None:
        return [run.prompts.shards_at_most]
    arms = [run.arm(name).prompts for name in run.compare.arms]
    if run.compare.budget is not None and run.compare.budget.seconds is not None:
        # How many prompts they afford is not known yet.
        arms = [arm.model_copy(update={"per_iteration": sys.maxsize}) for arm in arms]
    return [arm.shards_at_most for arm in arms for _ in run.compare.seeds]


def refuse_too_many(config: Mapping[str, Any], steps: Sequence[str]) -> None:
    """Raises BadConfig for more iterations than Argo can keep."""
    most, wanted = most_iterations(config, steps), config["iterations"]
    if wanted <= most:
        return
    remedy = f"Use {most} or fewer" if most > 0 else "Use fewer arms, seeds or shards"
    if not config["compare"]:
        remedy += ", and let each run continue where the last one ended: `start_from: latest`"
    raise BadConfig(
        f"iterations: {wanted} are too many for Argo Workflows, which keeps the steps of a run and how each task ended "
        f"in one object of at most 1 MiB. {remedy}. `run --with kubernetes` has no such limit."
    )


def leaves_this_machine(arguments: Sequence[str], environment: Mapping[str, str]) -> bool:
    """Whether a command line deploys the flow, runs it `--with kubernetes`, or is that of a task in a pod."""
    with_options = [value for name, value in pairwise(arguments) if name == "--with"]
    with_options += [word.removeprefix("--with=") for word in arguments if word.startswith("--with=")]
    with_options += environment.get("METAFLOW_DECOSPECS", "").split()
    chosen = {option.partition(":")[0] for option in with_options}
    return bool(COMMANDS & ({*arguments} | chosen)) or "METAFLOW_KUBERNETES_WORKLOAD" in environment


def _plain(value: Any) -> Any:
    """Metaflow hands configs over as mappings of its own."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
