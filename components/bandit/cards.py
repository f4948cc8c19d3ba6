"""The laboratory's report as Metaflow card components."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from components.bandit import report
from components.bandit.config import LabConfig, cautions
from components.bandit.methods import Wind
from components.bandit.sampling import fitted_slope

if TYPE_CHECKING:
    import pandas as pd
    from metaflow.cards import MetaflowCardComponent

CONVERGENCE = """## Convergence with and without mixing
KL from what each method is after: the equilibrium of the win-rate game for WIND, Nash-MD and extragradient; for BOND
with mixing the equilibrium of its log-win-rate game; without mixing, and for self-play, the best response. The dotted
line is WIND's linear rate, proved for eta <= beta. The duality gap is that of the win-rate game for all methods."""
TRAJECTORY = """## Win rate, reward and KL to the reference"""
COMPLEXITY = """## Sample complexity"""
LINES = "Lines: the middle seed. Bands: all seeds."


def report_card(
    results: pd.DataFrame, errors: pd.DataFrame, config: LabConfig, *, title: str
) -> list[MetaflowCardComponent]:
    """The report of a run: table, figures and config.

    Args:
        results: a row per setting, method, seed and iteration.
        errors: the sample-complexity curve, a row per seed, number of samples and repetition.
        config: the run's config.
        title: Markdown.

    Returns:
        Components for `current.card[id].extend`.
    """
    from metaflow.cards import Image, Markdown, Table, YAMLViewer

    from components.bandit import figures
    from components.reporting.charts import png_url

    return [
        Markdown(f"# {title}\n\nMeans over prompts and seeds at iteration {results['iteration'].max()}."),
        Table(report.summary_rows(results), headers=report.HEADERS, disable_updates=True),
        *(Markdown(f"**{caution}**") for caution in cautions(config)),
        Markdown(CONVERGENCE),
        Image(png_url(figures.convergence_figure(results, rates=wind_rates(config))), LINES),
        Markdown(TRAJECTORY),
        Image(png_url(figures.trajectory_figure(results)), LINES),
        Markdown(f"{COMPLEXITY}\n{report.complexity_sentence(slope(errors))}"),
        Image(png_url(figures.sample_complexity_figure(errors)), "Mean over seeds and repetitions. Band: all seeds."),
        Markdown("## Config"),
        YAMLViewer(config.model_dump(), title="config.yaml"),
    ]


def wind_rates(config: LabConfig) -> Mapping[str, float]:
    """1 + beta·eta of the first WIND among the methods, for each setting; empty without one."""
    etas = [method.eta for method in config.methods.values() if isinstance(method, Wind)]
    return {where: 1 + s.beta * etas[0] for where, s in config.settings.items()} if etas else {}


def slope(errors: pd.DataFrame) -> float:
    """Fitted slope of the mean error over the number of samples."""
    mean = errors.groupby("samples")["error"].mean()
    return fitted_slope(mean.index.to_numpy(dtype=float), mean.to_numpy(dtype=float))
