"""Storage that cannot be used: what is done, and what the message has to say."""

from __future__ import annotations

import os
import resource
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from http.server import ThreadingHTTPServer
from pathlib import Path

import pytest

from components.store import open_store, s3_client, store_root
from support.faults.canned import Canned, denies_the_missing, failing, web_page

ROOT = "s3://wind/team/wind_store"
AWS = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_DEFAULT_REGION": "us-east-1"}
ALONE = {
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_CONFIG_FILE": "/dev/null",
    "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
}
CLOSED = "http://127.0.0.1:1"  # nothing listens on port 1


@dataclass
class Place:
    """Where a case takes place."""

    env: Callable[..., None]  # sets environment variables
    folder: Path
    cleanup: ExitStack

    def serve(self, answer: Callable[[str, str], tuple[int, bytes]]) -> str:
        server = ThreadingHTTPServer(("127.0.0.1", 0), Canned)
        server.answer = answer
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        self.cleanup.callback(server.server_close)
        self.cleanup.callback(thread.join)
        self.cleanup.callback(server.shutdown)
        self.cleanup.callback(s3_client.client_for.cache_clear)
        return f"http://127.0.0.1:{server.server_address[1]}"

    def check(self, root: str = ROOT, *, space: int = 0, **env: str) -> None:
        self.env(**ALONE, **{**AWS, **env})
        open_store(root).check(space=space)

    def against(self, answer: Callable[[str, str], tuple[int, bytes]]) -> None:
        self.check(METAFLOW_S3_ENDPOINT_URL=self.serve(answer))


@contextmanager
def unprivileged() -> Iterator[None]:
    """As a user to whom permissions apply."""
    if os.geteuid():
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def read_only_folder(place: Place) -> None:
    folder = place.cleanup.enter_context(tempfile.TemporaryDirectory())  # tmp_path lies in one that is closed to others
    Path(folder).chmod(0o555)
    with unprivileged():
        place.check(f"{folder}/wind_store")


def file_in_its_place(place: Place) -> None:
    (place.folder / "wind_store").write_text("a file")
    place.check(str(place.folder / "wind_store"))


def file_on_the_way(place: Place) -> None:
    (place.folder / "data").write_text("a file")
    place.check(str(place.folder / "data" / "wind_store"))


def full_disk(place: Place) -> None:
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512k", "none", place.folder], check=False)
    if mounted.returncode:
        pytest.skip("needs to be allowed to mount a small file system")
    place.cleanup.callback(subprocess.run, ["umount", place.folder], check=True)
    place.check(str(place.folder / "wind_store"))


