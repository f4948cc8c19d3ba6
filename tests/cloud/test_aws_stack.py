"""The CloudFormation template: by its linter, and by what its roles may do."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import cfnlint
import pytest
import yaml
from botocore.exceptions import ClientError
from moto import mock_aws
from moto.core import set_initial_no_auth_action_count

from components.store import open_store, s3_client
from support.cloud.infra import STACK, UNSUPPORTED, slip, stack

pytestmark = pytest.mark.thorough


def cfn_lint(template: str) -> list[str]:
    """Rules of cfn-lint that the template breaks; its hints on documentation do not count."""
    found = cfnlint.lint_all(template)
    return [f"{match.rule.id}: {match.message}" for match in found if match.rule.id[0] in "EW"]


def test_the_template_passes_the_linter() -> None:
    assert cfn_lint(STACK) == []
    assert cfn_lint(slip(STACK, "BlockPublicAcls:", "BlockPublicAcl:"))  # and it is not blind


@pytest.fixture
def pod_credentials(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """This process is a pod, with the rights that the template gives it: moto enforces them. The datastore's root."""
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", s3_client.ENDPOINT):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "administrator")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    s3_client.client_for.cache_clear()
    with mock_aws():
        outputs = stack()
        role = outputs["PodRoleArn"]
        # moto's CloudFormation makes the policy and the role, and does not attach the one to the other.
        boto3.client("iam").attach_role_policy(RoleName=role.split("/")[-1], PolicyArn=outputs["BucketAccessArn"])
        given = boto3.client("sts").assume_role(RoleArn=role, RoleSessionName="pod")["Credentials"]
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", given["AccessKeyId"])
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", given["SecretAccessKey"])
        monkeypatch.setenv("AWS_SESSION_TOKEN", given["SessionToken"])
        yield outputs["DatastoreRoot"]
    s3_client.client_for.cache_clear()


def denied(call: Callable[..., Any], **arguments: Any) -> bool:
    with pytest.raises(ClientError) as error:
        call(**arguments)
    return error.value.response["Error"]["Code"] == "AccessDenied"


@UNSUPPORTED
@set_initial_no_auth_action_count(0)
def test_a_pod_may_do_what_runs_do_and_no_more(pod_credentials: str, tmp_path: Path) -> None:
    bucket = pod_credentials.split("/")[2]
    store = open_store(pod_credentials.replace("/metaflow", "/wind_store"))
    store.check()
    (tmp_path / "weights").write_bytes(os.urandom(20 << 20))  # an upload in parts
    manifest = store.put_file(tmp_path / "weights")
    store.verify(manifest)

    client = boto3.Session().client("s3")
    begun = client.create_multipart_upload(Bucket=bucket, Key=f"wind_store/sha256/ab/{'ab' * 32}")
    assert [one.upload for one in store.unfinished()] == [begun["UploadId"]]
    store.discard(next(store.unfinished()))
    store.remove(manifest["weights"]["sha256"])
    assert [*store.blobs(), *store.unfinished()] == []

    artifact = {"Bucket": bucket, "Key": "metaflow/WindFlow/1"}
    client.put_object(**artifact, Body=b"artifact")
    assert client.get_object(**artifact)["Body"].read() == b"artifact"
    assert client.list_objects_v2(Bucket=bucket, Prefix="metaflow/")["KeyCount"] == 1

    assert denied(client.delete_object, **artifact)
    assert denied(client.put_object, Bucket=bucket, Key="elsewhere", Body=b"")
    assert denied(client.get_object, Bucket=bucket, Key="elsewhere")
    assert denied(client.put_bucket_versioning, Bucket=bucket, VersioningConfiguration={"Status": "Suspended"})
    assert denied(client.delete_bucket, Bucket=bucket)
    assert denied(client.list_buckets)


def test_the_bucket_is_private_and_forgives() -> None:
    class Loader(yaml.SafeLoader):
        """Reads CloudFormation's functions as their arguments."""

    Loader.add_multi_constructor("!", lambda loader, _, node: getattr(node, "value", None))
    resources = yaml.load(STACK, Loader)["Resources"]
    bucket = resources["Bucket"]
    settings = bucket["Properties"]
    assert bucket["DeletionPolicy"] == bucket["UpdateReplacePolicy"] == "Retain"
    assert settings["VersioningConfiguration"] == {"Status": "Enabled"}
    public = settings["PublicAccessBlockConfiguration"]
    assert len(public) == 4
    assert all(public.values())
    # No rule removes what a run may need.
    rules = settings["LifecycleConfiguration"]["Rules"]
    actions = {key for rule in rules for key in rule} - {"Id", "Status"}
    assert actions == {"AbortIncompleteMultipartUpload", "NoncurrentVersionExpiration", "ExpiredObjectDeleteMarker"}
    statement = resources["BucketPolicy"]["Properties"]["PolicyDocument"]["Statement"][0]
    assert (statement["Effect"], statement["Condition"]) == ("Deny", {"Bool": {"aws:SecureTransport": "false"}})
