"""Runs vLLM in a process of its own, to sample or to read: `python -m components.generation._vllm_worker` in a folder.

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

from components.data.records import Ragged
from components.generation._stopping import Stopping

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
    _report(reports, done=0, tokens=0)  # it has started
    arrays = _next(engine, request["next"], reports) if "next" in request else _sample(engine, request, reports)
    engine.engine_core.shutdown()
    np.savez(SAMPLES, **arrays)


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

    _use_what_is_compiled()
    config = EngineArgs(**arguments).create_engine_config()
    return LLMEngine.from_vllm_config(config, disable_log_stats=True)


def _use_what_is_compiled() -> None:
    """Lets vLLM load what it has compiled for a CPU.

    vLLM 0.32 loads it, asks it for a method that only what it compiles for GPUs has, and compiles anew for want of it.
    """
    import torch

    load = torch.compiler.load_compiled_function

    def loaded(*given: Any, **named: Any) -> Any:
        found = load(*given, **named)
        compiled = found._artifacts.compiled_fn  # type: ignore[attr-defined]  # as vLLM reads it
        if not hasattr(compiled, "finalize_loading"):
            compiled.finalize_loading = lambda _: None
        return found

    torch.compiler.load_compiled_function = loaded


def _next(engine: Any, ids: list[int], reports: TextIO) -> dict[str, Any]:
    """Log-probs of some tokens as the next one after each prompt, (N, T)."""
    from vllm import SamplingParams
    from vllm.inputs import tokens_input

    with np.load(PROMPTS) as arrays:
        prompts = Ragged(arrays["values"], arrays["offsets"])
    parameters = SamplingParams(max_tokens=1, temperature=0.0, logprob_token_ids=ids, detokenize=False)
    for number in range(len(prompts)):
        engine.add_request(str(number), tokens_input(prompts[number].tolist()), parameters)
    logp = np.full((len(prompts), len(ids)), np.nan)
    done = 0
    while engine.has_unfinished_requests():
        for output in engine.step():
            if output.finished:
                [known] = output.outputs[0].logprobs
                logp[int(output.request_id)] = [known[i].logprob for i in ids]
                done += 1
        _report(reports, done=done, tokens=done)
    return {"logp": logp}


def _sample(engine: Any, request: dict[str, Any], reports: TextIO) -> dict[str, Any]:
    """Token ids of each response, in the order of the seeds, and the log-probs of all their tokens."""
    stopping, total = _stopping(request), 0
    requests = _requests(request["sampling"], request["unused"], step_by_step=stopping is not None)
    for number, (prompt, parameters) in enumerate(requests):
        engine.add_request(str(number), prompt, parameters, lora_request=_adapter(request["adapter"]))
        total += 1
    rows: list[list[int]] = [[] for _ in range(total)]
    logp: list[list[float]] = [[] for _ in range(total)]
    done = tokens = 0
    while engine.has_unfinished_requests():
        outputs = engine.step()
        for output in outputs:
            response, number = output.outputs[0], int(output.request_id)
            rows[number] += response.token_ids
            logp[number] += [known[i].logprob for i, known in zip(response.token_ids, response.logprobs, strict=True)]
        stopped = _stopped([output.request_id for output in outputs if not output.finished], rows, stopping)
        engine.abort_request(stopped)
        done += sum(output.finished for output in outputs) + len(stopped)
        tokens += sum(len(output.outputs[0].token_ids) for output in outputs)
        _report(reports, done=done, tokens=tokens)
    responses = Ragged.of(rows)
    return {"values": responses.values, "offsets": responses.offsets, "logp": np.concatenate(logp)}


def _stopping(request: dict[str, Any]) -> Stopping | None:
    """What finds the stop strings; None where there are none to be found in texts."""
    if not request["stop"]:
        return None
    from components.policy import pretrained

    code = request["engine"]["trust_remote_code"]
    tokenizer = pretrained.read_tokenizer(Path(request["engine"]["model"]), key="policy", name="model", code=code)
    found = Stopping(tokenizer, request["stop"], request["shown"])
    return found if found.texts else None


def _stopped(running: list[str], rows: list[list[int]], stopping: Stopping | None) -> list[str]:
    """Which of the running requests have completed a stop string."""
    if stopping is None or not running:
        return []
    completed = stopping.completed([rows[int(name)] for name in running])
    return [name for name, complete in zip(running, completed, strict=True) if complete]


def _requests(sampling: dict[str, Any], unused: list[int], *, step_by_step: bool) -> Iterator[tuple[Any, Any]]:
    """Prompt and sampling parameters of each response: vLLM has one seed per request, not per response of one.

    `unused` are ids that are no token's, which a bias of -100 keeps from being drawn. vLLM tells of tokens
    `step_by_step`, or of the whole response at its end.
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
                output_kind=RequestOutputKind.DELTA if step_by_step else RequestOutputKind.FINAL_ONLY,
            )
            yield tokens_input(ids), parameters


def _adapter(folder: str | None) -> Any:
    from vllm.lora.request import LoRARequest

    return None if folder is None else LoRARequest("policy", 1, folder)


if __name__ == "__main__":
    main()
