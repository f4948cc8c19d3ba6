"""What the config's `cluster` section says, as Metaflow's decorators: pods, retries, time limits, project, schedule."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from metaflow import FlowMutator, kubernetes, project, retry, schedule, timeout

from components.sections import ClusterConfig

COMMANDS = {"argo-workflows", "kubernetes"}
RENAMED = {"volumes": "persistent_volume_claims"}


class OnCluster(FlowMutator):
    """Flow decorator: decorates for a deployment to Argo and a run `--with kubernetes`, and for nothing else.

    So a run of the same config without that stays on this machine, and so does the `resume` of one that failed there.
    """

    def pre_mutate(self, mutable_flow: Any) -> None:
        """Decorates; above `@unroll`, so that the copies are decorated and no step of a base class."""
        section = dict(mutable_flow.configs)["config"]["cluster"]
        if section is None or not leaves_this_machine(sys.argv, os.environ):
            return
        cluster = ClusterConfig.model_validate(_plain(section))
        for name, step in mutable_flow.steps:
            step.add_decorator(kubernetes, deco_kwargs=pod_options(cluster, re.sub(r"_\d+$", "", name)))
            step.add_decorator(timeout, deco_kwargs={"hours": cluster.timeout_hours})
            options = {"times": cluster.retries, "minutes_between_retries": cluster.minutes_between_retries}
            step.add_decorator(retry, deco_kwargs=options)
        if cluster.project:
            mutable_flow.add_decorator(project, deco_kwargs={"name": cluster.project})
        if cluster.schedule:
            mutable_flow.add_decorator(schedule, deco_kwargs=cluster.schedule.model_dump())


def pod_options(cluster: ClusterConfig, kind: str) -> dict[str, Any]:
    """`@kubernetes`'s options for a kind of step; what is not given stays Metaflow's own choice."""
    given = cluster.pod(kind).model_dump(exclude_none=True)
    return {RENAMED.get(name, name): value for name, value in given.items()}


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
