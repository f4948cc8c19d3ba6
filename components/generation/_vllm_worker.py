"""Samples with vLLM, in a process of its own: `python -m components.generation._vllm_worker` in a folder.

The folder holds `request.json` and `request.npz` and gets `samples.npz`. Standard output carries reports, one JSON
object per line; whatever vLLM prints goes to standard error. Standard input carries nothing and ends with the task.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from components.records import Ragged

REQUEST, PROMPTS, SAMPLES = Path("request.json"), Path("request.npz"), Path("samples.npz")


def main() -> None:
    """Answers the request of the current folder."""
    threading.Thread(target=_end_with_task, daemon=True).start()
    reports = _take_standard_output()
    request = json.loads(REQUEST.read_text("utf-8"))
    try:
        engine = _start(request["engine"])
    except ValueError as error:  # what vLLM has against the model or the settings
        _report(reports, refused=str(error))
        return
    rows, logp = _sample(engine, request, reports)
    engine.engine_core.shutdown()
    tokens = Ragged.of(rows)
    np.savez(SAMPLES, values=tokens.values, offsets=tokens.offsets, logp=logp)


def _end_with_task() -> None:
    """Kills this process and its helpers when standard input ends.

    Left alone, vLLM's helpers notice only after their imports, or after a step, that nobody waits for them any more:
    up to half a minute in which they hold the GPU.
    """
    os.read(0, 1)
    for helper in multiprocessing.active_children():
        helper.kill()
    os.kill(os.getpid(), signal.SIGKILL)


def _take_standard_output() -> TextIO:
    """Standard output, for reports only: what is printed from now on goes to standard error."""
    reports = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return reports


def _report(reports: TextIO, **report: Any) -> None:
    print(json.dumps(report), file=reports, flush=True)


def _start(arguments: dict[str, Any]) -> Any:
    from vllm import EngineArgs, LLMEngine

    config = EngineArgs(**arguments).create_engine_config()
    return LLMEngine.from_vllm_config(config, disable_log_stats=True)


def _sample(engine: Any, request: dict[str, Any], reports: TextIO) -> tuple[list[Any], Any]:
    """Token ids and log-prob of each response, in the order of the seeds."""
    total = 0
    for number, (prompt, parameters) in enumerate(_requests(request["sampling"], request["unused"])):
        engine.add_request(str(number), prompt, parameters, lora_request=_adapter(request["adapter"]))
        total += 1
    rows: list[Any] = [None] * total
    logp, done = np.empty(total), 0
    while engine.has_unfinished_requests():
        for output in engine.step():
            response = output.outputs[0]
            rows[int(output.request_id)] = np.asarray(response.token_ids, np.int32)
            logp[int(output.request_id)] = response.cumulative_logprob
            done += 1
        _report(reports, done=done)
    return rows, logp


def _requests(sampling: dict[str, Any], unused: list[int]) -> Iterator[tuple[Any, Any]]:
    """Prompt and sampling parameters of each response: vLLM has one seed per request, not per response of one.

    `unused` are ids that are no token's, which a bias of -100 keeps from being drawn.
    """
    from vllm import SamplingParams
    from vllm.inputs import tokens_input
    from vllm.sampling_params import RequestOutputKind

    with np.load(PROMPTS) as arrays:
        prompts, seeds = Ragged(arrays["values"], arrays["offsets"]), arrays["seeds"]
    for i, row in enumerate(seeds):
        ids = prompts[i].tolist()
        for seed in row:
            parameters = SamplingParams(
                **sampling,
                seed=int(seed >> np.uint64(1)),  # a signed integer there, of which -1 stands for none
                ignore_eos=True,  # its idea of EOS; ours are among the stop tokens
                logprobs=0,  # of the drawn token alone
                detokenize=False,
                logit_bias=dict.fromkeys(unused, -100.0) or None,
                output_kind=RequestOutputKind.FINAL_ONLY,
            )
            yield tokens_input(ids), parameters


def _adapter(folder: str | None) -> Any:
    from vllm.lora.request import LoRARequest

    return None if folder is None else LoRARequest("policy", 1, folder)


if __name__ == "__main__":
    main()
