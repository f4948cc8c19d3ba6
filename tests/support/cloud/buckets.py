"""The bucket of a store on S3, seen from outside, and files for it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from components.store import Store
from components.store.s3_client import connect
from components.store.s3_transfer import PART

BIG = 2 * PART + 1000  # bytes: three parts


def large_files(directory: Path) -> Path:
    """One file of three parts, a small one and an empty one."""
    (directory / "deep").mkdir(parents=True)
    (directory / "abc").write_bytes(b"abc")
    (directory / "deep" / "empty").write_bytes(b"")
    (directory / "deep" / "Ünï code").write_bytes(os.urandom(BIG))
    return directory


class Bucket:
    """The store's bucket, seen from outside."""

    def __init__(self, store: Store) -> None:
        self.client: Any = connect(store.root)
        self.name, _, self.prefix = store.root.removeprefix("s3://").partition("/")

    def key(self, sha256: str) -> str:
        return f"{self.prefix}/sha256/{sha256[:2]}/{sha256}"

    def keys(self) -> list[str]:
        listed = self.client.list_objects_v2(Bucket=self.name, Prefix=self.prefix)
        return [item["Key"] for item in listed.get("Contents", [])]

    def read(self, sha256: str) -> bytes:
        body = self.client.get_object(Bucket=self.name, Key=self.key(sha256))["Body"]
        return b"".join(body.iter_chunks())

    def write(self, sha256: str, value: bytes) -> None:
        self.client.put_object(Bucket=self.name, Key=self.key(sha256), Body=value)

    def delete(self, sha256: str) -> None:
        self.client.delete_object(Bucket=self.name, Key=self.key(sha256))


def flip(bucket: Bucket, sha256: str) -> None:
    value = bytearray(bucket.read(sha256))
    value[-1] ^= 1
    bucket.write(sha256, bytes(value))


def truncate(bucket: Bucket, sha256: str) -> None:
    bucket.write(sha256, bucket.read(sha256)[:-1])
