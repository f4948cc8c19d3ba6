"""Policies of words: their prompts, weights and files."""

from __future__ import annotations

import torch

from components.data.records import Prompt

BOS, EOS, PAD, UNK, USER, END = range(6)  # of the tokenizers in support.models.words; word w7 has id 7
CHAT = (
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system turn') }}{% endif %}"
    "{{ bos_token }}{% for m in messages %} user: {{ m['content'] }} {{ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %} w6{% endif %}"
)
CHAT_IDS = [BOS, USER, 7, 8, EOS, 6]


def prompt(text="w7 w8", *turns, id="p"):
    """A prompt of one user turn, after `turns`, which are (role, content)."""
    messages = (*turns, ("user", text))
    return Prompt(id, tuple({"role": role, "content": content} for role, content in messages))


def weights(policy):
    return {name: p.detach().clone() for name, p in policy.model.named_parameters()}


def assert_same_weights(first, second):
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
