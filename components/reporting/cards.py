"""What a run shows in Metaflow cards: the live progress of a step, and the report at the end.

A step with a card waits at its end for two subprocesses, and each live update starts another. All of
them import the flow's module: keep heavy imports inside its steps, and give cards only to steps that
take long and to `end`, such as `@card(type="blank", id="progress", refresh_interval=60)`.
"""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TextIO

from components.reporting import guards_report, report, sample_cards
from components.reporting.text import figures_line, meter
from components.runtime.reports import Reporter
from components.runtime.terminal import visible

if TYPE_CHECKING:
    import pandas as pd
    from metaflow.cards import MetaflowCardComponent

LOG_WIDTH = 90  # columns; Metaflow puts some 60 before each line
SLOWEST = 60.0  # seconds between updates of a step that takes hours
CARD_DELAY = 5.0  # seconds; a shorter step gets its card at its end only


class StepProgress:
    """A `components.runtime.progress.Progress` that is seen in the terminal and in a live card.

    Call it as often as is convenient. The first and the last call show; of those between, one every
    `interval` seconds at most, and fewer as a step grows long. In a log, as of a Metaflow task, each
    update is a line of its own. Use as a context manager; the total must not change.
    """

    def __init__(
        self,
        description: str,
        card: Any = None,
        *,
        stream: TextIO | None = None,
        interval: float = 2.0,
        heard: Callable[[str], None] = lambda _: None,
        reporter: Reporter | None = None,
    ) -> None:
        """Args: card is `current.card[id]` or None; stream is stderr if absent; interval in seconds.

        `heard` is told the description at each call, shown or not, and `reporter` all there is.
        """
        self._heard, self._reporter = heard, reporter
        self._description = description
        self._card = _CardProgress(card, description) if card is not None else None
        self._stream = stream or sys.stderr
        self._interval = interval
        self._started = time.monotonic()
        self._due = self._started
        self._shown = False

    def __call__(self, done: int, total: int, **figures: float) -> None:
        """Shows that `done` of `total` are done, with the latest figures such as loss=0.21."""
        self._heard(self._description)
        now = time.monotonic()
        elapsed = now - self._started
        if self._reporter:
            self._reporter.progress(self._description, done, total, elapsed, figures)
        if now < self._due and done < total:
            return
        self._due = now + max(self._interval, min(elapsed / 20, SLOWEST))
        self._print(done, total, elapsed, figures)
        if self._card:
            # Metaflow renders the finished step's card itself
            self._card.update(done, total, figures, refresh=elapsed >= CARD_DELAY and done < total)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._shown and self._stream.isatty():
            self._stream.write("\n")

    def _print(self, done: int, total: int, elapsed: float, figures: Mapping[str, float]) -> None:
        terminal = self._stream.isatty()
        columns = shutil.get_terminal_size().columns - 1 if terminal else LOG_WIDTH
        line = visible(meter(self._description, done, total, elapsed, figures, columns))
        self._stream.write(f"\r{line}" if terminal else f"{line}\n")
        self._stream.flush()
        self._shown = True


class _CardProgress:
    """A bar and a line of figures in a card."""

    def __init__(self, card: Any, description: str) -> None:
        self._card, self._description = card, description
        self._bar: Any = None
        self._line: Any = None

    def update(self, done: int, total: int, figures: Mapping[str, float], *, refresh: bool) -> None:
        from metaflow.cards import Markdown, ProgressBar

        if self._bar is None:
            self._bar, self._line = ProgressBar(max=int(total), label=self._description), Markdown("")
            self._card.append(self._bar)
            self._card.append(self._line)
        self._bar.update(int(done))
        self._line.update(figures_line(figures, " ", " · "))
        if refresh:
            self._card.refresh()


def show_place(card: Any, text: str) -> None:
    """Says in a live card, `current.card[id]`, where its step stands; see `report.place`."""
    from metaflow.cards import Markdown

    card.append(Markdown(f"## {text}"))


