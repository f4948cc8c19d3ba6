"""The samples of a run that changed most, few enough for its report card."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import replace

from components.samples import page
from components.samples.collect import collect
from components.samples.files import RunFiles
from components.samples.records import Asked, Batch, Samples, Side

MOST = 20  # prompts of each side
LIMIT = 250_000  # bytes of texts and figures of each side
READ = 20_000_000  # bytes, about, of those that are looked through
LONGEST = 2_000  # characters of a text
FIGURES = 80  # bytes that a response's figures take, about


def rendered(files: RunFiles) -> str:
    """The page of `excerpt` as HTML."""
    return page.render(excerpt(collect(files, limit=READ)))


def excerpt(samples: Samples, *, most: int = MOST, limit: int = LIMIT) -> Samples:
    """The prompts of each side whose responses changed most, those first; as many as `limit` bytes hold, each.

    Held-out ones by how far the last policy's mean reward is from the reference's; without rewards, by the share of
    words that are not in both answers. Training ones by the mean |log-ratio| to the reference of the last responses
    drawn, and where nothing has moved yet, by the spread of their win rates.
    """
    trained = _shortened(samples.trained, _moved(samples.trained), most, limit)
    held_out = _shortened(samples.held_out, _changed(samples.held_out), most, limit)
    counts = [
        f"{len(side.prompts):,} of {len(whole.prompts):,} {kind} prompts"
        for side, whole, kind in ((trained, samples.trained, "training"), (held_out, samples.held_out, "held-out"))
    ]
    note = f"The responses that changed most first: {' and '.join(counts)}; texts end after {LONGEST:,} characters."
    return replace(samples, trained=trained, held_out=held_out, notes=[*samples.notes, note])


def _changed(side: Side) -> list[tuple[float, float]]:
    """How much the last policy's answers differ from the reference's, by prompt."""
    reference, policy = side.batches[0], side.batches[-1]
    found = []
    for ours, theirs in zip(_groups(policy, side), _groups(reference, side), strict=True):
        rewards = _mean(policy.reward, ours), _mean(reference.reward, theirs)
        difference = 0.0 if None in rewards else abs((rewards[0] or 0.0) - (rewards[1] or 0.0))
        new = [_new_words(reference.texts[a], policy.texts[b]) for a, b in zip(theirs, ours, strict=False)]
        found.append((difference, sum(new) / max(len(new), 1)))
    return found


def _moved(side: Side) -> list[tuple[float, float]]:
    """How far the last responses drawn are from the reference, by prompt."""
    if not side.batches:
        return []
    batch = side.batches[-1]
    found = []
    for rows in _groups(batch, side):
        ratios = [abs(value) for row in rows if (value := (batch.log_ratio or [])[row]) is not None]
        rates = [value for row in rows if (value := (batch.win_rate or [])[row]) is not None]
        found.append((sum(ratios) / max(len(ratios), 1), max(rates, default=0.0) - min(rates, default=0.0)))
    return found


def _groups(batch: Batch, side: Side) -> list[range]:
    """The rows of a batch that belong to each prompt of a side, none where it has none."""
    places = {prompt: place for place, prompt in enumerate(batch.prompts)}
    at = [places.get(prompt) for prompt in range(len(side.prompts))]
    return [range(0) if place is None else range(place * batch.k, (place + 1) * batch.k) for place in at]


def _mean(values: Sequence[float | None], rows: range) -> float | None:
    known = [value for row in rows if (value := values[row]) is not None]
    return sum(known) / len(known) if known else None


def _new_words(before: str, after: str) -> float:
    """1 less the share of words in both, in whatever order."""
    return 1 - difflib.SequenceMatcher(None, before.split(), after.split(), autojunk=False).quick_ratio()


def _shortened(side: Side, change: Sequence[tuple[float, float]], most: int, limit: int) -> Side:
    """The prompts with the greatest change and the responses to them, with their long texts cut."""
    order = sorted(range(len(change)), key=lambda prompt: change[prompt], reverse=True)[:most]
    batches = [_of_prompts(batch, side, order) for batch in side.batches]
    prompts = [_short(side.prompts[prompt]) for prompt in order]
    while prompts and _size(prompts, batches) > limit:
        order.pop()
        prompts, batches = prompts[:-1], [_of_prompts(batch, side, order) for batch in side.batches]
    return Side(prompts, side.fields if prompts else [], [batch for batch in batches if batch.prompts])


def _of_prompts(batch: Batch, side: Side, order: Sequence[int]) -> Batch:
    """The responses to some prompts, which are numbered anew in this order."""
    groups = _groups(batch, side)
    rows = [row for prompt in order for row in groups[prompt]]

    def few(values: Sequence[float | None]) -> list[float | None]:
        return [values[row] for row in rows]

    return replace(
        batch,
        prompts=[new for new, prompt in enumerate(order) if groups[prompt]],
        texts=[_cut(batch.texts[row]) for row in rows],
        truncated=[batch.truncated[row] for row in rows],
        tokens=[batch.tokens[row] for row in rows],
        reward=few(batch.reward),
        parts={name: few(values) for name, values in batch.parts.items()},
        win_rate=batch.win_rate and few(batch.win_rate),
        log_ratio=batch.log_ratio and few(batch.log_ratio),
        logp=batch.logp and few(batch.logp),
    )


def _short(prompt: Asked) -> Asked:
    answer = None if prompt.answer is None else _cut(prompt.answer)
    return replace(prompt, messages=[(role, _cut(content)) for role, content in prompt.messages], answer=answer)


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"


def _size(prompts: Sequence[Asked], batches: Sequence[Batch]) -> int:
    asked = sum(len(content.encode()) for prompt in prompts for _, content in prompt.messages)
    return asked + sum(len(text.encode()) + FIGURES for batch in batches for text in batch.texts)
