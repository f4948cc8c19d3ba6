"""When a server says that it wants to be asked again: seconds, dates, and times that nobody waits."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from components.config.errors import JudgeError
from components.judges._retry_after import wished
from support.endpoint_judges import NAMES, PAIR, PROMPTS, asking
from support.loopback_server import Answer, said, serving

pytestmark = pytest.mark.thorough

GOOD = {"scores": [2.0, 2.0], **said("A")}


@pytest.fixture(params=NAMES)
def judge(request):
    """`judge(address)`: one that asks a single question at a time."""
    return asking(request.param, api_key_env=None, timeout=60.0, retries=3)


def in_seconds(seconds, form="%a, %d %b %Y %H:%M:%S GMT"):
    return (datetime.now(UTC) + timedelta(seconds=seconds)).strftime(form)


def failing(status, headers):
    return lambda _, number: Answer({}, status, headers()) if number == 0 else GOOD


@pytest.mark.parametrize("status", [429, 503])
def test_a_date_is_waited_for(judge, status):
    """Of whole seconds: three of them are more than two."""
    with serving(failing(status, lambda: {"Retry-After": in_seconds(3)})) as server:
        begin = time.monotonic()
        judge(server.address).judge(PROMPTS, PAIR)
    assert 2 <= time.monotonic() - begin < 10


@pytest.mark.parametrize("wish", ["121", "3600", "9" * 400, "date"])
@pytest.mark.parametrize("status", [408, 409, 429, 503])
def test_longer_than_anybody_waits(judge, status, wish):
    headers = {"Retry-After": in_seconds(3600) if wish == "date" else wish}
    with serving(lambda *_: Answer({}, status, headers)) as server:
        begin = time.monotonic()
        with pytest.raises(JudgeError, match=rf"status {status}: .*a judge waits 120 s at most\. Resume") as raised:
            judge(server.address).judge(PROMPTS, PAIR)
    assert time.monotonic() - begin < 5
    assert len(server.bodies) == 1
    named = {"121": "121 s", "3600": "3600 s", "date": "35"}.get(wish, "ever")  # a second of the hour may be over
    assert f"It asks to be left alone for {named}" in str(raised.value).replace(
        "3600 s", "35" if wish == "date" else "3600 s"
    )


@pytest.mark.parametrize("value", ["soon", "-5", "0", "nan", "inf", "", "Thu, 01 Jan 1970 00:00:00 GMT", "bientôt"])
def test_what_says_nothing_is_passed_over(judge, value):
    headers = {"Retry-After": value.encode().decode("latin-1")}
    with serving(failing(503, lambda: headers)) as server:
        begin = time.monotonic()
        judge(server.address).judge(PROMPTS, PAIR)
    assert 0.375 <= time.monotonic() - begin < 10  # 0.5 s, less a quarter at most
    assert len(server.bodies) >= 2


@pytest.mark.parametrize("status", [400, 404, 418, 425, 501])
def test_what_is_asked_again_is_what_the_documents_say(judge, status):
    with serving(failing(status, lambda: {})) as server:
        if status >= 500:
            judge(server.address).judge(PROMPTS, PAIR)
            return
        with pytest.raises(JudgeError, match=f"status {status}"):
            judge(server.address).judge(PROMPTS, PAIR)
    assert len(server.bodies) == 1


def test_a_wish_of_an_answer_that_does_not_pass_says_nothing(judge):
    answer = Answer({}, 404, {"Retry-After": "3600"})
    with serving(lambda *_: answer) as server, pytest.raises(JudgeError) as raised:
        judge(server.address).judge(PROMPTS, PAIR)
    assert "left alone" not in str(raised.value)


def test_dates_in_all_three_forms():
    """Those of RFC 9110, section 5.6.7, and one of another zone."""
    zone = datetime.now(UTC).astimezone(tz=None) + timedelta(seconds=100)
    for date in (
        in_seconds(100),
        in_seconds(100, "%A, %d-%b-%y %H:%M:%S GMT"),
        in_seconds(100, "%a %b %e %H:%M:%S %Y"),
        format_datetime(zone),
    ):
        assert 98 <= wished({"Retry-After": date}) <= 100, date
    assert wished({}) is None
    assert wished({"Retry-After": "1.5"}) == 1.5
