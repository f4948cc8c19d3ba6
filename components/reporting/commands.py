"""Commands that a user types next, as text."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence

LESS_MEMORY = {  # by kind of step: how its tasks need less
    "generate": "raise prompts.shards or lower generation.max_new_tokens, run fewer tasks at once (--max-workers), or ",
    "score": "raise prompts.shards, run fewer tasks at once (--max-workers), or ",
    "train": "lower training.micro_batch_size, or ",
    "evaluate": "lower prompts.held_out or evaluation.responses, or ",
}


def next_commands(flow_file: str, flow: str, run_id: str, folder: str | None = None) -> str:
    """The commands that show a finished run: report card, samples, final policy, history; see `command_lines`."""
    history = (
        f'from metaflow import Run, namespace; namespace(None); print(Run("{flow}/{run_id}").data.history.to_string())'
    )
    commands = [
        ("see the report", ["python", flow_file, "card", "view", f"{run_id}/end"]),
        ("see every sample", ["wind", "samples", f"{flow}/{run_id}"]),
        ("export the policy", ["wind", "export", f"{flow}/{run_id}", "exported"]),
        ("read the history", ["python", "-c", history]),
    ]
    return command_lines(commands, folder)


def command_lines(commands: Sequence[tuple[str, Sequence[str]]], folder: str | None = None) -> str:
    """Purposes and, beside them, the commands as one types them; those that need to be in `folder` go there first."""
    width = max(len(purpose) for purpose, _ in commands)
    return "\n".join(f"{purpose.ljust(width)}  {command_line(words, folder)}" for purpose, words in commands)


def command_line(words: Sequence[str], folder: str | None = None) -> str:
    """A command as one types it, after going to `folder` if there is one."""
    return f"cd {shlex.quote(folder)} && {shlex.join(words)}" if folder else shlex.join(words)


def resume_command(flow_file: str, run_id: str, options: Sequence[str] = (), folder: str | None = None) -> str:
    """The command that resumes a run where it failed. It names the run: a bare `resume` may pick another.

    Args:
        flow_file: path of the flow.
        run_id: the failed run.
        options: of the flow itself, such as --datastore s3.
        folder: where to go first, if the datastore is found only there.
    """
    return command_line(["python", flow_file, *options, "resume", "--origin-run-id", run_id], folder)


def kind_of(step: str) -> str:
    """Kind of a step: its name without an iteration."""
    return re.sub(r"_\d+$", "", step)


def killed(step: str) -> str:
    """What to do about a task of `step` that ended without an error of its own."""
    kind = kind_of(step)
    return (
        f"A task of {step} was killed from outside. If nobody did so, the machine had no memory left for it: "
        f"{LESS_MEMORY.get(kind, '')}raise resources.{kind}.memory where a cluster runs it."
    )
