"""What many shards cost beside their work: Metaflow's join, `gather`, and the start of a task.

    python benchmarks/many_shards.py [--shards 1000] [--tasks 40] [--store s3://BUCKET/PREFIX]

* Metaflow's join of so many tasks, through the functions that a join step uses, on a local datastore. On S3 each file
  that it asks for is one request, whether it is there or not.
* `gather` over as many tiny results, on the store given (variables of an S3 server as in benchmarks/store.py).
* A local run with `--tasks` shards against one with 2, whose tasks need no model: seconds that each task adds.

Figures go to benchmarks/results/many_shards.json, those with a store on S3 beside those without.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results/many_shards.json"
# Of one prompt each, with two responses of three tokens.
TINY = "demo: {{}}\nprompts: {{per_iteration: {n}, shards: {n}}}\ngeneration: {{responses: 2}}"


def join(n: int, folder: Path) -> dict[str, Any]:
    """Seconds of Metaflow's part of a join of n tasks, and how many files it asks for."""
    from metaflow.datastore.datastore_set import TaskDataStoreSet
    from metaflow.datastore.flow_datastore import FlowDataStore
    from metaflow.plugins.datastores.local_storage import LocalStorage
    from metaflow.task import ForeachFrame

    asked: Counter[str] = Counter()

    class Counted(LocalStorage):  # type: ignore[misc, unused-ignore]
        """Counts what S3 would be asked for."""

        def load_bytes(self, paths: Any) -> Any:
            paths = list(paths)
            asked["GET"] += len(paths)
            return super().load_bytes(paths)

        def list_content(self, paths: Any) -> Any:
            asked["LIST"] += len(list(paths))
            return super().list_content(paths)

    flow = FlowDataStore("WindFlow", {}, storage_impl=Counted, ds_root=str(folder))
    manifest = {"rollout.parquet": {"sha256": "0" * 64, "size": 5000}}
    for number in range(n):
        task = flow.get_task_datastore("1", "score_1", str(number), attempt=0, mode="w")
        task.init_task()
        frame = ForeachFrame("generate_1", "shards", n, number, str(number))
        shared = {"settings": "x" * 4000, "policy": manifest, "_foreach_var": None, "_iteration_stack": []}
        own = {"_foreach_stack": [frame], "rollout": {**manifest, "number": number}, "seconds": {"score": number}}
        task.save_artifacts(iter({**shared, **own}.items()))
        task.done()
    asked.clear()
    begin = time.perf_counter()
    prefetched = ["_iteration_stack", "_foreach_stack", "_foreach_num_splits", "_foreach_var"]
    paths = [f"1/score_1/{number}" for number in range(n)]
    inputs = list(TaskDataStoreSet(flow, "1", pathspecs=paths, prefetch_data_artifacts=prefetched, join_type="foreach"))
    assert [task["rollout"]["number"] for task in inputs] == list(range(n))
    assert all(task["_foreach_stack"] and task["seconds"] for task in inputs)
    return {"seconds": round(time.perf_counter() - begin, 2), "requests": dict(asked)}


def gather(n: int, root: str) -> dict[str, Any]:
    """Seconds of the step's own work on n shards, and its requests where the store is on S3."""
    import numpy as np

    from components import prompts, stages
    from components.data.records import Prompt, Ragged, Rollout, Scored
    from components.data.rollouts import save_scored
    from components.run_config import RunConfig, parse
    from components.stages.context import open_workspace
    from components.store.s3_client import connect

    config = RunConfig.model_validate(parse(TINY.format(n=n)))
    asked: Counter[str] = Counter()
    with open_workspace(config, root, "plan") as work:
        asking = [Prompt(f"p{i}", ({"role": "user", "content": f"say {i}"},)) for i in range(n)]
        begin = time.perf_counter()
        shards = stages.plan(work, work.keep("train.jsonl", lambda path: prompts.save(asking, path)), 1)
        planned, scored = time.perf_counter() - begin, []
        for shard in shards:
            ids = [prompt.id for prompt in work.prompts(shard, "shard")]
            rows = Ragged.of([[3, 4, 1], [4, 4, 1]])
            rollout = Rollout(ids, Ragged.of([[3]]), rows, ["a", "b"], np.ones((1, 2), bool))
            half = np.full((1, 2, 2), 0.5)
            made = Scored(rollout, np.zeros((1, 2)), np.zeros((1, 2)), half, np.zeros((1, 2)))
            scored.append(work.keep("rollout.parquet", lambda path, made=made: save_scored(made, path)))
    if root.startswith("s3://"):
        connect(root).meta.events.register("before-send.s3", lambda request, **_: asked.update([request.method]))
    with open_workspace(config, root, "gather") as work:
        begin = time.perf_counter()
        assert stages.gather(work, shards, scored)["prompts"] == n
        seconds = time.perf_counter() - begin
    return {"seconds": round(seconds, 2), "requests": dict(asked), "plan_seconds": round(planned, 2)}


def run(shards: int, folder: Path) -> float:
    """Seconds of a local run of one iteration, one task at a time; J-BOND's shards need no model."""
    from overhead import timed

    config = yaml.safe_load((ROOT / "flows/configs/smoke.yaml").read_text())
    config["demo"] |= {"steps": 5, "hidden_size": 16}
    config["prompts"] |= {"shards": shards, "per_iteration": max(64, shards)}
    config |= {"iterations": 1, "live_cards": [], "algorithm": {"name": "jbond"}}
    folder.mkdir()
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    flow = [sys.executable, str(ROOT / "flows/wind_flow.py"), "--config", "config", "config.yaml"]
    return timed([*flow, "run", "--max-workers", "1"], folder)


def main() -> None:
    """Measures, prints and writes the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shards", type=int, default=1000)
    parser.add_argument("--tasks", type=int, default=40, help="0: no run")
    parser.add_argument("--store", help="root of the weights store; default: a temporary folder")
    options = parser.parse_args()
    found: dict[str, Any] = {"shards": options.shards}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for what, measure in (
            ("join", lambda: join(options.shards, folder / "datastore")),
            ("gather", lambda: gather(options.shards, options.store or str(folder / "store"))),
        ):
            found[what] = measure()
            print(f"{what}: {json.dumps(found[what])}", flush=True)
        if options.tasks:
            few, many = run(2, folder / "few"), run(options.tasks, folder / "many")
            each = (many - few) / (2 * (options.tasks - 2))
            found["run"] = {"shards": options.tasks, "seconds": round(many, 1), "with_two": round(few, 1)}
            found["run"]["seconds_per_task"] = round(each, 2)
            print(f"run: {json.dumps(found['run'])}", flush=True)
    known = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    known["s3" if options.store else "local"] = found
    RESULTS.write_text(json.dumps(known, indent=2) + "\n")


if __name__ == "__main__":
    main()
