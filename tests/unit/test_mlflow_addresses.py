"""What MLflow's `tracking_uri` may be, and databases that cannot be used."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import NoReturn

import pytest
from tracked import RUN, config, history, needs

from components.config.errors import ConfigError
from components.stages import tracking
from components.trackers import TrackerError, reason
from components.trackers._mlflow_address import check_file, shown
from components.trackers.mlflow import Mlflow

MLFLOW = needs("mlflow", "sqlalchemy", "alembic")
SQL = "(sqlite3.DatabaseError) file is no database.\n[SQL: SELECT 1]\n[parameters: ()]\n(Background at: x)"


@MLFLOW
@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("/proc/x.db", "unable to open database file"),
        ("/proc/none/x.db", "No such file or directory"),
        ("text", "file is not a database"),
        ("folder", "unable to open database file"),
        ("x\0", "embedded null byte"),
    ],
)
def test_a_file_that_is_no_database_and_cannot_be_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, why: str
) -> None:
    (tmp_path / "text").write_text("words" * 100)
    (tmp_path / "folder").mkdir()
    monkeypatch.setattr(Mlflow, "_client", _never)  # it would try for minutes
    settings = config(name="mlflow", tracking_uri=f"sqlite:///{tmp_path / name}")
    with pytest.raises(TrackerError, match=rf"^trackers\.0\.tracking_uri: 'sqlite:.*' cannot be .*{why}") as told:
        tracking.check(settings, str(tmp_path / "store"))
    assert str(told.value).endswith(". Name a database of MLflow, or a file that can be made.")
    assert "\n" not in str(told.value)


def _never(*_: object) -> NoReturn:
    raise AssertionError("the client was asked")


def test_a_database_is_made_in_a_folder_that_is_made(tmp_path: Path) -> None:
    check_file(f"sqlite:///{tmp_path}/new/x.db")
    assert (tmp_path / "new" / "x.db").exists()
    check_file(f"sqlite:///file:{tmp_path}/y.db?uri=true")  # SQLite's own address: left to the client
    check_file("http://host")
    assert [one.name for one in tmp_path.iterdir()] == ["new"]


@MLFLOW
def test_what_a_database_raises_is_told_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sqlalchemy.exc import DatabaseError

    def fail(*_: object) -> NoReturn:
        raise DatabaseError("SELECT 1", (), sqlite3.DatabaseError("database disk image is malformed"))

    monkeypatch.setattr(Mlflow, "_client", fail)
    with pytest.raises(TrackerError, match=r"cannot be used \(.* database disk .* malformed\)\. Restore the"):
        tracking.check(config(name="mlflow"), str(tmp_path))


@MLFLOW
def test_a_driver_that_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> NoReturn:
        raise ModuleNotFoundError("No module named 'psycopg2'")

    monkeypatch.setattr(Mlflow, "_client", fail)
    settings = config(name="mlflow", tracking_uri="postgresql://host/db")
    with pytest.raises(TrackerError, match=r"tracking_uri: .* \(No module named 'psycopg2'\)\. Install the"):
        tracking.check(settings, str(tmp_path))


@pytest.mark.slow
@pytest.mark.thorough
@MLFLOW
def test_a_database_that_is_damaged_later(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "x.db"
    settings = config(name="mlflow", tracking_uri=f"sqlite:///{file}")
    tracking.begin(settings, str(tmp_path / "store"), RUN)
    page = 4096  # bytes; the first stays, so that the file opens
    file.write_bytes(file.read_bytes()[:page].ljust(file.stat().st_size, b"\7"))
    caplog.clear()
    assert tracking.log(settings, str(tmp_path / "store"), RUN, history(1), 0).keys() == {"metrics"}
    (warned,) = [record.getMessage() for record in caplog.records if record.name == tracking.logger.name]
    assert (
        "((sqlite3.DatabaseError) database disk image is malformed). Restore the database, or name another. It is"
        in warned
    )
    assert "\n" not in warned


def test_a_reason_is_part_of_a_sentence() -> None:
    assert reason(ValueError(SQL)) == "(sqlite3.DatabaseError) file is no database"
    assert reason(ValueError("no way\n to  http://me:word@host.")) == "no way to http://…@host"


@pytest.mark.parametrize(
    ("uri", "seen"),
    [
        ("http://me:word@host/x@y", "http://…@host/x@y"),
        ("http://host:80/x", "http://host:80/x"),
        ("postgresql://me:wo/rd@host/db?sslmode=off", "postgresql://…@host/db"),
        ("mysql+pymysql://me@host/db?password=wo@rd", "mysql+pymysql://…@host/db"),
        ("sqlite:////home/me@here/x.db", "sqlite:////home/me@here/x.db"),
    ],
)
def test_an_address_is_shown_without_its_secrets(uri: str, seen: str) -> None:
    assert shown(uri) == seen


@pytest.mark.parametrize(
    "uri",
    [
        "http://me:word@host",
        "https://:word@host/x",
        "postgresql://me:word@host/db",
        "postgresql+psycopg2://me:wo/rd@host/db",
        "postgresql://me@host/db?sslmode=off&password=word",
        "mssql+pyodbc:///?odbc_connect=Server%3Dx%3BPwd%3Dword",
    ],
)
def test_an_address_with_a_password(uri: str) -> None:
    scheme = uri.partition("://")[0]
    with pytest.raises(ConfigError) as told:
        config(name="mlflow", tracking_uri=uri)
    said = str(told.value)
    assert said.startswith(f"trackers.0.tracking_uri: '{scheme}://…' holds a password, which would be kept")
    assert "rd" not in said.replace("password", "")
    assert ("MLFLOW_TRACKING_PASSWORD" in said) == scheme.startswith("http")
    assert ("PGPASSWORD" in said) != scheme.startswith("http")


@pytest.mark.parametrize(
    "uri",
    [
        "http://me@host:80/a@b:c",
        "postgresql://me@host:5432/db",
        "postgresql://host:5432/db?sslmode=off",
        "sqlite:////home/me:too@here/x.db",
        "file:///a:b@c",
        "databricks://profile",
    ],
)
def test_an_address_without_a_password(uri: str) -> None:
    (tracker,) = config(name="mlflow", tracking_uri=uri).trackers
    assert isinstance(tracker, Mlflow)
    assert tracker.tracking_uri == uri


MEMORY = [
    "sqlite://",
    "sqlite:///",
    "sqlite:///:memory:",
    ":memory:",
    "sqlite+pysqlite:///",
    "sqlite:///file::memory:?uri=true",
    "sqlite:///file:x?mode=memory&uri=true",
]


@pytest.mark.parametrize("uri", MEMORY)
def test_a_database_in_memory_keeps_nothing(uri: str) -> None:
    with pytest.raises(ConfigError, match=r"^trackers\.0\.tracking_uri: '.*' is a database in memory, which keeps"):
        config(name="mlflow", tracking_uri=uri)


@MLFLOW
def test_a_database_in_memory_of_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite://")
    with pytest.raises(TrackerError, match=r"tracking_uri: MLFLOW_TRACKING_URI 'sqlite://' is a database in memory"):
        tracking.check(config(name="mlflow"), str(tmp_path))


@pytest.mark.parametrize(("name", "why"), [("", "is empty"), (" ", "is empty"), ("x" * 501, "501 characters are more")])
def test_experiments_that_cannot_be(name: str, why: str) -> None:
    with pytest.raises(ConfigError, match=rf"^trackers\.0\.experiment: {why}"):
        config(name="mlflow", experiment=name)
    assert config(name="mlflow", experiment="x" * 500)
