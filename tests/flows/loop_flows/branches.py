"""The body of loop_body.py in each branch of a foreach."""

from loop_body import Body
from metaflow import step

from loop import unroll


@unroll(body=("plan", "generate", "gather", "evaluate"), exit="compare", iterations="config.iterations")
class Branches(Body):
    @step
    def start(self):
        self.iteration = 0
        self.history = []
        self.totals = [0, 1]
        self.next(self.branch, foreach="totals")

    @step
    def branch(self):
        self.total = self.input
        self.next(self.plan)

    @step
    def compare(self, inputs):
        self.histories = [branch.history for branch in inputs]
        self.next(self.end)

    @step
    def end(self):
        pass


if __name__ == "__main__":
    Branches()