def report_card(
    history: pd.DataFrame,
    examples: Sequence[Mapping[str, Any]],
    config: Mapping[str, Any],
    *,
    title: str,
    reward_reference: float | None = None,
    links: Mapping[str, str] | None = None,
    samples: str | None = None,
) -> list[MetaflowCardComponent]:
    """The report of a run: verdict, chart, table, examples and config.

    Args:
        history: a row per iteration, at least one.
        examples: with `prompt`, `answer`, `reference_response`, `final_response`, `reference_reward`
            and `final_reward`; answer and rewards may be None or NaN. With parts of the rewards, by name, in
            `reference_parts` and `final_parts`.
        config: the run's config as plain data.
        title: Markdown.
        reward_reference: mean reward of the reference's responses.
        links: where else to look at the run, by tracker.
        samples: a page of samples as HTML, see `sample_frame`.

    Returns:
        Components for `current.card[id].extend`.
    """
    from metaflow.cards import Image, Markdown, Table, YAMLViewer

    from components.reporting import parts_cards
    from components.reporting.charts import history_figure, png_url

    chart = history_figure(history, reward_reference=reward_reference)
    components = [
        Markdown(f"# {title}\n\n{report.verdict(history)}"),
        Image(png_url(chart), "KL in nats per response; at iteration 0 the policy is the reference"),
        Markdown("## History"),
        Table(report.summary_rows(history), headers=report.HEADERS, disable_updates=True),
        *_learning(history),
        *_text(history),
    ]
    if engines := report.engine_sentence(history):
        components.append(Markdown(engines))
    components += [*_benchmarks(history), *parts_cards.components(history)]
    if examples:
        components += [Markdown("## Examples"), sample_cards.example_table(examples)]
    if samples is not None:
        components += sample_cards.sample_frame(samples, title)
    components += link_table(links or {})
    return [*components, Markdown("## Config"), YAMLViewer(dict(config), title="config.yaml")]


def _benchmarks(history: pd.DataFrame) -> list[MetaflowCardComponent]:
    """The tasks of lm-eval; nothing without them."""
    from metaflow.cards import Markdown, Table

    rows = report.benchmark_rows(history)
    if not rows:
        return []
    return [Markdown("## Benchmarks"), Table(rows, headers=report.benchmark_headers(history), disable_updates=True)]


def link_table(links: Mapping[str, str]) -> list[MetaflowCardComponent]:
    """Where else to look at a run, by tracker; nothing if there is nothing.

    Plain cells: an address need not be one that the viewer's page should follow.
    """
    from metaflow.cards import Markdown, Table

    rows: list[list[Any]] = [list(link) for link in links.items()]
    shown = [Markdown("## Followed by"), Table(rows, headers=["tracker", "address"], disable_updates=True)]
    return shown if rows else []


def _learning(history: pd.DataFrame) -> list[MetaflowCardComponent]:
    """Whether training learned: a table, and every iteration's warnings; nothing if it was not measured."""
    from metaflow.cards import Markdown, Table

    rows = report.learning_rows(history)
    shown = [Table(rows, headers=report.learning_headers(history), disable_updates=True)] if rows else []
    notes = _warned(history, "warnings")
    return [Markdown("## Did training learn?"), *shown, *notes] if shown or notes else []


def _text(history: pd.DataFrame) -> list[MetaflowCardComponent]:
    """What hints at reward hacking: a table of the responses' text, and warnings; nothing if it was not measured."""
    from metaflow.cards import Markdown, Table

    headers, rows = guards_report.table(history)
    shown = [Markdown("## Text"), Table([*rows], headers=headers, disable_updates=True)]
    return [*shown, *_warned(history, "text_warnings"), Markdown(guards_report.NOTE)] if rows else []


def _warned(history: pd.DataFrame, column: str) -> list[MetaflowCardComponent]:
    """Every iteration's warnings."""
    from metaflow.cards import Markdown

    lines = [f"- Iteration {count}: {text}" for count, text in report.warned(history, column).items()]
    return [Markdown("\n".join(lines))] if lines else []
