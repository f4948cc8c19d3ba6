"""A reward model behind a URL, for the judge `http`: any Hugging Face sequence classifier with one label.

    python examples/reward_server/server.py --model Skywork/Skywork-Reward-V2-Qwen3-0.6B --port 8000

The HTTP part is Python's standard library alone, to be read and changed; transformers and torch score.
"""

from __future__ import annotations

import argparse
import hmac
import json
import os
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

Turns = list[dict[str, str]]


class Model:
    """A sequence classifier and its tokenizer."""

    def __init__(self, name: str) -> None:
        """Args: name is a directory or a hub id."""
        device = "cuda" if torch.cuda.is_available() else "cpu"
        self._tokenizer = AutoTokenizer.from_pretrained(name)
        self._model = AutoModelForSequenceClassification.from_pretrained(name, dtype="auto").to(device).eval()
        self._lock = threading.Lock()  # requests come at the same time
        if self._model.config.num_labels != 1:
            sys.exit(f"error: {name} has {self._model.config.num_labels} labels, a reward model has one.")

    def scores(self, prompts: list[Turns], responses: list[str]) -> list[float]:
        """The score of each response to its prompt."""
        texts = [self._text(turns, response) for turns, response in zip(prompts, responses, strict=True)]
        together = self._model.config.pad_token_id is not None and self._tokenizer.pad_token is not None
        batches = [texts] if together else [[text] for text in texts]
        with self._lock:
            return [score for batch in batches for score in self._forward(batch)]

    def _text(self, turns: Turns, response: str) -> str:
        if self._tokenizer.chat_template is None:
            return "\n".join([*(turn["content"] for turn in turns), response])
        answered = [*turns, {"role": "assistant", "content": response}]
        return str(self._tokenizer.apply_chat_template(answered, tokenize=False))

    @torch.inference_mode()
    def _forward(self, texts: list[str]) -> list[float]:
        plain = self._tokenizer.chat_template is None  # a template writes all special tokens itself
        many = len(texts) > 1
        batch = self._tokenizer(texts, add_special_tokens=plain, padding=many, return_tensors="pt")
        inputs = {name: batch[name].to(self._model.device) for name in ("input_ids", "attention_mask")}
        scores: list[float] = self._model(**inputs).logits[:, 0].float().tolist()
        return scores


def read(body: Any) -> tuple[list[Turns], list[str]]:
    """Prompts and responses of a request. Raises ValueError with what is wrong."""
    if not isinstance(body, dict) or not all(isinstance(body.get(name), list) for name in ("prompts", "responses")):
        raise ValueError('is not {"prompts": [...], "responses": [...]}')
    prompts, responses = body["prompts"], body["responses"]
    if len(prompts) != len(responses):
        raise ValueError(f"has {len(prompts)} prompts and {len(responses)} responses")
    if not all(isinstance(response, str) for response in responses):
        raise ValueError("has responses that are no text")
    for turns in prompts:
        if not isinstance(turns, list) or not all(
            isinstance(turn, dict) and all(isinstance(turn.get(name), str) for name in ("role", "content"))
            for turn in turns
        ):
            raise ValueError("has prompts that are no lists of {role, content}")
    return prompts, responses


def handler(model: Model, key: str | None) -> type[BaseHTTPRequestHandler]:
    """What answers requests; with a key only those that bring it."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if key and not hmac.compare_digest(
                self.headers.get("Authorization", "").encode(), f"Bearer {key}".encode()
            ):
                self._answer(401, {"error": "the key is missing or wrong"})
                return
            try:
                prompts, responses = read(json.loads(body))
            except ValueError as error:  # also of what is no JSON
                self._answer(400, {"error": f"the request {error}"})
                return
            self._answer(200, {"scores": model.scores(prompts, responses)})

        def _answer(self, status: int, value: Any) -> None:
            data = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

    return Handler


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Serves a reward model for the judge http.")
    parser.add_argument("--model", required=True, help="directory or hub id of a classifier with one label")
    parser.add_argument("--host", default="127.0.0.1", help="default: 127.0.0.1, this machine alone")
    parser.add_argument("--port", type=int, default=8000, help="default: 8000; 0: a free one")
    parser.add_argument("--key-env", metavar="NAME", help="environment variable of a key that requests must bring")
    given = parser.parse_args()
    key = None
    if given.key_env and not (key := os.environ.get(given.key_env)):
        parser.error(f"the environment variable {given.key_env} is not set")
    server = ThreadingHTTPServer((given.host, given.port), handler(Model(given.model), key))
    print(f"judge: {{name: http, url: 'http://{given.host}:{server.server_address[1]}/'}}", flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        parser.exit(130, "interrupted\n")


if __name__ == "__main__":
    main()
