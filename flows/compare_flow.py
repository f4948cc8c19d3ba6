"""Algorithms side by side: one base policy, one judge, one budget, several seeds.

    start ─┬ branch ─ plan ─ … ─ evaluate ─ plan ─ … ─ evaluate ┬ join ─ end
           └ … one per arm and seed                             ┘

The steps from plan to evaluate are those of wind_flow.py, with their shards.
`python flows/compare_flow.py run` compares on the demo; `--config config FILE` before `run` on your own.
"""

if __name__ == "__main__":  # importing the rest takes seconds
    from components.runtime import interrupts

    interrupts.quiet()

import os

from metaflow import card, config_expr, current, resources, step

from base import LiveCards, config_file, parse_comparison, told_plainly
from cluster import OnCluster
from command_line import AT_ONCE
from components.run_config import RunConfig
from iteration import NODES, STEPS, Iteration
from launcher import main, run_folder, script
from loop import unroll


@LiveCards
@OnCluster
@unroll(body=STEPS, exit="join", iterations="config.iterations", nodes=NODES)
class CompareFlow(Iteration):
    """Compares algorithms by win rate at equal samples or seconds."""

    config = config_file("compare.yaml", parse_comparison)

    @property
    def settings(self):
        """The config: in a branch its own, elsewhere the run's."""
        return RunConfig.model_validate(self.branch_config) if hasattr(self, "branch_config") else super().settings

    @resources(**config_expr("config.resources.start"))
    @step
    def start(self):
        """Make what all branches share: base policy, prompts, the reference's responses for evaluation."""
        from components.comparison import arms
        from components.runtime import gpus

        with told_plainly():
            self.remember_store()
        shown = len(gpus.visible())  # before the step takes some of them for itself
        together = arms.at_once(self.settings, int(os.environ.get(AT_ONCE, "1")), shown)
        with self.work("start") as work:
            self.started = arms.start(work, together=together)
        self.branches = arms.branches(self.settings)
        self.next(self.branch, foreach="branches")

    @resources(**config_expr("config.resources.train"))
    @step
    def branch(self):
        """Turn to one arm with one seed; with a budget of seconds, measure what it affords."""
        from components.comparison import arms
        from components.stages import tracking

        self.chosen = self.input
        with told_plainly():
            self.follow_store()
            config = arms.branch_config(self.settings, self.chosen, self.started, self.store_root)
            self.tracked = f"CompareFlow/{current.run_id}/{self.chosen.arm}/{self.chosen.seed}"
            self.links = tracking.begin(config, self.store_root, self.tracked)
        self.branch_config = config.model_dump()
        self.begin(self.started)
        self.next(self.plan)

    @resources(**config_expr("config.resources.gather"))
    @step
    def join(self, inputs):
        """Put the branches' histories into one table; check that none is missing."""
        from components.comparison import analysis, arms

        self.merge_artifacts(inputs, include=["store_root", "started"])
        done = {branch.chosen: branch for branch in inputs}
        order = arms.in_order(self.settings, [branch.chosen for branch in inputs])
        self.results = analysis.tidy([(key.arm, key.seed, done[key].history) for key in order])
        self.reach = analysis.to_reach(self.results, analysis.levels(self.results, self.settings.compare.levels))
        self.policies = {(key.arm, key.seed): done[key].policy for key in order}
        self.links = {f"{k.arm}, seed {k.seed}: {name}": at for k in order for name, at in done[k].links.items()}
        self.next(self.end)

    @card(type="blank", id="report")
    @resources(**config_expr("config.resources.end"))
    @step
    def end(self):
        """Report: verdicts, curves, tables and the commands that come next."""
        from components.comparison import arms, cards, report
        from components.reporting.cards import link_table
        from components.stages import tracking

        title = f"CompareFlow/{current.run_id}"
        with self.work("end") as work:
            arms.remember(work, title, self.started, self.policies.values())
        shown = cards.report_card(self.results, self.reach, self.settings.model_dump(), title=title)
        current.card["report"].extend([*shown, *link_table(self.links)])
        print(f"{report.text(self.results, self.reach)}\n\n{tracking.link_lines(self.links)}\n")
        print(report.next_commands(script(), "CompareFlow", current.run_id, run_folder()))


if __name__ == "__main__":
    # Time is one of the figures, so tasks must not fight for cores; Metaflow's own default is 16 at once.
    for command in ("RUN", "RESUME"):
        os.environ.setdefault(f"METAFLOW_{command}_MAX_WORKERS", str(len(os.sched_getaffinity(0))))
    main(CompareFlow)
