"""A whole run with a judge that compares pairs only: its missing rewards reach history, table, chart and report."""

from __future__ import annotations

import numpy as np
import pytest

from components import stages
from components.reporting.cards import report_card
from components.reporting.report import summary_table
from components.stages.context import open_workspace
from components.stages.in_process import Pipeline
from support.runs import smoke

TEMPLATE = "{{ bos_token }}{% for m in messages %} {{ m['content'] }}{% endfor %}"


@pytest.mark.thorough(but=["wind"])
@pytest.mark.parametrize("algorithm", ["wind", "jbond"])
def test_a_run_without_rewards(tmp_path, make_model, make_tokenizer, algorithm):
    make_model(max_position_embeddings=256).save_pretrained(tmp_path / "judge")
    make_tokenizer(TEMPLATE).save_pretrained(tmp_path / "judge")
    judge = {
        "name": "llm_judge",
        "model": str(tmp_path / "judge"),
        "prompt": "{prompt} w50 {response_a} w51 {response_b}",
        "verdicts": ["w58", "w59"],
        "min_verdict_mass": 0.0,
    }
    changes = {"iterations": 1, "algorithm": {"name": algorithm}, "judge": judge, "evaluation": {"responses": 1}}
    config = smoke(demo={"steps": 2, "hidden_size": 16}, **changes)
    root = str(tmp_path / "store")
    pipeline = Pipeline(config, root)
    started = pipeline.start()
    history = pipeline.run(started)
    assert np.isnan(started.reward)
    assert np.isnan(history.reward_mean).all()
    assert history.win_rate.between(0, 1).all()
    assert summary_table(history).partition("\n\n")[0].splitlines()[-1].split()[5] == "-"
    with open_workspace(config, root, "end") as work:
        examples = stages.examples(work, started.prompts, started.evaluated, started.evaluated)
    card = report_card(history, examples, config.model_dump(), title="Run", reward_reference=started.reward)
    tables = [part.render() for part in card if type(part).__name__ == "Table"]
    assert tables[-1]["columns"] == ["prompt", "answer", "reference", "final policy"]  # no column of rewards
