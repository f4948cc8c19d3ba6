"""Content-addressed store of files: weights live here, and artifacts hold only manifests of them.

A blob is named by the SHA-256 of its bytes, so equal files are kept once, a stored one never changes, and every
read is checked. `Store` (base.py) does all that; local.py and s3.py know only where the bytes lie. Who uses the store
need not know which of them it is. `wind store` lists, checks and cleans it.
"""

from __future__ import annotations

import re
from pathlib import Path

from components.config.errors import StoreError
from components.store.base import Store
from components.store.files import CHUNK, PARTIAL
from components.store.local import STALE, LocalStore
from components.store.records import Blob, FileEntry, Manifest

__all__ = [
    "CHUNK",
    "PARTIAL",
    "STALE",
    "Blob",
    "FileEntry",
    "LocalStore",
    "Manifest",
    "Store",
    "open_store",
    "store_root",
]


def open_store(root: str) -> Store:
    """The store at `root`: a directory, or `s3://BUCKET/PREFIX`. The first `put` makes it.

    Nothing is asked of the storage yet; `Store.check` does that.

    Raises StoreError for another scheme and for a malformed bucket name.
    """
    scheme, found, rest = root.partition("://")
    if not found:
        return LocalStore(str(Path(root).resolve()))  # the same from any working directory
    if scheme != "s3":
        raise StoreError(f"{root}: {scheme}:// is not supported by this version. Use a directory or s3://BUCKET.")
    bucket, _, prefix = rest.partition("/")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{1,61}[A-Za-z0-9]", bucket):
        raise StoreError(
            f"{root}: {bucket!r} cannot be the name of a bucket: 3 to 63 letters, digits, dots and hyphens. "
            "Correct METAFLOW_DATASTORE_SYSROOT_S3, or what --root names."
        )
    from components.store.s3 import S3Store  # boto3 takes a while to import, and a local run does without

    return S3Store("/".join(["s3:/", bucket, *filter(None, prefix.split("/"))]))


def store_root(datastore_type: str, datastore_root: str) -> str:
    """The store of a Metaflow datastore: `wind_store` beside its root, so that each can be deleted alone.

    `/data/.metaflow` gives `/data/wind_store`, `s3://bucket/team/metaflow` gives `s3://bucket/team/wind_store`;
    a datastore that fills its bucket has nothing beside it, so `s3://bucket` gives `s3://bucket/wind_store`.

    Raises StoreError for a type that is neither `local` nor `s3`, and for an S3 root without a bucket.
    """
    if datastore_type == "local":
        return str(Path(datastore_root).resolve().parent / "wind_store")
    if datastore_type != "s3":
        raise StoreError(
            f"the datastore {datastore_type!r} at {datastore_root!r} has no store. "
            "Run with `--datastore local` or `--datastore s3`."
        )
    bucket = re.match("s3://[^/]+", datastore_root)
    if not bucket:
        raise StoreError(
            f"s3 {datastore_root!r} has no store: it is not the address of a bucket. "
            "Set METAFLOW_DATASTORE_SYSROOT_S3 to one such as s3://BUCKET/metaflow."
        )
    parents = datastore_root[bucket.end() :].rstrip("/").rpartition("/")[0]
    return f"{bucket[0]}{parents}/wind_store"
