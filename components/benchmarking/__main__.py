"""Tells what a policy reaches in an outside benchmark, or two of them beside each other.

    wind benchmark ifbench MODEL [AFTER] [--out FILE] [--limit N]

MODEL and AFTER are as `policy.model` of a config: a directory, such as `wind export` writes, a hub id, a .gguf file.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from components.benchmarking import ifbench, report
from components.benchmarking.answers import Answering, answer
from components.benchmarking.ifbench import IFBench
from components.benchmarking.report import Result
from components.config.paths import argument
from components.config.schema import Section, validated
from components.config.sections import PolicyConfig
from components.config.strict_yaml import load_yaml
from components.generation import Engine
from components.run_config.fields import EngineField
from components.runtime.terminal import Parser, command, plain_errors, visible, waiting

BATCH = 32  # answers at a time, of thousands of tokens
LONGEST = 4096  # tokens; the package's own setting


class EngineAlone(Section):
    """A config of nothing but an engine."""

    engine: EngineField


@command
def main(arguments: list[str] | None = None, prog: str = "wind benchmark") -> None:
    """The command line; see `plain_errors`."""
    given = _parser(prog).parse_args(arguments)
    out = given.out or Path(f"{given.benchmark}.json")
    with plain_errors(written=out):
        report.check(out)
    with plain_errors():
        models = [_policy(given, name) for name in (given.model, given.after) if name is not None]
        settings = Answering(_engine(given.engine), given.max_new_tokens, given.cut_thinking)
        benchmark = ifbench.load(given.limit)
        with waiting(f"checking the engine {settings.engine.name}"):
            settings.engine.check()
        if note := report.left_out(benchmark):
            print(note, flush=True)
        results = [_result(benchmark, model, settings) for model in models]
    try:
        print(visible(report.text(benchmark, results, settings)))
    finally:  # answers take hours: neither a full disk loses the table, nor a closed terminal the file
        with plain_errors(written=out):
            report.write(out, report.values(benchmark, results, settings))
    print(f"\n{out} has every answer.")


def _result(benchmark: IFBench, model: PolicyConfig, settings: Answering) -> Result:
    from components.reporting.cards import StepProgress

    with (
        waiting(f"loading {model.model}, which then answers") as heard,
        StepProgress(f"answers of {model.model}", heard=heard) as progress,
    ):
        answers = answer(model, [task.prompt for task in benchmark.tasks], settings, progress)
    checked = [ifbench.check(task, one.text) for task, one in zip(benchmark.tasks, answers, strict=True)]
    return Result(str(model.model), answers, checked)


def _parser(prog: str) -> argparse.ArgumentParser:
    parser = Parser(
        prog=prog, description="Tells what a policy reaches in an outside benchmark, or two of them beside each other."
    )
    parser.add_argument(
        "benchmark", choices=["ifbench"], help="IFBench: are instructions kept that a program can check"
    )
    parser.add_argument("model", metavar="MODEL", help="directory, hub id, .gguf file or package:NAME")
    parser.add_argument("after", metavar="AFTER", nargs="?", help="another, to be compared prompt by prompt")
    parser.add_argument("--out", metavar="FILE", type=argument, help="JSON with every answer; default: ./ifbench.json")
    parser.add_argument("--limit", metavar="N", type=_count, help="take the first N prompts; default: all")
    parser.add_argument(
        "--max-new-tokens", metavar="N", type=_count, default=LONGEST, help=f"longest answer; default: {LONGEST}"
    )
    parser.add_argument(
        "--engine",
        metavar="NAME|YAML",
        default=f"{{name: transformers, batch_size: {BATCH}}}",
        help="as generation.engine of a config: vllm, '{name: vllm, tensor_parallel: 2}'; default: %(default)s",
    )
    parser.add_argument("--cut-thinking", action="store_true", help="what stands in <think> is no part of an answer")
    parser.add_argument("--prompt-format", metavar="TEXT", help="for models without a chat template: '… {prompt} …'")
    parser.add_argument("--trust-remote-code", action="store_true", help="run code that ships with the model")
    return parser


def _policy(given: argparse.Namespace, name: str) -> PolicyConfig:
    options = {"prompt_format": given.prompt_format, "trust_remote_code": given.trust_remote_code}
    return validated(PolicyConfig, {"model": name, **options})


def _engine(text: str) -> Engine:
    """Raises ConfigError for what names no engine, or gives settings that it does not have."""
    given = load_yaml(f"engine: {text}")["engine"]
    return validated(EngineAlone, {"engine": {"name": given} if isinstance(given, str) else given}).engine


def _count(text: str) -> int:
    if not re.fullmatch("0*[1-9][0-9]{0,8}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 1 on")
    return int(text)


if __name__ == "__main__":
    main()
