"""Chat templates: prompts to token ids, and what in a template would make a run go wrong.

Nothing of a prompt may be lost in its template, and nothing that a user wrote may become a control token there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from functools import cached_property
from typing import Any

from jinja2 import TemplateError, TemplateSyntaxError

from components.config.errors import PolicyError
from components.data.records import Prompt
from components.policy import templates
from components.policy.library import PreTrainedTokenizerBase

# What a template that asks for today's date is told, or a prompt would be another one tomorrow. Llama's templates fall
# back on this day.
TODAY = date(2024, 7, 26)
TEMPLATE_ERRORS = (
    *(TemplateError, TypeError, ValueError, KeyError, AttributeError, IndexError, ArithmeticError),
    *(RecursionError, MemoryError, SyntaxError),  # the last of what Python makes of {% break %} outside a loop
)
SETTINGS = "tokenizer_config.json"
QUESTION, ANSWER = "Qwhat", "Awhat"  # stand for turns where a template is tried
_MARK = "\ue000{}\ue001"  # of the private-use area: stands for a control token's name in a text
_MARKS = re.compile("\ue000([0-9]+)\ue001")

Turn = Mapping[str, Any]


def render(
    tokenizer: PreTrainedTokenizerBase, turns: Sequence[Turn], *, answer: bool, options: Mapping[str, Any]
) -> str:
    """The text of turns, with the header of an answer to come if `answer`; today is always `TODAY`.

    Raises one of TEMPLATE_ERRORS where the template refuses the turns.
    """
    fixed = {"strftime_now": TODAY.strftime, **options}
    text: str = tokenizer.apply_chat_template(list(turns), tokenize=False, add_generation_prompt=answer, **fixed)
    return text


@dataclass(frozen=True)
class Chat:
    """A tokenizer's way from turns to token ids."""

    tokenizer: PreTrainedTokenizerBase
    options: Mapping[str, Any] = field(default_factory=dict)  # for the template
    eos_ids: tuple[int, ...] = ()
    called: str = "the model's chat template"  # in messages
    key: str = "policy"  # section of the config with model and options, in messages

    @cached_property
    def names(self) -> dict[bool, re.Pattern[str]]:
        """What names a control token in a text: special ones and EOS; in a user's (True) all that a template writes."""
        added = self.tokenizer.added_tokens_decoder.values()
        template = str(self.tokenizer.chat_template or "")
        ends = set(self.tokenizer.convert_ids_to_tokens(list(self.eos_ids)))
        special = {token.content for token in added if token.special or token.content in ends}
        written = {token.content for token in added if token.content in template}
        return {True: _any_of(special | written), False: _any_of(special)}

    @cached_property
    def parts(self) -> bool:
        """Whether the template reads a turn's content only as a list of parts."""
        return not self._shows(QUESTION) and self._shows([{"type": "text", "text": QUESTION}])

    def _shows(self, content: Any) -> bool:
        try:
            return QUESTION in self._render([{"role": "user", "content": content}], answer=True)
        except TEMPLATE_ERRORS:
            return False

    def _render(self, turns: Sequence[Turn], *, answer: bool) -> str:
        return render(self.tokenizer, turns, answer=answer, options=self.options)

    def encode(self, prompt: Prompt) -> list[int]:
        """Token ids of a prompt up to where the response begins.

        Raises PolicyError, with the prompt's id, for turns that the template refuses or of which it drops text.
        """
        found: list[str] = []
        turns = [self._marked(turn, found) for turn in prompt.messages]
        return self.ids(self.write(turns, prompt.id, answer=True), found, prompt.id)

    def write(self, turns: Sequence[Mapping[str, str]], prompt_id: str, *, answer: bool) -> str:
        """The text of a prompt's turns, all of them, with the header of an answer to come if `answer`.

        Raises PolicyError, with the prompt's id, for turns that the template refuses or of which it drops text.
        """
        try:
            text = self._render([self._as_read(turn) for turn in turns], answer=answer)
        except TEMPLATE_ERRORS as error:  # some templates take no system turn, or only alternating roles
            roles = ", ".join(turn["role"] for turn in turns)
            raise PolicyError(
                f"prompt {prompt_id!r}: {self.called} refuses its turns ({roles}): {error}. {self._remedy()}"
            ) from error
        if lost := templates.lost(turns, text):
            raise PolicyError(
                f"prompt {prompt_id!r}: {self.called} leaves out what its {lost} turn says. Change "
                "the prompt's messages, or the template in the model's directory."
            )
        if place := templates.address(text, turns):
            raise PolicyError(
                f"prompt {prompt_id!r}: {self.called} writes {place}, which is another text in each process. Correct "
                "the template in the model's directory: it may lack () behind a name."
            )
        return text

    def _remedy(self) -> str:
        try:
            self._render([self._as_read({"role": "user", "content": QUESTION})], answer=True)
        except TEMPLATE_ERRORS:
            return templates.remedy(self.options, self.key)
        return "Change the prompt's messages."

    def plain(self, text: str, shown: str, prompt: Prompt) -> list[int]:
        """Token ids of a format with `shown`, the prompt's text, in its place; of control tokens, it alone has none."""
        found: list[str] = []
        marked = self._marked({"role": "user", "content": shown}, found)["content"]
        return self.ids(text.replace("{prompt}", marked), found, prompt.id)

    def ids(self, text: str, found: Sequence[str], prompt_id: str) -> list[int]:
        """Token ids of a text in which marks stand for the names of control tokens, which stay text."""
        pieces = _MARKS.split(text)
        ids = [list(self._ids(piece)) for piece in pieces[::2]]
        names = [self._spelled(found[int(number)], prompt_id) for number in pieces[1::2]]
        return [i for piece, name in zip(ids, [*names, []], strict=True) for i in (*piece, *name)]

    def _ids(self, text: str, **options: Any) -> Sequence[int]:
        ids: Sequence[int] = self.tokenizer(text, add_special_tokens=False, verbose=False, **options)["input_ids"]
        return ids if text else []

    def _spelled(self, name: str, prompt_id: str) -> list[int]:
        """A control token's name as text."""
        added = self.tokenizer.get_added_vocab()
        control = {added[name]} if name in added else set()
        for ids in (self._ids(name, split_special_tokens=True), [*self._ids(name[:1]), *self._ids(name[1:])]):
            if not control & set(ids):
                return list(ids)
        raise PolicyError(
            f"prompt {prompt_id!r}: holds {name!r}, which the tokenizer reads as a control token. Remove it there."
        )

    def _marked(self, turn: Turn, found: list[str]) -> dict[str, str]:
        """A turn with marks in place of control tokens' names, which are added to `found`."""

        def mark(match: re.Match[str]) -> str:
            found.append(match[0])
            return _MARK.format(len(found) - 1)

        own = turn["role"] == "assistant"  # what the model wrote may hold such tokens as <think>, of its own
        return {**turn, "content": self.names[not own].sub(mark, turn["content"])}

    def _as_read(self, turn: Turn) -> Turn:
        return {**turn, "content": [{"type": "text", "text": turn["content"]}]} if self.parts else turn

    def conversation(self) -> str | None:
        """A question and its answer as the template writes them; None where it cannot or leaves the answer out."""
        turns = [{"role": "user", "content": QUESTION}, {"role": "assistant", "content": ANSWER}]
        try:
            text = self._render([self._as_read(turn) for turn in turns], answer=False)
        except TEMPLATE_ERRORS:
            return None
        return text if ANSWER in text else None


