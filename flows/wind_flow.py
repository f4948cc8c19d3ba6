"""WIND: one run aligns a policy by T iterations of self-play on win rates.

    start ─ plan ─┬ generate ─ score ┬ gather ─ train ─ evaluate ─ plan ─ … ─ evaluate ─ end
                  └ … one per shard  ┘

The steps from plan to evaluate are in iteration.py; loop.py repeats them T times.
`python flows/wind_flow.py run` runs the demo; `--config config FILE` before `run` runs your own.
"""

if __name__ == "__main__":  # importing the rest takes seconds
    from components.runtime import interrupts

    interrupts.quiet()

from metaflow import card, config_expr, current, resources, step

from base import LiveCards, config_file, parse_run, told_plainly
from cluster import OnCluster
from iteration import NODES, STEPS, Iteration
from launcher import main, run_folder, script
from loop import unroll


@LiveCards
@OnCluster
@unroll(body=STEPS, exit="end", iterations="config.iterations", nodes=NODES)
class WindFlow(Iteration):
    """Aligns a policy with its own win rates (WIND, arXiv 2410.20727)."""

    config = config_file("demo.yaml", parse_run)

    @resources(**config_expr("config.resources.start"))
    @step
    def start(self):
        """Check config, policy, prompts, judge and store; sample the reference's responses for evaluation."""
        from components import stages
        from components.stages import start_from, tracking

        with told_plainly():
            self.remember_store()
        with self.work("start") as work:
            earlier = start_from.find(work)
            print(start_from.beginning(work, earlier))
            self.tracked = f"WindFlow/{current.run_id}"
            self.links = tracking.begin(work.config, self.store_root, self.tracked)
            self.begin(stages.start(work, earlier), earlier)
        self.next(self.plan)

    @card(type="blank", id="report")
    @resources(**config_expr("config.resources.end"))
    @step
    def end(self):
        """Report: charts, examples and the commands that come next."""
        from components import stages
        from components.reporting import cards, commands, report
        from components.samples import excerpt
        from components.samples.files import of_end
        from components.stages import start_from, tracking

        run = f"WindFlow/{current.run_id}"
        with self.work("end") as work:
            self.examples = stages.examples(work, self.prompts, self.evaluated_reference, self.evaluated)
            start_from.remember(work, start_from.of(run, self))
            samples = excerpt.rendered(of_end(run, self))
        shown = cards.report_card(
            self.history,
            self.examples,
            self.settings.model_dump(),
            title=run,
            reward_reference=self.reward_reference,
            links=self.links,
            samples=samples,
        )
        current.card["report"].extend(shown)
        print(f"{report.verdict(self.history)}\n\n{report.summary_table(self.history)}\n")
        print(f"{tracking.link_lines(self.links)}\n")
        print(commands.next_commands(script(), "WindFlow", current.run_id, run_folder()))


if __name__ == "__main__":
    main(WindFlow)
