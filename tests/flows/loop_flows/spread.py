"""A loop with a step on several nodes."""

import os
import signal
import time
from pathlib import Path

from metaflow import Config, FlowSpec, current, step

from launcher import main
from loop import unroll


@unroll(
    body=("plan", "spread", "train", "collect", "evaluate"),
    exit="end",
    iterations="config.iterations",
    nodes=("spread", "train", "collect", "config.nodes"),
)
class Spread(FlowSpec):
    config = Config("config", default_value={"iterations": 2, "nodes": 2})

    @step
    def start(self):
        self.total = 0
        self.next(self.plan)

    @step
    def plan(self):
        self.total += 1
        self.next(self.spread)

    @step
    def spread(self):
        self.next(self.train)

    @step
    def train(self):
        """Node i of n adds 10 i + n, if there are several; the one that KILL names dies, for which the others wait."""
        parallel = current.get("parallel")
        self.part = 10 * parallel.node_index + parallel.num_nodes if parallel else 0
        if kill := os.environ.get("KILL"):
            with Path("pids").open("a") as file:
                file.write(f"{os.getpid()}\n")
            if parallel.node_index == int(kill):
                os.kill(os.getpid(), signal.SIGKILL)
            if parallel.node_index:  # the first waits for the others in Metaflow
                time.sleep(300)
        self.next(self.collect)

    @step
    def collect(self, inputs):
        self.total = inputs[0].total + sum(node.part for node in inputs)
        self.next(self.evaluate)

    @step
    def evaluate(self):
        self.next(self.plan)

    @step
    def end(self):
        pass


if __name__ == "__main__":
    main(Spread)
