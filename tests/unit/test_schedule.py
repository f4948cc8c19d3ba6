"""Schedules that Argo takes and those that it does not; its reader of cron is robfig's, whose week goes from 0 to 6."""

from __future__ import annotations

import pytest

from components.config.cron import check_cron, check_time_zone
from components.config.errors import ConfigError
from components.run_config import parse


@pytest.mark.parametrize(
    "cron",
    [
        "0 3 * * *",
        "*/15 0-6,18-23 1 JAN,jul MON-FRI",
        "0 0 29 2 *",
        "0 0 31 2-3 *",
        "0 0 31 2 1",
        "5/10 * ? * ?",
        "0 0 1-31/2 */3 0,6",
    ],
)
def test_what_argo_takes(cron):
    check_cron(cron)


@pytest.mark.parametrize(
    ("cron", "message"),
    [
        ("", "has 0 fields, not five"),
        ("0 3 * *", "has 4 fields"),
        ("0 0 3 * * 1", "has 6 fields"),
        ("@daily", "has 1 fields"),
        ("60 * * * *", "'60' is no minute. Use 0 to 59, ranges"),
        ("٣ 0 * * *", "'٣' is no minute"),  # digits, and none of cron's
        ("*/1٣ 0 * * *", "'*/1٣' is no minute"),
        ("0 24 * * *", "'24' is no hour"),
        ("0 0 0 * *", "'0' is no day of month. Use 1 to 31"),
        ("0 0 * 13 *", "'13' is no month. Use 1 to 12 or JAN to DEC"),
        ("0 0 * * 7", "'7' is no day of week. Use 0 to 6 or SUN to SAT"),
        ("0 0 * * MONDAY", "'MONDAY' is no day of week"),
        ("-1 0 * * *", "'-1' is no minute"),
        ("0 5-3 * * *", "'5-3' is no hour: write it as FIRST-LAST"),
        ("*/0 * * * *", "'*/0' is no minute"),
        ("*/ * * * *", "'*/' is no minute"),
        ("0, * * * *", "is no minute"),
        ("0 0 31 4,6 *", "never comes"),
        ("0 0 30 2 *", "never comes"),
    ],
)
def test_what_it_does_not(cron, message):
    with pytest.raises(ConfigError) as caught:
        parse(f"demo: {{}}\ncluster: {{schedule: {{cron: {cron!r}}}}}")
    assert str(caught.value).startswith("cluster.schedule.cron: ")
    assert message in str(caught.value)


@pytest.mark.parametrize("name", ["UTC", "Europe/Berlin", "Etc/GMT+3"])
def test_time_zones(name):
    check_time_zone(name)


@pytest.mark.parametrize(("name", "remedy"), [("europe/berlin", "such as Europe/Berlin."), ("Mars/Base", "Write one")])
def test_what_is_no_time_zone(name, remedy):
    with pytest.raises(ConfigError, match=rf"^cluster\.schedule\.timezone: '{name}' is no time zone .*{remedy}"):
        parse(f"demo: {{}}\ncluster: {{schedule: {{cron: '0 3 * * *', timezone: {name}}}}}")
