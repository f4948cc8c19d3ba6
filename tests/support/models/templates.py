"""Policies and prompts with a chat template of one's own, for tests."""

from __future__ import annotations

from dataclasses import replace

from components.config.sections import PolicyConfig
from components.data.records import Prompt
from components.policy.chat import Chat
from components.policy.model import load
from support.models.families import FAMILIES, make_tokenizer, save_policy

CHATML = FAMILIES["qwen2.5"]
TURNS = "{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}"
BEGIN = "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
ALL = "{% for m in messages %}" + TURNS + "{% endfor %}" + BEGIN


def prompt(*turns):
    """A prompt of turns, which are (role, content); a single text is the user's."""
    pairs = [("user", turn) if isinstance(turn, str) else turn for turn in turns]
    return Prompt("p7", tuple({"role": role, "content": content} for role, content in pairs))


def chat(template, family=CHATML, **options):
    tokenizer = make_tokenizer(replace(family, template=template))
    return Chat(tokenizer, options, (tokenizer.eos_token_id,))


def shown(template, *turns, **options):
    found = chat(template, **options)
    return found.tokenizer.decode(found.encode(prompt(*turns)))


def policy(folder, config=None, **family):
    return load(save_policy(replace(CHATML, **family), folder), config or PolicyConfig())
