import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from components.reporting.commands import next_commands
from support.flows.flow_home import card_content

pytestmark = pytest.mark.thorough

FLOW = Path(__file__).parent / "card_flows" / "report_flow.py"


@pytest.fixture(autouse=True)
def place_of_cards(tmp_path):
    """Metaflow keeps local cards in the nearest `.metaflow` at or above the working directory."""
    (tmp_path / ".metaflow").mkdir()


def get_card(words, env, path):
    """The page that `card get` writes to `path`."""
    subprocess.run([sys.executable, *words, str(path)], check=True, cwd=path.parent, env=os.environ | env)
    return path.read_text()


def test_cards_show_progress_and_report(run_flow, flow_env, tmp_path):
    run = run_flow(FLOW).run
    log = run["start"].task.stderr
    assert re.search(r"^train: +0%\|.*loss=2\]$", log, re.MULTILINE)
    assert re.search(r"^train: 100%\|.*loss=0.25\]$", log, re.MULTILINE)

    words = [str(FLOW), "card", "get", f"{run.id}/start"]
    progress = card_content(get_card(words, flow_env, tmp_path / "progress.html"))
    assert '"value": 40' in progress
    assert "loss 0.25" in progress

    _, words = next_commands(str(FLOW), "ReportFlow", run.id).splitlines()[0].split("  python ")
    words = shlex.split(words)
    assert words[2] == "view"
    words[2] = "get"  # a test has no browser
    html = get_card(words, flow_env, tmp_path / "report.html")
    assert "<script>alert(1)" not in html  # the page has scripts of its own
    report = card_content(html)
    assert f"# ReportFlow/{run.id}" in report
    assert "75.0% (95% interval 70.0 to 80.0%)" in report
    assert "data:image/png;base64," in report
    assert "<script>alert(1)</script> \\u23ce **x**" in report


@pytest.mark.slow
def test_a_card_is_seen_while_its_step_runs(run_flow):
    seen = card_content(run_flow(FLOW, live=True).run["start"].task.data.seen)
    assert '"max": 40' in seen
    assert "loss 1.5" in seen
