"""Runs a compiled Argo WorkflowTemplate on this machine: every container's own command, as a process.

It takes what Metaflow's compiler makes of this project's flows: DAGs with `depends` and `withParam`, inputs and
outputs, retries, exit handlers. What it does not know, an unresolved `{{…}}` above all, is an error.
A container has a working directory, a /mnt and input paths of its own, by a mount namespace, so this needs root.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from support.cloud.templates import UnsupportedError, filled, needs, without_nulls

INPUT_PATHS = Path("/tmp/mf-input-paths")  # where Metaflow's commands write them, in any container
ISOLATE = (
    f'mount --bind "$0/mnt" /mnt && mount --bind "$0/{INPUT_PATHS.name}" {INPUT_PATHS} && cd "$0/work" && exec "$@"'
)
Kill = Callable[[str, int], float | None]  # (template, attempt) to seconds after which to kill the container


@dataclass
class Container:
    """One attempt at a container."""

    template: str
    attempt: int
    status: int
    log: str
    began: float
    ended: float

    @property
    def exit_code(self) -> int:
        """As a cluster gives it: 128 and the signal, where a signal ended the process."""
        return self.status if self.status >= 0 else 128 - self.status


@dataclass
class Workflow:
    """A run of a template.

    `environment` is what the image and the cluster give every container; `secrets` the values behind `envFrom`.
    """

    template: dict[str, Any]
    name: str
    folder: Path
    environment: Mapping[str, str]
    secrets: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    parameters: Mapping[str, str] = field(default_factory=dict)
    kill: Kill = lambda *_: None
    parallel: int = 2
    containers: list[Container] = field(default_factory=list)

    def run(self) -> str:
        """Runs it to its end: "Succeeded" or "Failed"."""
        spec = without_nulls(self.template)["spec"]
        self._templates = {template["name"]: template for template in spec["templates"]}
        self._slots = threading.Semaphore(self.parallel)
        given = {p["name"]: p.get("value") for p in spec.get("arguments", {}).get("parameters", [])}
        scope = {f"workflow.parameters.{name}": value for name, value in {**given, **self.parameters}.items()}
        scope |= {"workflow.name": self.name, "workflow.namespace": "wind"}
        scope["workflow.creationTimestamp"] = datetime.now(UTC).isoformat()
        self._workflow = scope
        succeeded = self._template(spec["entrypoint"], {}) is not None
        scope["workflow.status"] = "Succeeded" if succeeded else "Failed"
        scope["workflow.failures"] = json.dumps(json.dumps(self._failures()))  # Argo quotes it, too
        if "onExit" in spec:
            self._template(spec["onExit"], {})
        return str(scope["workflow.status"])

    def logs(self, template: str) -> str:
        """What all attempts at a container wrote."""
        return "".join(container.log for container in self.containers if container.template == template)

    def _failures(self) -> list[dict[str, str]]:
        failed = [container for container in self.containers if container.status]
        return [
            {
                "displayName": f"{container.template}({container.attempt})",
                "templateName": container.template,
                "phase": "Failed",
                "message": f"Error (exit code {container.exit_code})",
                "podName": f"{self.name}-{container.template}",
                "finishedAt": f"{datetime.fromtimestamp(container.ended, UTC):%Y-%m-%dT%H:%M:%SZ}",
            }
            for container in failed
        ]

    def _template(self, name: str, inputs: Mapping[str, str]) -> dict[str, str] | None:
        """Outputs of a template; None if it failed."""
        template = self._templates[name]
        scope = {**self._workflow, **{f"inputs.parameters.{key}": value for key, value in inputs.items()}}
        if "dag" in template:
            return self._dag(template, scope)
        if "steps" in template:
            return self._steps(template, scope)
        if "container" in template:
            return self._retried(template, scope)
        raise UnsupportedError(f"{name}: a template of {sorted(template)}")

    def _steps(self, template: dict[str, Any], scope: dict[str, str]) -> dict[str, str] | None:
        for group in template["steps"]:
            for step in group:
                left, comparison, right = filled(step.get("when", "a == a"), scope).split()
                if comparison not in {"==", "!="}:
                    raise UnsupportedError(f"when: {step['when']}")
                if (left == right) == (comparison == "==") and self._template(step["template"], {}) is None:
                    return None
        return {}

    def _dag(self, template: dict[str, Any], scope: dict[str, str]) -> dict[str, str] | None:
        waiting = {task["name"]: task for task in template["dag"]["tasks"]}
        running: dict[Future[dict[str, str] | None], str] = {}
        done: set[str] = set()
        failed = False
        with ThreadPoolExecutor(len(waiting)) as pool:
            while running or (waiting and not failed):
                for name in [n for n, task in waiting.items() if not failed and needs(task) <= done]:
                    running[pool.submit(self._task, waiting.pop(name), scope)] = name
                if not running:
                    raise UnsupportedError(f"{template['name']}: {sorted(waiting)} can never begin")
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    name, outputs = running.pop(future), future.result()
                    failed |= outputs is None  # failFast: nothing new begins
                    if outputs is not None:
                        done.add(name)
                        found = {f"tasks.{name}.outputs.parameters.{key}": value for key, value in outputs.items()}
                        scope.update(found)
        if failed:
            return None
        wanted = template.get("outputs", {}).get("parameters", [])
        return {p["name"]: filled(p["valueFrom"]["parameter"], scope) for p in wanted}

    def _task(self, task: dict[str, Any], scope: dict[str, str]) -> dict[str, str] | None:
        given = task.get("arguments", {}).get("parameters", [])
        if "when" in task:
            raise UnsupportedError(f"{task['name']}: a condition in a DAG")
        if "withParam" not in task:
            return self._template(task["template"], {p["name"]: filled(p["value"], scope) for p in given})
        items = json.loads(filled(task["withParam"], scope))
        with ThreadPoolExecutor(len(items)) as pool:
            each = [{p["name"]: filled(p["value"], {**scope, "item": str(i)}) for p in given} for i in items]
            results = list(pool.map(lambda inputs: self._template(task["template"], inputs), each))
        if any(result is None for result in results):
            return None
        return {key: json.dumps([result[key] for result in results if result]) for key in results[0] or {}}

    def _retried(self, template: dict[str, Any], scope: dict[str, str]) -> dict[str, str] | None:
        limit = int(template.get("retryStrategy", {}).get("limit", 0))
        for attempt in range(limit + 1):
            with self._slots:
                outputs = self._container(template, {**scope, "retries": str(attempt)}, attempt)
            if outputs is not None:
                return outputs
        return None

    def _container(self, template: dict[str, Any], scope: dict[str, str], attempt: int) -> dict[str, str] | None:
        root = self.folder / f"{len(self.containers)}-{template['name']}-{attempt}-{time.monotonic_ns()}"
        for name in ("mnt/out", "work"):
            (root / name).mkdir(parents=True)
        for file in (root / INPUT_PATHS.name, INPUT_PATHS):
            file.touch()
        container = template["container"]
        command = [filled(word, scope) for word in container["command"]]
        began = time.time()
        with (root / "log").open("w") as log:
            process = subprocess.Popen(
                ["unshare", "--mount", "bash", "-c", ISOLATE, str(root), *command],
                env={**self.environment, **self._variables(container, scope)},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
            self._wait(process, self.kill(template["name"], attempt))
        text = (root / "log").read_text(errors="replace")
        ended = Container(template["name"], attempt, process.returncode, text, began, time.time())
        self.containers.append(ended)
        if process.returncode:
            return None
        wanted = template.get("outputs", {}).get("parameters", [])
        return {p["name"]: (root / p["valueFrom"]["path"].lstrip("/")).read_text().strip() for p in wanted}

    def _wait(self, process: subprocess.Popen[bytes], kill_after: float | None) -> None:
        """To the end of the container, which ends with all its processes, as in a cluster."""
        if kill_after is not None:
            with suppress(subprocess.TimeoutExpired):
                process.wait(_until_task(process.pid) + kill_after)
        else:
            process.wait()
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def _variables(self, container: dict[str, Any], scope: dict[str, str]) -> dict[str, str]:
        variables: dict[str, str] = {}
        for source in container.get("envFrom", []):
            variables |= self.secrets[source["secretRef"]["name"]]
        for variable in container["env"]:
            if "value" in variable:
                variables[variable["name"]] = filled(variable["value"], scope)
            elif "fieldRef" in variable.get("valueFrom", {}):
                variables[variable["name"]] = variable["valueFrom"]["fieldRef"]["fieldPath"].rpartition(".")[2]
            else:
                raise UnsupportedError(f"variable {variable}")
        return variables


def _until_task(session: int) -> float:
    """Waits until the container runs its Metaflow task, so that a kill hits that; the seconds that are left: none."""
    while True:
        commands = list(_commands(session))
        if not commands or any(" step " in command for command in commands):
            return 0.0
        time.sleep(0.1)


def _commands(session: int) -> Iterator[str]:
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if os.getsid(int(folder.name)) == session:
                yield (folder / "cmdline").read_text().replace("\0", " ")
