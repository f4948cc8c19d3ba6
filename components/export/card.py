"""A policy's model card: README.md, as people and the hub read it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from components.evaluation.parts import SHOWN, evaluated, tidy
from components.export import metadata, reproduce
from components.export.facts import Facts
from components.export.markdown import block, code, table
from components.export.metadata import Told
from components.export.public import public_text
from components.export.sources import base_on_hub, datasets_on_hub
from components.reporting import report
from components.reporting.text import number

NAME = "README.md"
PAPER = "https://arxiv.org/abs/2410.20727"
CITATION = """\
@inproceedings{yang2025faster,
  title     = {Faster {WIND}: Accelerating Iterative Best-of-{N} Distillation for {LLM} Alignment},
  author    = {Yang, Tong and Mei, Jincheng and Dai, Hanjun and Wen, Zixin and Cen, Shicong and Schuurmans, Dale
               and Chi, Yuejie and Dai, Bo},
  booktitle = {International Conference on Artificial Intelligence and Statistics (AISTATS)},
  year      = {2025},
  url       = {https://arxiv.org/abs/2410.20727}
}"""


def write(directory: Path, facts: Facts, told: Told) -> Path:
    """Writes the card of the policy in a directory, in place of any other there."""
    from huggingface_hub import ModelCard

    front = metadata.of(facts, told).to_yaml()
    sections = "\n\n".join(text for text in _sections(facts, told, directory) if text)
    card = ModelCard(f"---\n{front}\n---\n\n{sections}\n")
    path = directory / NAME
    path.unlink(missing_ok=True)
    card.save(path)
    return path


def _sections(facts: Facts, told: Told, directory: Path) -> Iterator[str]:
    yield f"# {code(public_text(told.name))}"
    yield _verdict(facts)
    yield from _origin(facts, told)
    yield from reproduce.use(facts, told, directory)
    if facts.iteration:
        yield from _data(facts)
        yield from _judge(facts)
        yield from reproduce.method(facts)
    yield from _figures(facts)
    yield from _comparison(facts)
    yield from _examples(facts)
    yield from _untested(facts)
    yield from reproduce.made_with(facts)
    yield f"## Citation\nThe method is that of [Faster WIND]({PAPER}):\n\n{block(CITATION, 'bibtex')}"


def _verdict(facts: Facts) -> str:
    if facts.history is None or not facts.iteration:
        return "The base policy of a run of WIND on Metaflow, as the run began with it: nothing is trained yet."
    if facts.measured is None:
        return f"The policy after iteration {facts.iteration}. It was not evaluated after that one."
    return public_text(report.against_reference(facts.history)) + " The base model is the reference."


def _origin(facts: Facts, told: Told) -> Iterator[str]:
    yield "## What it was made of"
    weights = {
        (False, False): "The weights are those of the base model.",
        (False, True): "All weights were trained, and all are here.",
        (True, True): "A LoRA adapter was trained and is **merged** into the weights: the files are a whole model.",
    }
    own = (facts.adapted, bool(facts.iteration))
    kept = f" They are stored as {code(facts.dtype)}." if facts.dtype else ""
    yield f"* Base model: {_base(facts, told)}\n* {weights.get(own, weights[True, True])}{kept}\n* {_license(told)}"


def _base(facts: Facts, told: Told) -> str:
    settings = facts.config["policy"]
    model, revision = settings["model"], settings.get("revision")
    at = f", revision {code(public_text(revision))}" if revision else ""
    if model is None:
        return "a small Llama that the demo of WIND on Metaflow makes itself"
    if (base := base_on_hub(facts.config)) and not told.base_unknown:
        return f"[{code(base)}](https://huggingface.co/{base}){at}; its own card has what holds for it"
    if base:
        return f"{code(base)}{at}, which the hub does not show to the token of this upload"
    return f"{code(public_text(model))}, from the machine of the run{at}"


def _license(told: Told) -> str:
    if not told.license:
        return "License: not known here; see that of the base model."
    return f"License: {code(public_text(told.license.get('license_name', told.license.get('license', ''))))}"


def _data(facts: Facts) -> Iterator[str]:
    prompts, history = facts.config["prompts"], facts.history
    assert history is not None
    yield "## Data"
    if facts.config.get("demo") is not None:
        yield "Prompts that the demo makes itself: lists of numbers to sort."
    named = [prompts["train"]] if isinstance(prompts["train"], str) else prompts["train"] or []
    hub = datasets_on_hub(facts.config)
    for name in named:
        link = f"[{code(name)}](https://huggingface.co/datasets/{name})" if name in hub else code(public_text(name))
        yield f"* Prompts: {link}"
    drawn, asked = int(history["responses"].sum()), int(history["prompts"].sum())
    yield (
        f"Trained on {drawn:,} responses that the policies of the run drew themselves, to {asked:,} prompts over "
        f"{len(history)} iteration{'' if len(history) == 1 else 's'}; no response of people or of another model."
    )


def _judge(facts: Facts) -> Iterator[str]:
    judge = facts.config["judge"]
    what = [judge.get(name) for name in ("model", "function", "url") if judge.get(name)]
    told = ", ".join(code(public_text(str(value))) for value in what)
    name = f"{code(public_text(judge['name']))}{f' ({told})' if told else ''}"
    yield "## Judge"
    yield (
        f"{name} decided which response is better, in training and in the figures below: they tell of this "
        "judge's preferences and of no other's."
    )


def _figures(facts: Facts) -> Iterator[str]:
    history = facts.history
    if history is None or not len(history):
        return
    yield "## Figures"
    yield table(report.HEADERS, report.summary_rows(history))
    yield (
        "Win rate: against the base model on held-out prompts, with the 95 % interval of its mean over these prompts; "
        "vs previous: against the policy evaluated before. KL to the base model in nats per response, reward is the "
        "judge's mean score, tokens the mean length."
    )
    if rows := report.benchmark_rows(history):
        yield table(report.benchmark_headers(history), [[code(cell) for cell in row[:2]] + row[2:] for row in rows])
    parts = tidy(history) if len(evaluated(history)) else pd.DataFrame()
    if len(parts) and (parts["name"].ne(SHOWN) | parts["group"].ne("")).any():
        last = parts[parts["iteration"].isin([0, parts["iteration"].max()])].to_dict("records")
        told = [
            [
                *(code(public_text(row["name"])), code(public_text(row["group"])) if row["group"] else "all"),
                *(str(row["iteration"]), *(number(row[name], ".3f") for name in ("mean", "low", "high"))),
            ]
            for row in last
        ]
        yield "Parts and groups, after the last evaluation; iteration 0 is the base model:"
        yield table(["what", "prompts", "iteration", "mean", "95% low", "95% high"], told)
    yield from (f"> Iteration {count}: {code(public_text(text), longest=600)}" for count, text in _warned(facts))


def _warned(facts: Facts) -> list[tuple[int, str]]:
    return [] if facts.history is None else list(report.warned(facts.history).items())


def _comparison(facts: Facts) -> Iterator[str]:
    if facts.compared is None:
        return
    from components.comparison import analysis
    from components.comparison import report as compared

    results, arm = facts.compared.results, facts.compared.arm
    rows = [[code(row[0]), *row[1:]] for row in compared.summary_rows(results)]
    yield "## Compared with"
    yield f"This policy is the arm {code(arm)} of a comparison; all arms start from one base model."
    yield table(compared.SUMMARY_HEADERS, rows)
    yield compared.SUMMARY_NOTE
    yield "\n".join(f"* {code(sentence, longest=600)}" for sentence in analysis.verdicts(results))


def _examples(facts: Facts) -> Iterator[str]:
    if not facts.examples:
        return
    yield "## Examples"
    yield "Held-out prompts, each with one answer of the base model and one of this policy, as they were drawn."
    for example in facts.examples:
        yield block(public_text(example["prompt"]), "text")
        yield f"Base model:\n\n{block(public_text(example['reference_response']))}"
        yield f"This policy:\n\n{block(public_text(example['final_response']))}"


def _untested(facts: Facts) -> Iterator[str]:
    config = facts.config
    sampled = config["generation"]
    points = [
        "Safety: harmful, false or biased answers, and attempts to bring them about.",
        "Prompts unlike the held-out ones above, and other languages.",
        f"Answers longer than {sampled['max_new_tokens']:,} tokens, prompts longer than "
        f"{config['policy']['max_prompt_tokens']:,}, other temperatures than {sampled['temperature']:g}.",
        "Other judges, people among them: a policy may learn what a judge likes and not what is better.",
    ]
    if not config.get("evaluation", {}).get("tasks"):
        points.append("What it may have forgotten: no benchmark was run.")
    if facts.iteration and facts.compared is None:
        points.append("Other seeds: the intervals are over prompts, and do not tell how far another run would differ.")
    yield "## What it was not tested for"
    yield "\n".join(f"* {point}" for point in points)
