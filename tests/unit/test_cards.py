import base64
import io
import warnings
from functools import partial
from types import SimpleNamespace

import pandas as pd
import pytest
import yaml
from PIL import Image

from components.reporting import charts
from components.reporting.cards import StepProgress, report_card, show_place
from components.reporting.report import HEADERS, LEARNING_HEADERS

with warnings.catch_warnings():  # of Metaflow's own copy of yaml
    warnings.filterwarnings("ignore", "The _yaml extension module", DeprecationWarning)
    from metaflow.plugins.cards.component_serializer import CardComponentManager

BREAK = "\N{ZERO WIDTH SPACE}"
MARKUP = '<img src=x onerror="alert(1)"> **bold** | `code` {{x}} [a](javascript:alert(1))'
HISTORY = pd.DataFrame(
    {
        "iteration": [1, 2],
        "win_rate": [0.6, 0.75],
        "win_rate_low": [0.55, 0.7],
        "win_rate_high": [0.65, 0.8],
        "win_rate_previous": [0.6, 0.62],
        "kl": [0.5, 1.25],
        "reward_mean": [0.4, 0.55],
        "response_length": [20.0, 19.5],
        "truncated": [0.125, 0.0],
        "seconds_generate": [4.0, 4.0],
        "seconds_score": [1.0, 1.0],
        "seconds_train": [6.0, 6.0],
        "seconds_evaluate": [2.0, 2.0],
    }
)


def example(**changed):
    texts = {"prompt": "Say hi", "answer": "hi", "reference_response": "ho", "final_response": "hi"}
    return texts | {"reference_reward": 0.25, "final_reward": 1.0} | changed


def rendered(examples, config=None):
    return [part.render() for part in report_card(HISTORY, examples, config or {"seed": 1}, title="Run 1")]


def tables(examples):
    return [part for part in rendered(examples) if part["type"] == "table"]


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture(scope="module", autouse=True)
def _drawn_once():
    """Half a second each: the chart of one history is drawn once, and looked at by all tests."""
    drawn: dict[str, bytes] = {}
    figure, picture = charts.history_figure, charts.png

    def remember(history, **options):
        return history.to_json() + repr(options), partial(figure, history, **options)

    def once(found):
        name, draw = found
        if name not in drawn:
            drawn[name] = picture(draw())
        return drawn[name]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(charts, "history_figure", remember)
        patch.setattr(charts, "png", once)
        yield


def test_report_begins_with_title_and_verdict():
    first = rendered([])[0]
    assert first["type"] == "markdown"
    assert first["source"].startswith("# Run 1\n\nAfter 2 iterations, the policy's win rate")
    assert "75.0% (95% interval 70.0 to 80.0%)" in first["source"]


def test_report_holds_the_chart():
    (picture,) = [part for part in rendered([]) if part["type"] == "image"]
    kind, data = picture["src"].split(",")
    assert kind == "data:image/png;base64"
    assert Image.open(io.BytesIO(base64.b64decode(data))).width >= 1000


def test_report_holds_the_history():
    (table,) = tables([])
    assert table["columns"] == HEADERS
    assert table["data"][1] == [
        "2",
        "0.750",
        "0.700-0.800",
        "0.620",
        "1.25",
        "0.550",
        "19.5",
        "0.0%",
        "13.0 s",
    ]


def test_report_tells_how_far_the_engine_is_from_the_trainer():
    shown = [part.get("source", "") for part in rendered([])]
    assert not any("Log-probs of the engine" in text for text in shown)
    history = HISTORY.assign(logp_difference=[0.03, float("nan")])  # the second iteration drew with the trainer
    shown = [part.render().get("source", "") for part in report_card(history, [], {}, title="")]
    sentence = "Log-probs of the engine and of the trainer differ by at most 0.03 nats per response (iteration 1); "
    assert any(sentence in text for text in shown)


def test_report_shows_whether_training_learned():
    assert not any("learn?" in part.get("source", "") for part in rendered([]))
    moves = {"winners_moved": 1.0, "winners_target": 2.0, "losers_moved": -1.0, "losers_target": -2.0}
    kl = {"kl_step": 0.5, "kl_step_token": 0.05}
    history = HISTORY.assign(risk_before=0.25, risk_after=[0.1, 0.5], **moves, **kl, warnings=["", "It rose."])
    shown = [part.render() for part in report_card(history, [], {}, title="")]
    (place,) = [i for i, part in enumerate(shown) if part.get("source", "").startswith("## Did training learn?")]
    assert shown[place + 1]["columns"] == LEARNING_HEADERS
    assert [row[1] for row in shown[place + 1]["data"]] == ["0.25 → 0.1", "0.25 → 0.5"]
    assert shown[place + 2]["source"].strip() == "- Iteration 2: It rose."
    assert "Training in iteration 2: It rose." in shown[0]["source"]


def test_report_shows_the_config_as_it_is():
    config = {"seed": 1, "policy": {"prompt_format": "``` </pre> {prompt}\n", "revision": None}, "a": [1, 2]}
    assert yaml.safe_load(rendered([], config)[-1]["yaml_string"]) == config


