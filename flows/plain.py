"""What Metaflow writes, plainly: without colours where nobody wants them, and with control codes that do nothing."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from metaflow._vendor import click
from metaflow.parameters import flow_context

from components.runtime.screen import DUMB
from components.runtime.terminal import visible

NO_COLOR = "NO_COLOR"  # environment variable; whatever it holds, nothing is coloured (no-color.org)


def coloured() -> bool:
    """Whether a terminal may be sent colours."""
    return not os.environ.get(NO_COLOR) and os.environ.get("TERM", "") not in DUMB


@contextmanager
def told(flow: Any) -> Iterator[None]:
    """While this lasts, what Metaflow writes of a flow, its class, is as this module says."""
    with flow_context(flow):  # the options of Metaflow's command line are made of it when that is imported
        from metaflow import cli
    before = cli.logger

    def logged(body: str = "", system_msg: bool = False, head: str = "", **options: Any) -> None:
        before(visible(body.rstrip("\r")), system_msg, visible(head), **options)

    cli.logger = logged
    try:
        with click.Context(click.Command("plain"), color=None if coloured() else False).scope(cleanup=False):
            if not coloured():
                cli.start.context_settings["color"] = False
            yield
    finally:
        cli.logger = before