def _any_of(names: set[str]) -> re.Pattern[str]:
    longest = sorted((name for name in names if name and name.strip()), key=lambda name: (-len(name), name))
    return re.compile("|".join([*map(re.escape, longest), _MARKS.pattern]))  # marks of a user's own stay text, too


def check(chat: Chat, key: str = "policy") -> None:
    """Raises PolicyError for a template that draws at random, and for several of which none is chosen."""
    template = chat.tokenizer.chat_template
    if not isinstance(template, (str, dict)):
        raise PolicyError(f"{key}.model: its chat template is {template!r:.80} and not text. Correct {SETTINGS}.")
    if isinstance(template, dict):
        chosen = chat.options.get("chat_template", "default")
        if chosen not in template:
            raise PolicyError(
                f"{key}.template_options: the tokenizer has several chat templates ({', '.join(sorted(template))}). "
                f"Choose one, such as {{chat_template: {sorted(template)[0]}}}."
            )
        template = template[chosen]
    elif "chat_template" in chat.options:
        template = str(chat.options["chat_template"])
    try:
        chat._render([chat._as_read({"role": "user", "content": QUESTION})], answer=True)
    except TemplateSyntaxError as error:
        raise PolicyError(
            f"{key}.model: its chat template cannot be read, line {error.lineno}: {error.message}. Correct it in "
            f"chat_template.jinja or {SETTINGS}."
        ) from error
    except SyntaxError as error:
        raise PolicyError(
            f"{key}.model: its chat template is none that Python can run ({error.msg}). Correct it in "
            f"chat_template.jinja or {SETTINGS}."
        ) from error
    except TEMPLATE_ERRORS:
        pass  # the prompts will tell what it refuses
    templates.require_read(template, chat.options, key)
    if templates.draws(template):
        raise PolicyError(f"{key}.model: its chat template draws at random, so no prompt is ever the same. Change it.")


def check_generation_prompt(chat: Chat, key: str = "policy") -> None:
    """Raises PolicyError for a template that never begins an answer, though it has a header for one."""
    whole = chat.conversation()
    try:
        turns = [chat._as_read({"role": "user", "content": QUESTION})]
        question, asked = (chat._render(turns, answer=answer) for answer in (False, True))
    except TEMPLATE_ERRORS:
        return  # the prompts will tell what it refuses
    if whole is None or question != asked or not whole.startswith(asked):
        return
    header = whole.removeprefix(asked).partition(ANSWER)[0]
    if header.strip():
        raise PolicyError(
            f"{key}.model: its chat template begins an answer with {header!r}, and does not write that when asked for "
            "a generation prompt. Add {% if add_generation_prompt %} with it to the template's end."
        )


def turn_end(chat: Chat) -> int | None:
    """The token that ends an assistant's turn in the template; None where that writes nothing behind one.

    Raises PolicyError for an end that is text of several tokens, which no response could end with.
    """
    whole = chat.conversation()
    if whole is None:
        return None
    end = whole.rpartition(ANSWER)[2].strip()
    ids = [i for i in chat._ids(end) if chat.tokenizer.decode([i]).strip()]
    if not ids or (known := [i for i in ids if i in chat.eos_ids]):  # whatever a template writes around one
        return known[0] if ids else None
    if ids[0] in chat.tokenizer.added_tokens_decoder or len(ids) == 1:
        return ids[0]
    ends = ", ".join(repr(token) for token in chat.tokenizer.convert_ids_to_tokens(list(chat.eos_ids)))
    raise PolicyError(
        f"policy.model: its chat template ends an assistant's turn with {end!r}, which is {len(ids)} tokens and not "
        f"one, and no response would end there: EOS is {ends}. Let the template write EOS, or add such a token to the "
        "tokenizer."
    )
