"""One object to S3 and back: in parts, several at once, in bounded memory."""

from __future__ import annotations

import random
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, TypeVar

from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError, IncompleteReadError
from urllib3.exceptions import HTTPError

from components.config.errors import StoreError
from components.store import s3_client
from components.store.s3_client import code, server_side_encryption

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client
    from types_boto3_s3.type_defs import CompletedPartTypeDef, GetObjectRequestTypeDef, HeadObjectOutputTypeDef

PART = 8 << 20  # bytes
MOST_PARTS = 10_000  # that S3 takes of one object
PARALLEL = 6  # parts under way at once
AHEAD = 7  # parts begun and not yet taken, which hold memory; more than PARALLEL, or a slow one stops the others
LONGEST_PAUSE = 20  # seconds
MISSING = {"404", "NoSuchKey"}  # what servers call an object that is not there

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Object:
    """One object of a bucket."""

    client: S3Client
    bucket: str
    key: str

    def upload(self, parts: Iterable[bytes], size: int) -> None:
        """Makes the object from `parts`, `size` bytes together, unless there is one. It appears whole or not at all.

        Raises what boto3 raises, and whatever `parts` do.
        """
        ready = _regrouped(parts, part_size(size))
        first = next(ready, b"")
        second = next(ready, None)  # asks `parts` for their end, where they are found right or wrong
        if second is None:
            with _unless_there():
                self._put(first)
        else:
            self._put_parts(chain([first, second], ready))

    def read(self, size: int) -> Iterator[bytes]:
        """The bytes of the object, in order, by ranges that are fetched at once.

        Raises StoreError when a range still breaks off after TRIES, and what boto3 raises.
        """
        step = part_size(size)
        return in_order(lambda start: self._range(start, min(start + step, size)), range(0, size, step))

    def read_small(self) -> bytes | None:
        """All bytes of an object that may change and fits in memory; None if there is none. Errors as for `read`."""
        try:
            return self._get(0)
        except ClientError as error:
            if code(error) in MISSING:
                return None
            raise

    def head(self) -> HeadObjectOutputTypeDef | None:
        """What the server says of the object; None if there is none."""
        try:
            return self.client.head_object(Bucket=self.bucket, Key=self.key)
        except ClientError as error:
            if code(error) in MISSING:
                return None
            raise

    def abort(self, upload: str) -> None:
        """Deletes the parts of an upload. Those that remain after a failure are no object; housekeeping finds them."""
        with suppress(BotoCoreError, ClientError):
            self.client.abort_multipart_upload(Bucket=self.bucket, Key=self.key, UploadId=upload)

    def _put(self, content: bytes) -> None:
        self.client.put_object(
            Bucket=self.bucket, Key=self.key, Body=content, IfNoneMatch="*", **server_side_encryption()
        )

    def _put_parts(self, parts: Iterable[bytes]) -> None:
        begun = self.client.create_multipart_upload(Bucket=self.bucket, Key=self.key, **server_side_encryption())
        upload = begun["UploadId"]

        def send(numbered: tuple[int, bytes]) -> str:
            number, content = numbered
            sent = self.client.upload_part(
                Bucket=self.bucket, Key=self.key, UploadId=upload, PartNumber=number, Body=content
            )
            return sent["ETag"]

        try:
            tags = list(in_order(send, enumerate(parts, 1)))
            # Some servers, Ceph 16 for one, take no notice of the condition here: so look first.
            if self.head() is None:
                with _unless_there():
                    self._complete(upload, tags)
                    return
        except BaseException:  # an interrupt, too
            self.abort(upload)
            raise
        self.abort(upload)

    def _complete(self, upload: str, tags: list[str]) -> None:
        numbered: list[CompletedPartTypeDef] = [{"ETag": tag, "PartNumber": n} for n, tag in enumerate(tags, 1)]
        self.client.complete_multipart_upload(
            Bucket=self.bucket,
            Key=self.key,
            UploadId=upload,
            MultipartUpload={"Parts": numbered},
            IfNoneMatch="*",
        )

    def _range(self, start: int, stop: int) -> bytes:
        content = self._get(start, stop)
        if len(content) != stop - start:
            raise self._unread(start, stop, f"got {len(content)} bytes")
        return content

    def _get(self, start: int, stop: int | None = None) -> bytes:
        """The bytes from `start` to `stop`; without `stop` all of them, of which there may be none."""
        request: GetObjectRequestTypeDef = {"Bucket": self.bucket, "Key": self.key}
        if stop is not None:
            request["Range"] = f"bytes={start}-{stop - 1}"
        broken: Exception | None = None
        for number in range(s3_client.TRIES):
            if number:
                time.sleep(min(random.random() * 2**number, LONGEST_PAUSE))
            got = self.client.get_object(**request)
            try:  # boto3 tries a request again, but not an answer that breaks off
                with closing(got["Body"]) as body:
                    return body.read()
            except (HTTPClientError, IncompleteReadError, HTTPError) as error:
                broken = error
        raise self._unread(start, stop, f"broke off {s3_client.TRIES} times ({broken})") from broken

    def _unread(self, start: int, stop: int | None, how: str) -> StoreError:
        where, remedy = f"s3://{self.bucket}/{self.key}", "Check the network and the server, then resume the run"
        return StoreError(f"{where}: reading bytes {start} to {stop or 'the end'} {how}. {remedy}.")


def part_size(size: int) -> int:
    """Bytes of each part but the last of an object of `size` bytes: PART, until S3 would take no more parts."""
    return max(PART, -(-size // MOST_PARTS))


def in_order(work: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """work(item) for each of `items`, in their order, PARALLEL at once and AHEAD of the last result taken."""
    pending: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(PARALLEL) as pool:
        try:
            for item in items:
                if len(pending) == AHEAD:
                    yield pending.popleft().result()
                pending.append(pool.submit(work, item))
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()


def _regrouped(parts: Iterable[bytes], size: int) -> Iterator[bytes]:
    """The same bytes in pieces of `size`, the last one shorter."""
    buffer = bytearray()
    for part in parts:
        buffer += part
        while len(buffer) >= size:
            yield bytes(memoryview(buffer)[:size])
            del buffer[:size]
    if buffer:
        yield bytes(buffer)


@contextmanager
def _unless_there() -> Iterator[None]:
    """Passes over the server's word that the object is there, or that another writer makes it this instant.

    So it is, too, when the answer to a completed upload was lost: the second try finds no such upload.
    """
    try:
        yield
    except ClientError as error:
        if code(error) not in {"PreconditionFailed", "ConditionalRequestConflict", "NoSuchUpload"}:
            raise
