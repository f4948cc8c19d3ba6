"""A flow with both kinds of card, on figures and texts made up for the test."""

import time
from pathlib import Path

from metaflow import FlowSpec, Parameter, card, current, step

from components.reporting.cards import StepProgress, report_card

MARKUP = "<script>alert(1)</script>\n**x** | `y` <img src=x onerror=alert(1)>"


def rendered_card():
    return next((path.read_text() for path in Path(".metaflow").rglob("*.html")), "")


def history():
    import pandas as pd

    return pd.DataFrame(
        {
            "iteration": [1, 2, 3],
            "algorithm": "wind",
            "win_rate": [0.6, 0.7, 0.75],
            "win_rate_low": [0.55, 0.65, 0.7],
            "win_rate_high": [0.65, 0.75, 0.8],
            "win_rate_previous": [0.6, 0.58, 0.52],
            "kl": [0.5, 1.25, 2.0],
            "reward_mean": [0.4, 0.5, 0.55],
            "response_length": [20.0, 21.0, 19.5],
            "prompts": 512,
            "responses": 8,
            "truncated": [0.125, 0.0, 0.0],
            "tokens_generated": 80_000,
            "seconds_generate": [4.0, 4.5, 4.25],
            "seconds_score": 1.0,
            "seconds_train": 6.0,
            "seconds_evaluate": 2.0,
        }
    )


EXAMPLE = {
    "prompt": "Sort: 3 1 2",
    "answer": "1 2 3",
    "reference_response": MARKUP,
    "final_response": "1 2 3",
    "reference_reward": 0.25,
    "final_reward": 1.0,
}


class ReportFlow(FlowSpec):
    live = Parameter("live", default=False, help="wait in `start` until its card is seen")

    @card(type="blank", id="progress", refresh_interval=1)
    @step
    def start(self):
        self.seen = ""
        patience = time.monotonic() + 60
        with StepProgress("train", current.card["progress"]) as progress:
            progress(0, 40, loss=2.0)
            while self.live and not self.seen and time.monotonic() < patience:
                progress(10, 40, loss=1.5)
                self.seen = rendered_card()
                time.sleep(0.5)
            progress(40, 40, loss=0.25)
        self.next(self.end)

    @card(type="blank", id="report")
    @step
    def end(self):
        self.history = history()
        title = f"{current.flow_name}/{current.run_id}"
        config = {"iterations": 3, "policy": {"prompt_format": "``` {prompt} </pre>"}}
        current.card["report"].extend(report_card(self.history, [EXAMPLE], config, title=title))


if __name__ == "__main__":
    ReportFlow()
