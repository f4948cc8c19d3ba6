"""The report card of a comparison."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from components.comparison import report

if TYPE_CHECKING:
    import pandas as pd
    from metaflow.cards import MetaflowCardComponent


def report_card(
    results: pd.DataFrame, reach: pd.DataFrame, config: Mapping[str, Any], *, title: str
) -> list[MetaflowCardComponent]:
    """Verdicts, curves, tables and config.

    Args:
        results: of `comparison.tidy`.
        reach: of `comparison.to_reach`.
        config: the run's config as plain data.
        title: Markdown.

    Returns:
        Components for `current.card[id].extend`.
    """
    from metaflow.cards import Image, Markdown, Table, YAMLViewer

    from components.comparison.charts import comparison_figure
    from components.reporting.charts import png_url

    components = [
        Markdown(f"# {title}\n\n{report.verdict_list(results)}"),
        Image(png_url(comparison_figure(results)), "Lines: means over seeds. Bands: from the smallest to the largest."),
        Table(report.summary_rows(results), headers=report.SUMMARY_HEADERS, disable_updates=True),
        Markdown(report.SUMMARY_NOTE),
    ]
    if len(reach):
        for cost, heading in report.COSTS.items():
            rows, headers = report.reach_rows(reach, cost), report.reach_headers(reach)
            components += [
                Markdown(f"## {heading} to reach a win rate"),
                Table(rows, headers=headers, disable_updates=True),
            ]
        components += [Markdown(report.REACH_NOTE)]
    return [*components, Markdown("## Config"), YAMLViewer(dict(config), title="config.yaml")]
