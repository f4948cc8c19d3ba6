"""Connections to S3, and what their errors mean to a user.

The client is the one that Metaflow makes for its own datastore, so that its settings (METAFLOW_S3_ENDPOINT_URL,
METAFLOW_S3_VERIFY_CERTIFICATE and so on, in the environment or its configuration file) and the usual AWS variables,
profiles and roles hold for the weights too.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError

from components.config.errors import StoreError

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client

TRIES = 8  # of a request; with the standard back-off (0.5 s on average, doubling, up to 20 s) about half a minute
CHECK_TRIES = 3
CONNECT_TIMEOUT, READ_TIMEOUT = 10, 60  # seconds
CONNECTIONS = 16

ROOT = "METAFLOW_DATASTORE_SYSROOT_S3"
ENDPOINT = "METAFLOW_S3_ENDPOINT_URL"
ALLOW = (
    "Allow s3:ListBucket on the bucket and s3:GetObject, s3:PutObject, s3:DeleteObject, s3:AbortMultipartUpload on "
    "what is below"
)
ENCRYPT = "If the bucket demands encryption, set METAFLOW_S3_SERVER_SIDE_ENCRYPTION to AES256 or aws:kms"
REGION = "Set AWS_DEFAULT_REGION to the bucket's region"
FULL = ("the storage is full", "Free space (`wind store gc --older-than 30d`), or raise the quota")
AGAIN = "Check that the server is well, then resume the run"
NO_S3 = "an error without a code"
TOKEN = ("the session token is not valid, or no longer", "Log in again, or set a new AWS_SESSION_TOKEN")

# What a server's error code, or the name of boto3's error, means, and how to fix it.
MEANING: dict[str, tuple[str, str]] = {
    "NoSuchBucket": ("there is no such bucket", f"Create it, or correct {ROOT}"),
    "InvalidBucketName": ("the server takes no bucket of this name", f"Correct {ROOT}"),
    "InvalidAccessKeyId": ("the server does not know the access key", "Correct AWS_ACCESS_KEY_ID or AWS_PROFILE"),
    "SignatureDoesNotMatch": ("the secret key is not that of the access key", "Correct AWS_SECRET_ACCESS_KEY"),
    "AccessDenied": ("the credentials give no access", f"{ALLOW}. {ENCRYPT}"),
    "403": ("the credentials give no access", ALLOW),
    "ExpiredToken": TOKEN,
    "InvalidToken": TOKEN,
    "400": (
        "the server refuses the request without a word, as where a session token has expired",
        "Log in again, or set a new AWS_SESSION_TOKEN; if that is not it, check AWS_DEFAULT_REGION",
    ),
    "KeyTooLongError": ("the server takes no names that long", f"Shorten {ROOT}"),
    "InvalidRequest": (
        "the server refuses the request",
        ENCRYPT,
    ),
    "PermanentRedirect": ("the bucket is in another region", REGION),
    "301": ("the bucket is in another region", REGION),
    "AuthorizationHeaderMalformed": ("the bucket is in another region", REGION),
    "RequestTimeTooSkewed": ("this machine's clock is wrong", "Set it"),
    "QuotaExceeded": FULL,
    "InsufficientStorage": FULL,
    "507": FULL,
    "NoCredentialsError": (
        "there are no credentials",
        "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE, or give the machine a role",
    ),
    "PartialCredentialsError": (
        "the credentials are incomplete",
        "Set both AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    ),
    "ProfileNotFound": ("there is no such profile", "Correct AWS_PROFILE, or add the profile to ~/.aws/config"),
    "EndpointConnectionError": ("nothing answers there", f"Start the server, or correct {ENDPOINT}"),
    "ConnectTimeoutError": ("nothing answers there", f"Check the network, or correct {ENDPOINT}"),
    "ConnectionClosedError": ("the server hangs up", f"Check that it is an S3 server and well, or correct {ENDPOINT}"),
    "ReadTimeoutError": ("the server stopped answering", AGAIN),
    "SSLError": (
        "the connection cannot be encrypted",
        f"Correct the scheme of {ENDPOINT}, or name the authority in AWS_CA_BUNDLE",
    ),
    "ResponseParserError": ("what answers is no S3 server", f"Correct {ENDPOINT}"),
    NO_S3: ("what answers is no S3 server", f"Correct {ENDPOINT}"),
}


@lru_cache(maxsize=4)
def client_for(endpoint: str | None, tries: int) -> S3Client:
    """A client with the settings of now; None leaves the endpoint to Metaflow's configuration file or AWS."""
    from metaflow.metaflow_config import DATATOOLS_CLIENT_PARAMS
    from metaflow.plugins.aws.aws_client import get_aws_client

    config = Config(
        retries={"mode": "standard", "total_max_attempts": tries},
        connect_timeout=CONNECT_TIMEOUT,
        read_timeout=READ_TIMEOUT,
        max_pool_connections=CONNECTIONS,
    )
    parameters = {**DATATOOLS_CLIENT_PARAMS, "config": config}
    if endpoint:
        parameters["endpoint_url"] = endpoint
    client: S3Client = get_aws_client("s3", client_params=parameters)
    return client


_lock = threading.Lock()
os.register_at_fork(after_in_child=client_for.cache_clear)  # connections are not to be shared


def connect(where: str, tries: int | None = None) -> S3Client:
    """This process's client, by default with TRIES; equal settings share one.

    Raises StoreError, about the place `where`, for settings that make none.
    """
    endpoint = os.environ.get(ENDPOINT)  # Metaflow reads it only once
    try:
        with _lock, explained(where):
            return client_for(endpoint, tries or TRIES)
    except ValueError as error:  # botocore's check of the endpoint
        if isinstance(error, StoreError):
            raise
        raise StoreError(
            f"{where}: {endpoint or error} is not the address of a server. Set {ENDPOINT} to one such as "
            "https://HOST:PORT."
        ) from error


@contextmanager
def explained(where: str) -> Iterator[None]:
    """Turns boto3's errors into StoreError: what, where, and how to fix it."""
    try:
        yield
    except (BotoCoreError, ClientError) as error:
        raise StoreError(meaning(error, where)) from error


def meaning(error: BotoCoreError | ClientError, where: str) -> str:
    """What one of boto3's errors means to a user."""
    if isinstance(error, ClientError):
        said = ": ".join(filter(None, [code(error), error.response.get("Error", {}).get("Message")]))
        what, remedy = MEANING.get(code(error), (f"the server says {code(error)}", AGAIN))
        return f"{where}: {what} ({said}, in answer to {error.operation_name}). {remedy}."
    unknown = ("the connection failed" if isinstance(error, HTTPClientError) else "boto3 gave up", AGAIN)
    names = [kind.__name__ for kind in type(error).__mro__]
    what, remedy = next((MEANING[name] for name in names if name in MEANING), unknown)
    return f"{where}: {what} ({str(error).rstrip('.')}). {remedy}."


def code(error: ClientError) -> str:
    """The server's word for an error; its HTTP status if it has none, as in the answer to a HEAD request."""
    word = error.response.get("Error", {}).get("Code")
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    return str(word or (status if status >= 500 else NO_S3))


def server_side_encryption() -> dict[str, Any]:
    """Extra arguments of uploads, from METAFLOW_S3_SERVER_SIDE_ENCRYPTION."""
    from metaflow.metaflow_config import S3_SERVER_SIDE_ENCRYPTION

    return {"ServerSideEncryption": S3_SERVER_SIDE_ENCRYPTION} if S3_SERVER_SIDE_ENCRYPTION else {}
