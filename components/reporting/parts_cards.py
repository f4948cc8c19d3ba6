"""Parts and groups on the report card."""

from __future__ import annotations

from typing import TYPE_CHECKING

from components.reporting import parts_report

if TYPE_CHECKING:
    import pandas as pd
    from metaflow.cards import MetaflowCardComponent

CURVES = "Parts of the judge's scores; at iteration 0 the policy is the reference"
GROUPS = "By group, with its number of held-out prompts; intervals far beyond all bars are cut"


def components(history: pd.DataFrame) -> list[MetaflowCardComponent]:
    """Pictures and table; nothing where the judge gives no parts and the config names no groups."""
    headers, rows = parts_report.table(history)
    if not rows:
        return []
    from metaflow.cards import Image, Markdown, Table

    from components.reporting.charts import png_url
    from components.reporting.parts_charts import curves_figure, groups_figure

    figures = [(curves_figure(history), CURVES), (groups_figure(history), GROUPS)]
    return [
        Markdown("## Parts and groups"),
        *(Image(png_url(figure), label) for figure, label in figures if figure is not None),
        Table(rows, headers=headers, disable_updates=True),
        Markdown(parts_report.NOTE),
    ]
