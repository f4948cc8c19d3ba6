"""The exact laboratory: every method on every setting with every seed, on bandits that are solved exactly.

    start ─┬ play ┬ gather ─ sample ─ end
           └ …  one per setting, method and seed

`python flows/bandit_flow.py run` runs the laboratory; `--config config FILE` before `run` runs your own.
"""

if __name__ == "__main__":  # importing the rest takes seconds
    from components.runtime import interrupts

    interrupts.quiet()

import os
from pathlib import Path
from typing import Any

from metaflow import Config, FlowSpec, card, current, step

from base import BadConfig
from components.bandit import config as bandit_config
from components.config.errors import UserError
from launcher import main, run_folder, script

# Inherited by the tasks: on bandits this small, a second BLAS thread only waits.
os.environ.setdefault("OMP_NUM_THREADS", "1")

DEFAULT_CONFIG = Path(__file__).parent / "configs" / "bandit" / "laboratory.yaml"


def parse_config(text: str) -> dict[str, Any]:
    """`components.bandit.config.parse` with its error as Metaflow prints it: no traceback."""
    try:
        return bandit_config.parse(text)
    except UserError as error:
        raise BadConfig(str(error)) from error


class BanditFlow(FlowSpec):
    """Compares exact WIND with iterative best-of-N distillation and other solvers on contextual bandits."""

    config = Config("config", default=str(DEFAULT_CONFIG), parser=parse_config, help="YAML file of the laboratory")

    @property
    def settings(self) -> bandit_config.LabConfig:
        """The run's config."""
        values = self.config if isinstance(self.config, dict) else self.config.to_dict()
        return bandit_config.LabConfig.model_validate(values)

    @step
    def start(self):
        """List the cells: one per setting, method and seed."""
        from components.bandit import laboratory

        self.cells = laboratory.cells(self.settings)
        for caution in bandit_config.cautions(self.settings):
            print(caution)
        self.next(self.play, foreach="cells")

    @step
    def play(self):
        """Let one method play one bandit, all iterations."""
        from components.bandit import laboratory
        from components.reporting.cards import StepProgress

        self.cell = self.input
        with StepProgress(f"{self.cell.method} on {self.cell.setting}, seed {self.cell.seed}") as progress:
            self.results = laboratory.play(self.settings, self.cell, progress)
        self.next(self.gather)

    @step
    def gather(self, inputs):
        """Put the cells' results into one table, in the order of the config."""
        import pandas as pd

        self.results = pd.concat(
            [cell.results for cell in sorted(inputs, key=lambda cell: cell.index)], ignore_index=True
        )
        self.next(self.sample)

    @step
    def sample(self):
        """Measure how the error of one sampled iteration falls with the number of samples."""
        import pandas as pd

        from components.bandit import laboratory

        settings = self.settings
        curves = [laboratory.sample_complexity(settings.sampling, seed) for seed in settings.seeds]
        self.errors = pd.concat(curves, ignore_index=True)
        self.next(self.end)

    @card(type="blank", id="report")
    @step
    def end(self):
        """Report: table, figures and the commands that come next."""
        from components.bandit import cards, report

        title = f"BanditFlow/{current.run_id}"
        current.card["report"].extend(cards.report_card(self.results, self.errors, self.settings, title=title))
        print(f"{report.summary_table(self.results)}\n")
        print(f"{report.complexity_sentence(cards.slope(self.errors))}\n")
        print(report.next_commands(script(), "BanditFlow", current.run_id, run_folder()))


if __name__ == "__main__":
    main(BanditFlow)