def file_size_limit(place: Place) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        place.check(str(place.folder / "wind_store"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
# name: what is done, and what the message has to say besides where
CASES: dict[str, tuple[Callable[[Place], object], tuple[str, ...]]] = {
    "root without scheme": (
        lambda p: store_root("s3", "wind/metaflow"),
        ("'wind/metaflow' has no store", "Set METAFLOW_DATASTORE_SYSROOT_S3", "s3://BUCKET/metaflow"),
    ),
    "other datastore": (
        lambda p: store_root("azure", "container/x"),
        ("'azure' at 'container/x' has no store", "--datastore local", "--datastore s3"),
    ),
    "other scheme": (
        lambda p: p.check("gs://wind/store"),
        ("gs://wind/store: gs:// is not supported", "Use a directory or s3://BUCKET"),
    ),
    "malformed bucket": (
        lambda p: p.check("s3://my bucket!/store"),
        ("s3://my bucket!/store: 'my bucket!' cannot be the name of a bucket", "Correct METAFLOW_DATASTORE_SYSROOT_S3"),
    ),
    "endpoint without scheme": (
        lambda p: p.check(METAFLOW_S3_ENDPOINT_URL="127.0.0.1:9000"),
        (f"{ROOT}: 127.0.0.1:9000 is not the address of a server", "Set METAFLOW_S3_ENDPOINT_URL", "https://HOST:PORT"),
    ),
    "nobody there": (
        lambda p: p.check(METAFLOW_S3_ENDPOINT_URL=CLOSED),
        (f"{ROOT}: nothing answers there", CLOSED, "Start the server, or correct METAFLOW_S3_ENDPOINT_URL"),
    ),
    "TLS to a plain server": (
        lambda p: p.check(METAFLOW_S3_ENDPOINT_URL=p.serve(web_page).replace("http", "https")),
        (f"{ROOT}: the connection cannot be encrypted", "Correct the scheme of METAFLOW_S3_ENDPOINT_URL"),
    ),
    "no S3 server": (
        lambda p: p.against(web_page),
        (f"{ROOT}: what answers is no S3 server", "Correct METAFLOW_S3_ENDPOINT_URL"),
    ),
    "no credentials": (
        lambda p: p.check(METAFLOW_S3_ENDPOINT_URL=CLOSED, **dict.fromkeys(KEYS, "")),
        (f"{ROOT}: there are no credentials", "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"),
    ),
    "half the credentials": (
        lambda p: p.check(METAFLOW_S3_ENDPOINT_URL=CLOSED, AWS_SECRET_ACCESS_KEY=""),
        (f"{ROOT}: the credentials are incomplete", "Set both AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"),
    ),
    "unknown profile": (
        lambda p: p.check(METAFLOW_S3_ENDPOINT_URL=CLOSED, AWS_PROFILE="nobody"),
        (f"{ROOT}: there is no such profile", "nobody", "Correct AWS_PROFILE"),
    ),
    "unknown key": (
        lambda p: p.against(failing(403, "InvalidAccessKeyId")),
        (f"{ROOT}: the server does not know the access key", "Correct AWS_ACCESS_KEY_ID or AWS_PROFILE"),
    ),
    "wrong secret": (
        lambda p: p.against(failing(403, "SignatureDoesNotMatch")),
        (f"{ROOT}: the secret key is not that of the access key", "Correct AWS_SECRET_ACCESS_KEY"),
    ),
    "session over": (
        lambda p: p.against(failing(400, "ExpiredToken")),
        (f"{ROOT}: the session token is not valid", "Log in again, or set a new AWS_SESSION_TOKEN"),
    ),
    "session over, in an answer without a body": (
        lambda p: p.against(lambda method, path: (400, b"")),
        (f"{ROOT}: the server refuses the request without a word", "Log in again, or set a new AWS_SESSION_TOKEN"),
    ),
    "encryption demanded": (
        lambda p: p.against(failing(403, "AccessDenied")),
        (f"{ROOT}: the credentials give no access", "set METAFLOW_S3_SERVER_SIDE_ENCRYPTION to AES256 or aws:kms"),
    ),
    "names that are too long for the server": (
        lambda p: p.against(failing(400, "KeyTooLongError")),
        (f"{ROOT}: the server takes no names that long", "Shorten METAFLOW_DATASTORE_SYSROOT_S3"),
    ),
    "missing bucket": (
        lambda p: p.against(failing(404, "NoSuchBucket")),
        (f"{ROOT}: there is no such bucket", "Create it, or correct METAFLOW_DATASTORE_SYSROOT_S3"),
    ),
    "no access": (
        lambda p: p.against(failing(403, "AccessDenied")),
        (f"{ROOT}: the credentials give no access", "Allow s3:ListBucket", "s3:PutObject"),
    ),
    "no list access": (
        lambda p: p.against(denies_the_missing),
        (f"{ROOT}: the server denies access to what does not exist", "Allow s3:ListBucket"),
    ),
    "another region": (
        lambda p: p.against(failing(400, "AuthorizationHeaderMalformed")),
        (f"{ROOT}: the bucket is in another region", "Set AWS_DEFAULT_REGION"),
    ),
    "wrong clock": (
        lambda p: p.against(failing(403, "RequestTimeTooSkewed")),
        (f"{ROOT}: this machine's clock is wrong", "Set it"),
    ),
    "quota": (
        lambda p: p.against(failing(403, "QuotaExceeded")),
        (f"{ROOT}: the storage is full", "Free space", "raise the quota"),
    ),
    "overloaded server": (
        lambda p: p.against(failing(503, "SlowDown")),
        (f"{ROOT}: the server says SlowDown", "Check that the server is well"),
    ),
    "read-only folder": (
        read_only_folder,
        ("/wind_store: the weights store cannot be written: Permission denied", "Allow writing there", "SYSROOT_LOCAL"),
    ),
    "a file in the store's place": (
        file_in_its_place,
        ("/wind_store: the weights store cannot be written: Not a directory", "Remove the file that is in the"),
    ),
    "a file on the way": (
        file_on_the_way,
        ("/data/wind_store: the weights store cannot be written: Not a directory", "Remove the file that is in the"),
    ),
    "full disk": (
        full_disk,
        ("/wind_store: the weights store cannot be written: No space left on device: /", "Free space there"),
    ),
    "limit on files": (
        file_size_limit,
        ("/wind_store: the weights store cannot be written: File too large: /", "ulimit -f"),
    ),
    "too little space": (
        lambda p: p.check(str(p.folder / "wind_store"), space=10**18),
        ("/wind_store: the weights store has ", " GB left; the run needs about 1000000000.0 GB", "Free space there"),
    ),
}
