"""The store in a bucket of S3, or of a server that speaks its protocol."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from botocore.exceptions import ClientError

from components.config.errors import StoreError
from components.store.base import REFRESH, Store
from components.store.records import Blob, FileEntry, Note, Unfinished
from components.store.s3_client import ALLOW, CHECK_TRIES, ROOT, code, connect, explained, server_side_encryption
from components.store.s3_transfer import Object

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client
    from types_boto3_s3.type_defs import ObjectTypeDef

PROBE = b"written and read back by the check of the weights store\n"
LONGEST = f"check/{'0' * 90}"  # no name of the store's own is longer
MOST_BYTES = 1024  # of an object's name
PATIENCE = 60  # seconds for another writer of the same blob to finish


class S3Store(Store):
    """Blobs as objects `root/sha256/ab/abcdef…`.

    An object's time cannot be changed, so the empty `root/used/ab/abcdef…` tells when a `put` last found it stored.
    """

    def check(self, *, space: int = 0) -> None:
        """Writes an object, reads it, asks for one that is not there, writes one with a long name and deletes it.

        See `Store.check`.
        """
        del space  # a bucket has no end
        self._check_length()
        probe = self._object("check", tries=CHECK_TRIES)
        with explained(self.root):
            probe.client.put_object(Bucket=probe.bucket, Key=probe.key, Body=PROBE, **server_side_encryption())
            back = b"".join(probe.read(len(PROBE)))
            try:
                self._object("sha256/none", tries=CHECK_TRIES).head()
            except ClientError as error:
                if code(error) != "403":
                    raise
                raise StoreError(
                    f"{self.root}: the server denies access to what does not exist ({error}), so that files cannot be "
                    f"told from missing ones. {ALLOW}."
                ) from error
            long = self._key(LONGEST)
            probe.client.put_object(Bucket=probe.bucket, Key=long, Body=PROBE, **server_side_encryption())
            probe.client.delete_object(Bucket=probe.bucket, Key=long)
        if back != PROBE:
            raise StoreError(f"{self.root}: an object did not read as it was written. Check the server.")

    def _check_length(self) -> None:
        length = len(self._key(LONGEST).encode())
        if length > MOST_BYTES:
            raise StoreError(
                f"{self.root}: is {length - MOST_BYTES} bytes too long, S3 takes names of at most {MOST_BYTES}. "
                f"Shorten {ROOT}."
            )

    def blobs(self) -> Iterator[Blob]:
        """See `Store`."""
        used = dict(self._names("used"))
        for sha256, blob in self._names("sha256"):
            mark = used.get(sha256, blob)
            yield Blob(sha256, blob.size, max(blob.used, mark.used))

    def find(self, sha256: str) -> Blob | None:
        """See `Store`."""
        with explained(self.locate(sha256)):
            found = self._object(self._name(sha256)).head()
            if found is None:
                return None
            used = found["LastModified"].timestamp()
            if time.time() - used > REFRESH:
                mark = self._object(self._name(sha256, "used")).head()
                used = mark["LastModified"].timestamp() if mark else used
            return Blob(sha256, found["ContentLength"], used)

    def remove(self, sha256: str) -> None:
        """See `Store`."""
        for kind in ("sha256", "used"):
            self._delete(self._key(self._name(sha256, kind)))

    def unfinished(self) -> Iterator[Unfinished]:
        """See `Store`."""
        with explained(self.root):
            pages = self._client().get_paginator("list_multipart_uploads")
            for page in pages.paginate(Bucket=self._bucket, Prefix=self._key("sha256/")):
                for upload in page.get("Uploads", []):
                    where = f"s3://{self._bucket}/{upload['Key']}"
                    yield Unfinished(where, upload["Initiated"].timestamp(), upload["UploadId"])

    def discard(self, unfinished: Unfinished) -> None:
        """See `Store`."""
        key = unfinished.where.removeprefix(f"s3://{self._bucket}/")
        Object(self._client(), self._bucket, key).abort(unfinished.upload)

    def notes(self) -> Iterator[Note]:
        """See `Store`."""
        for item in self._objects("notes"):
            if name := item["Key"].rpartition("/")[2]:  # consoles leave an empty object as a mark of the folder
                yield Note(name, item["LastModified"].timestamp())

    def write_note(self, name: str, text: str) -> None:
        """See `Store`."""
        key = self._key(f"notes/{name}")
        with explained(f"{self.root}/notes/{name}"):
            self._client().put_object(Bucket=self._bucket, Key=key, Body=text.encode(), **server_side_encryption())

    def remove_note(self, name: str) -> None:
        """See `Store`."""
        self._delete(self._key(f"notes/{name}"))

    def write_lines(self, name: str, lines: Sequence[str]) -> str:
        """An object cannot grow: it is written anew; see `Store`."""
        address = f"{self.root}/metrics/{name}"
        body = "".join(f"{line}\n" for line in lines).encode()
        with explained(address):
            key = self._key(f"metrics/{name}")
            self._client().put_object(Bucket=self._bucket, Key=key, Body=body, **server_side_encryption())
        return address

    def locate(self, sha256: str) -> str:
        """See `Store`."""
        return f"{self.root}/{self._name(sha256)}"

    def _note(self, name: str) -> bytes | None:
        with explained(f"{self.root}/notes/{name}"):
            return self._object(f"notes/{name}").read_small()

    def _read(self, entry: FileEntry) -> Iterator[bytes]:
        with explained(self.locate(entry["sha256"])):
            yield from self._object(self._name(entry["sha256"])).read(entry["size"])

    def _write(self, entry: FileEntry, parts: Iterable[bytes]) -> None:
        with explained(self.locate(entry["sha256"])):
            self._object(self._name(entry["sha256"])).upload(parts, entry["size"])
        end = time.monotonic() + PATIENCE  # if another writer makes it, that one may not be done
        while self.find(entry["sha256"]) is None and time.monotonic() < end:
            time.sleep(1)

    def _keep(self, sha256: str) -> None:
        blob = self.find(sha256)
        if blob and time.time() - blob.used > REFRESH:
            with explained(self.locate(sha256)):
                mark = self._key(self._name(sha256, "used"))
                self._client().put_object(Bucket=self._bucket, Key=mark, Body=b"", **server_side_encryption())

    @property
    def _bucket(self) -> str:
        return self.root.split("/")[2]

    def _key(self, name: str) -> str:
        return "/".join([*self.root.split("/")[3:], name])

    def _name(self, sha256: str, kind: str = "sha256") -> str:
        return f"{kind}/{sha256[:2]}/{sha256}"

    def _client(self, tries: int | None = None) -> S3Client:
        return connect(self.root, tries)

    def _object(self, name: str, tries: int | None = None) -> Object:
        return Object(self._client(tries), self._bucket, self._key(name))

    def _delete(self, key: str) -> None:
        with explained(f"s3://{self._bucket}/{key}"):
            self._client().delete_object(Bucket=self._bucket, Key=key)

    def _names(self, kind: str) -> Iterator[tuple[str, Blob]]:
        """Objects of a kind by SHA-256, in order; `used` is the time of the object itself."""
        for item in self._objects(kind):
            sha256 = item["Key"].rpartition("/")[2]
            if re.fullmatch("[0-9a-f]{64}", sha256):
                yield sha256, Blob(sha256, item["Size"], item["LastModified"].timestamp())

    def _objects(self, kind: str) -> Iterator[ObjectTypeDef]:
        with explained(self.root):
            pages = self._client().get_paginator("list_objects_v2")
            for page in pages.paginate(Bucket=self._bucket, Prefix=self._key(f"{kind}/")):
                yield from page.get("Contents", [])
