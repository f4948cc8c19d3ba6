"""A loop without a fan-out, in one class."""

from __future__ import annotations

from typing import TYPE_CHECKING

from metaflow import Config, FlowSpec, step

from loop import unroll

if TYPE_CHECKING:
    from fractions import Fraction


class Base:
    def describe(self):
        return "base"


@unroll(body=("plan", "train"), exit="end", iterations="config.run.iterations")
class Linear(Base, FlowSpec):
    config = Config("config", default_value={"run": {"iterations": 2}})
    __unit = "points"

    def describe(self):
        return "linear"

    @step
    def start(self):
        self.score = 0
        self.next(self.plan)

    @step
    def plan(self):
        def double(number: Fraction) -> Fraction:
            return number * 2

        self.score = double(self.score)
        # Bytes and characters count differently on the next line, where the target stands.
        self.text = f"é {super().describe()} {self.__unit}"; self.next(self.train)  # fmt: skip  # noqa: E702

    @step
    def train(self):
        self.score += 1
        self.next(self.plan)

    @step
    def end(self):
        pass


if __name__ == "__main__":
    Linear()
