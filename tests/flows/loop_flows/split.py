"""A loop whose body splits into two branches."""

from metaflow import Config, FlowSpec, card, step

from loop import unroll


@unroll(body=("fork", "double", "square", "merge"), exit="end", iterations="config.iterations")
class Split(FlowSpec):
    config = Config("config", default_value={"iterations": 2})

    @step
    def start(self):
        self.score = 3
        self.next(self.fork)

    @step
    def fork(self):
        self.next(self.double, self.square)

    @step
    def double(self):
        self.score *= 2
        self.next(self.merge)

    @step
    def square(self):
        self.score **= 2
        self.next(self.merge)

    @card(type="blank", id="report")
    @step
    def merge(self, inputs):
        self.score = sum(branch.score for branch in inputs)
        self.next(self.fork)

    @step
    def end(self):
        pass


if __name__ == "__main__":
    Split()
