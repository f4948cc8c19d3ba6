"""Groups of evaluation prompts by a metadata field: their names, their order, and what cannot be grouped."""

from __future__ import annotations

from datetime import date

import pytest

from components.config.errors import ConfigError, PromptError
from components.data.records import Prompt
from components.evaluation.groups import split
from components.run_config import parse


def prompts(*values, field="kind"):
    """Prompts p0, p1, … whose field has these values; of `...` it is absent."""
    return [
        Prompt(f"p{i}", ({"role": "user", "content": "?"},), None, {} if value is ... else {field: value, "level": 1})
        for i, value in enumerate(values)
    ]


def rows(*values):
    return {name: found.tolist() for name, found in split(prompts(*values), "kind").items()}


def test_groups_hold_the_rows_of_their_prompts_in_natural_order():
    found = rows("step 10", "step 9", "a", "step 10", "b")
    assert list(found.items()) == [("a", [2]), ("b", [4]), ("step 9", [1]), ("step 10", [0, 3])]


def test_numbers_and_truth_values_name_groups_and_white_space_is_one_blank():
    assert rows(10, 9, True, "9", 2.5, " two\n words ") == {
        "2.5": [4],
        "9": [1, 3],
        "10": [0],
        "True": [2],
        "two words": [5],
    }


def test_without_a_field_there_are_no_groups():
    assert split(prompts("a", "b"), None) == {}


def test_fifty_groups_are_the_most():
    assert len(rows(*range(50))) == 50
    with pytest.raises(PromptError) as caught:
        rows(*range(50), 50, 50)
    assert str(caught.value) == (
        "evaluation.group_by: 'kind' puts the 52 evaluation prompts into 51 groups, and 50 is the most. "
        "Name a field with fewer values."
    )


def test_a_field_that_no_prompt_has():
    with pytest.raises(PromptError) as caught:
        split(prompts("a", "b"), "knid")
    assert (
        str(caught.value) == "evaluation.group_by: no evaluation prompt has a field 'knid'. Name one of: kind, level."
    )
    with pytest.raises(PromptError, match=r"'kind'\. They have no metadata: add a column, or leave it out\."):
        rows(..., ...)


@pytest.mark.parametrize("missing", [..., None, "", " \n", float("nan")])
def test_a_field_that_some_prompts_lack(missing):
    with pytest.raises(PromptError) as caught:
        rows("a", missing, "b", missing)
    assert str(caught.value) == (
        "evaluation.group_by: 2 of 4 evaluation prompts have no 'kind': 'p1', 'p3'. "
        "Add it to their records, or name another field."
    )


def test_an_error_spells_out_ten_prompts():
    with pytest.raises(PromptError, match=r"12 of 13 .*: 'p1', .*'p10', …\. Add"):
        rows("a", *[None] * 12)


@pytest.mark.parametrize(("value", "kind"), [(["a"], "list"), ({"a": 1}, "dict"), (date(2026, 1, 1), "date")])
def test_a_value_that_cannot_name_a_group(value, kind):
    with pytest.raises(
        PromptError, match=rf"^evaluation\.group_by: 'kind' of the prompt 'p1' is of type {kind}\. Write"
    ):
        rows("a", value)


def test_the_demos_prompts_have_no_groups():
    with pytest.raises(ConfigError, match=r"^evaluation\.group_by: stands beside a `demo` section"):
        parse("demo: {}\nevaluation: {group_by: kind}")


def test_numbers_of_any_length_are_in_order():
    assert list(rows("9" * 5000, "b10", "b2", "007", "8")) == ["007", "8", "9" * 5000, "b2", "b10"]
