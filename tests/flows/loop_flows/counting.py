"""The body of loop_body.py between a start and an end."""

from loop_body import Body, fail_if_told
from metaflow import step

from loop import unroll


@unroll(
    body=("plan", "generate", "gather", "evaluate"),
    exit="end",
    iterations="config.iterations",
)
class Counting(Body):
    @step
    def start(self):
        fail_if_told()
        self.iteration = self.total = 0
        self.history = []
        self.next(self.plan)

    @step
    def end(self):
        fail_if_told()


if __name__ == "__main__":
    Counting()
