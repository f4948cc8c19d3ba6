"""Addresses of MLflow: a server's, or a database's as SQLAlchemy writes it."""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing
from pathlib import Path

from components.trackers import TrackerError

SQLITE = re.compile(r"sqlite(?:\+\w+)?://(?:/(?P<file>[^?]*))?(?:\?(?P<options>.*))?")
DATABASE = re.compile(r"(?:postgresql|mysql|mssql)(?:\+\w+)?://")
WAIT = 30.0  # seconds for another task that writes into the database
OF_SERVER = "Set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD instead."
OF_DATABASE = (
    "Leave it out and set PGPASSWORD or use the database's password file, or leave the key out and set "
    "MLFLOW_TRACKING_URI, which is not kept."
)


def usable(uri: str) -> str:
    """The address. Raises ValueError for none, and for a database in memory, which goes with the task."""
    if not uri.strip():
        raise ValueError("is empty. Name a server or a database, or leave the key out.")
    found = SQLITE.fullmatch(uri.strip())
    file, options = ((found["file"] or "").strip(), found["options"] or "") if found else (uri.strip(), "")
    if ":memory:" in (file, file.removeprefix("file:")) or "mode=memory" in options or not file:
        raise ValueError(
            f"{uri!r} is a database in memory, which keeps nothing. Name a file, as in sqlite:///mlflow.db."
        )
    return uri


def without_secret(uri: str) -> str:
    """The address. Raises ValueError where it holds a password; a user alone is none."""
    database = DATABASE.match(uri)
    # Before a server's path; of a database it may hold a slash, or stand among the options.
    secret = r"://[^:/@]*:[^@]+@|[?&](?:password|passwd)=|pwd(?:=|%3d)" if database else r"://[^:/@]*:[^/]+@"
    if re.search(secret, uri, re.IGNORECASE):
        raise ValueError(
            f"'{uri.partition('://')[0]}://…' holds a password, which would be kept with the run. "
            f"{OF_DATABASE if database else OF_SERVER}"
        )
    return uri


def shown(uri: str) -> str:
    """The address without user and password, and without a database's options."""
    if DATABASE.match(uri):
        return re.sub(r"(?<=://)[^:/@]*(?::[^@]*)?@(?:[^/?]*@)?", "…@", uri, count=1).partition("?")[0]
    return re.sub(r"(?<=://)[^/\s]*@", "…@", uri)


def check_file(uri: str) -> None:
    """Opens the database in a file, made if it is new, as MLflow's client would try for minutes.

    Raises TrackerError where that cannot be done. Other addresses pass.
    """
    found = SQLITE.fullmatch(uri)
    if found is None or not found["file"] or "uri=" in (found["options"] or ""):  # SQLite's own address
        return
    path = Path(found["file"])
    try:
        path.parent.mkdir(parents=True, exist_ok=True)  # as the client does
        with closing(sqlite3.connect(path, timeout=WAIT)) as database:
            database.execute("PRAGMA schema_version")
    except (OSError, ValueError, sqlite3.Error) as error:  # ValueError: characters that no path holds
        raise TrackerError(
            f"tracking_uri: {uri!r} cannot be used ({error}). Name a database of MLflow, or a file that can be made."
        ) from error