def test_examples_stand_side_by_side():
    table = tables([example(), example(prompt="Again")])[1]
    assert table["columns"] == ["prompt", "answer", "reference", "reward", "final policy", "reward"]
    assert table["data"] == [
        ["Say hi", "hi", "ho", "0.25", "hi", "1"],
        ["Again", "hi", "ho", "0.25", "hi", "1"],
    ]


@pytest.mark.parametrize("missing", [None, float("nan")])
def test_columns_that_no_example_fills_are_left_out(missing):
    rewards = {"reference_reward": missing, "final_reward": missing}
    table = tables([example(answer=None, final_response="", **rewards)])[1]
    assert table["columns"] == ["prompt", "reference", "final policy"]
    assert table["data"] == [["Say hi", "ho", ""]]


def test_text_of_models_is_only_in_plain_cells():
    parts = rendered([example(prompt=MARKUP, reference_response=MARKUP, final_response=MARKUP)])
    (table,) = [part for part in parts if part["type"] == "table" and "prompt" in part["columns"]]
    assert [type(cell) for cell in table["data"][0]] == [str] * 6
    assert table["data"][0][0] == MARKUP
    assert not [part for part in parts if part is not table and "onerror" in str(part)]


def test_line_breaks_and_overlong_texts():
    table = tables([example(prompt="one\r\ntwo\n\nfour", final_response="x" * 601, answer="y" * 600)])[1]
    prompt, answer, _, _, final, _ = table["data"][0]
    assert prompt == "one ⏎ two ⏎  ⏎ four"
    assert answer.replace(BREAK, "") == "y" * 600
    assert final.replace(BREAK, "") == "x" * 599 + "…"


def test_a_long_word_can_break():
    prompt = tables([example(prompt="short " + "x" * 100)])[1]["data"][0][0]
    assert prompt == "short " + "x" * 40 + BREAK + "x" * 40 + BREAK + "x" * 20


def test_first_and_last_call_show_and_those_between_wait():
    log = io.StringIO()
    with StepProgress("train", stream=log, interval=60) as progress:
        for done in range(101):
            progress(done, 100, loss=0.5)
    first, last = log.getvalue().splitlines()
    assert first.startswith("train:   0%|")
    assert "0/100" in first
    assert last.startswith("train: 100%|###")
    assert last.endswith(", loss=0.5]")


def test_a_call_after_the_interval_shows(monkeypatch):
    clock = iter([0.0, 0.0, 1.9, 2.1])  # seconds: it begins, and three calls
    monkeypatch.setattr("components.reporting.cards.time", SimpleNamespace(monotonic=lambda: next(clock)))
    log = io.StringIO()
    progress = StepProgress("train", stream=log, interval=2.0)
    for done in (1, 3, 2):
        progress(done, 100)
    assert [line.split("| ")[1].split()[0] for line in log.getvalue().splitlines()] == ["1/100", "2/100"]


def test_a_log_has_whole_lines_of_one_width():
    log = io.StringIO()
    with StepProgress("score", stream=log, interval=0) as progress:
        for done in range(5):
            progress(done, 4, agreement=0.123456)
    assert "\r" not in log.getvalue()
    assert {len(line) for line in log.getvalue().splitlines()} == {90}
    assert log.getvalue().endswith("agreement=0.123]\n")


def test_a_terminal_has_one_line_that_is_written_over():
    terminal = Terminal()
    with StepProgress("score", stream=terminal, interval=0) as progress:
        progress(0, 2)
        progress(2, 2)
    assert terminal.getvalue().count("\r") == 2
    assert terminal.getvalue().count("\n") == 1
    assert terminal.getvalue().endswith("]\n")


def test_progress_that_was_never_called_leaves_nothing():
    terminal = Terminal()
    with StepProgress("score", stream=terminal):
        pass
    assert terminal.getvalue() == ""


def test_a_card_says_where_its_step_stands():
    parts = []
    show_place(parts, "iteration 2 of 5 · train")
    assert [part.render()["source"].strip() for part in parts] == ["## iteration 2 of 5 · train"]


def test_a_card_has_a_bar_and_the_latest_figures():
    card = CardComponentManager("id", {"type": "blank"}, card_creator=None)
    with StepProgress("train", card, stream=io.StringIO(), interval=0) as progress:
        progress(1, 8, loss=0.75)
        progress(8, 8, loss=0.25, reward=1.5)
    bar, line = (part.render() for part in card)
    assert (bar["type"], bar["label"], bar["value"], bar["max"]) == ("progressBar", "train", 8, 8)
    assert line["source"].strip() == "loss 0.25 · reward 1.5"


def test_where_else_a_run_is_seen_is_plain_text():
    links = {"metrics": "/store/metrics/run.jsonl", "wandb": "https://host/<b>run</b>"}
    shown = [part.render() for part in report_card(HISTORY, [], {"seed": 1}, title="Run 1", links=links)]
    (table,) = [part for part in shown if part.get("columns") == ["tracker", "address"]]
    assert table["data"] == [["metrics", "/store/metrics/run.jsonl"], ["wandb", "https://host/<b>run</b>"]]
