"""Images, manifests, Argo's values and the AWS template: none has a slip, and each check sees one that is put in."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import boto3
import cfnlint
import kubernetes_validate
import pytest
import yaml
from botocore.exceptions import ClientError
from hera.workflows import models as argo
from metaflow.metaflow_environment import MetaflowEnvironment
from moto import mock_aws
from moto.core import set_initial_no_auth_action_count
from pydantic import ValidationError

from components.run_config import parse
from components.store import open_store, s3_client
from support.cloud.deployment import GUIDE, TELL
from support.cloud.loopback import serving

ROOT = Path(__file__).parents[2]
INFRA = ROOT / "infra"
IMAGES = sorted((INFRA / "images").glob("*.Dockerfile"))
MANIFESTS = sorted((INFRA / "kubernetes").glob("*.yaml"))
STACK = (INFRA / "aws" / "wind.yaml").read_text()
UNSUPPORTED = pytest.mark.filterwarnings("ignore:Tried to parse AWS..S3..BucketPolicy")  # moto leaves it out
KUBERNETES = ("1.31", "1.37")  # the oldest and the newest version that the manifests are checked against


def slip(text: str, right: str, wrong: str) -> str:
    """`text` with its first `right` turned into `wrong`."""
    assert right in text
    return text.replace(right, wrong, 1)


# Images


def hadolint(dockerfile: str) -> str:
    """What hadolint finds; empty if nothing."""
    command = [str(Path(sys.executable).with_name("hadolint")), "--no-color", "-"]
    done = subprocess.run(command, input=dockerfile, capture_output=True, text=True, timeout=60, check=False)
    assert bool(done.returncode) == bool(done.stdout), done.stderr
    return done.stdout


def instructions(dockerfile: Path) -> list[tuple[str, str]]:
    """(name, arguments) of each instruction, continued lines joined."""
    text = re.sub(r"^#.*\n", "", dockerfile.read_text(), flags=re.M).replace("\\\n", "")
    return [(line.split(maxsplit=1)[0], line.split(maxsplit=1)[1]) for line in text.splitlines() if line]


def environment(dockerfile: Path) -> dict[str, str]:
    """What the image's ENV instructions set."""
    words = [word for name, arguments in instructions(dockerfile) if name == "ENV" for word in arguments.split()]
    return dict(word.split("=", 1) for word in words)


@pytest.mark.parametrize("image", IMAGES, ids=lambda path: path.stem)
def test_an_image_passes_the_linter(image: Path) -> None:
    assert hadolint(image.read_text()) == ""


@pytest.mark.parametrize("image", IMAGES, ids=lambda path: path.stem)
@pytest.mark.parametrize(
    ("right", "wrong", "said"),
    [
        (r"^(FROM \S+):\S+", r"\1:latest", "DL3007"),
        (r"^WORKDIR", "WORKDIRS", "missing whitespace"),
        (r"\Z", "USER root\n", "DL3002"),
        (r"\Z", "RUN pip install torch\n", "DL3013"),
        (r"\Z", "RUN apt-get install -y --no-install-recommends git\n", "DL3008"),
    ],
)
def test_the_linter_sees_a_slip(image: Path, right: str, wrong: str, said: str) -> None:
    changed = re.sub(right, wrong, image.read_text(), count=1, flags=re.M)
    assert changed != image.read_text()
    assert said in hadolint(changed)


@pytest.mark.parametrize("image", IMAGES, ids=lambda path: path.stem)
def test_a_pod_is_somebody_and_installs_nothing_when_it_starts(image: Path, tmp_path: Path) -> None:
    users = [arguments for name, arguments in instructions(image) if name == "USER"]
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", users[-1])

    python = tmp_path / "python"
    python.write_text('#!/bin/sh\necho "$@"\n')
    python.chmod(0o755)
    install = MetaflowEnvironment(None)._get_install_dependencies_cmd("s3")

    def started(env: dict[str, str]) -> str:
        path = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
        return subprocess.run(["bash", "-c", install], env={**env, **path}, stdout=-1, text=True, check=True).stdout

    assert started(environment(image)) == ""
    assert "pip install" in started({})  # what Metaflow does elsewhere


def test_images_hold_all_requirements(tmp_path: Path) -> None:
    requirements = (ROOT / "requirements.txt").read_text()
    (tmp_path / "requirements.txt").write_text(requirements)
    pinned = set(re.findall(r"^[\w-]+==\S+", requirements, flags=re.M))
    held = {}
    for image in IMAGES:
        runs = [part for kind, arguments in instructions(image) if kind == "RUN" for part in arguments.split("&&")]
        lists = [part.strip() for part in runs if " requirements.txt > " in part]
        subprocess.run(["bash", "-c", " && ".join(lists)], cwd=tmp_path, check=True)
        lines = [line for part in lists for line in (tmp_path / part.split()[-1]).read_text().splitlines()]
        held[image.stem] = {line.split()[0] for line in lines if not line.startswith("#")}
    assert held["cpu"] == pinned
    vllm = re.search(r"^vllm==(\S+)", (ROOT / "requirements-vllm.txt").read_text(), flags=re.M)
    assert vllm
    assert ("FROM", f"vllm/vllm-openai:v{vllm[1]}") in instructions(INFRA / "images" / "gpu.Dockerfile")
    # vLLM requires these itself.
    vllms = {"numpy", "pydantic", "PyYAML", "safetensors", "torch", "tqdm", "transformers"}
    assert {line.split("==")[0] for line in pinned - held["gpu"]} == vllms
    assert held["gpu"] < pinned


@pytest.mark.parametrize("image", IMAGES, ids=lambda path: path.stem)
def test_what_an_image_copies_is_sent_to_the_build(image: Path) -> None:
    sent = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    copied = [name for kind, arguments in instructions(image) if kind == "COPY" for name in arguments.split()[:-1]]
    assert copied
    assert set(copied) <= set(sent)
    assert all((ROOT / name).is_file() for name in sent)


# Kubernetes

# Karpenter's own keys; the Kubernetes types within are checked as parts of objects that have them too.
NODE_POOL = {"disruption", "limits", "template", "weight"}
NODE = {"expireAfter", "nodeClassRef", "requirements", "startupTaints", "taints", "terminationGracePeriod"}
DISRUPTION = {"budgets", "consolidateAfter", "consolidationPolicy"}


def documents(text: str) -> list[dict[str, Any]]:
    return [document for document in yaml.safe_load_all(text) if document]


def pod(spec: dict[str, Any]) -> dict[str, Any]:
    """A Pod of one container with `spec`."""
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {}, "spec": {"containers": [{"name": "main"}], **spec}}


def checked(document: dict[str, Any]) -> None:
    """Raises ValidationError of kubernetes_validate, or AssertionError, for what Kubernetes would not take or know."""
    if document["kind"] != "NodePool":
        for version in KUBERNETES:
            kubernetes_validate.validate(document, version, strict=True)
        return
    spec = document["spec"]
    node = spec["template"]["spec"]
    assert (document["apiVersion"], set(document)) == ("karpenter.sh/v1", {"apiVersion", "kind", "metadata", "spec"})
    assert set(spec) <= NODE_POOL
    assert set(spec["template"]) <= {"metadata", "spec"}
    assert {"nodeClassRef", "requirements"} <= set(node) <= NODE
    assert set(node["nodeClassRef"]) == {"group", "kind", "name"}
    assert set(spec["disruption"]) <= DISRUPTION
    assert spec["disruption"]["consolidationPolicy"] in ("WhenEmpty", "WhenEmptyOrUnderutilized")
    checked({"apiVersion": "v1", "kind": "Node", "metadata": {}, "spec": {"taints": node["taints"]}})
    wanted = {"nodeSelectorTerms": [{"matchExpressions": node["requirements"]}]}
    required = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": wanted}}
    checked(pod({"affinity": required}))
    checked(pod({"containers": [{"name": "main", "resources": {"limits": spec["limits"]}}]}))


@pytest.mark.parametrize("manifest", MANIFESTS, ids=lambda path: path.stem)
def test_kubernetes_knows_all_of_a_manifest(manifest: Path) -> None:
    for document in documents(manifest.read_text()):
        checked(document)
        assert document["kind"] != "Secret"


@pytest.mark.parametrize(
    ("manifest", "right", "wrong"),
    [
        ("wind", "verbs:", "verb:"),
        ("wind", "roleRef:", "roleref:"),
        ("wind", "defaultRequest:", "defaultRequests:"),
        ("wind", 'pods: "200"', "pods: [200]"),
        ("wind", "kind: LimitRange", "kind: LimitRanges"),
        ("local-s3", "readinessProbe:", "readynessProbe:"),
        ("local-s3", "runAsNonRoot: true", "runAsNonRoot: yes please"),
        ("eks-gpu", "operator: In", "operater: In"),
        ("eks-gpu", "effect: NoSchedule", "effects: NoSchedule"),
        ("eks-gpu", "consolidateAfter", "consolidatedAfter"),
    ],
)
def test_a_slip_in_a_manifest_is_refused(manifest: str, right: str, wrong: str) -> None:
    text = (INFRA / "kubernetes" / f"{manifest}.yaml").read_text()
    refusals = (kubernetes_validate.ValidationError, kubernetes_validate.SchemaNotFoundError, AssertionError)
    changed = slip(text, right, wrong)
    with pytest.raises(refusals):
        for document in documents(changed):
            checked(document)


# What a deployer does: deploy with a schedule, deploy again, start, look, suspend, continue, terminate, delete.
DEPLOY = """
from metaflow.plugins.argo.argo_client import ArgoClient
client = ArgoClient("wind")
for _ in range(2):
    client.register_workflow_template("flow", {"metadata": {}})
    client.schedule_workflow_template("flow", "0 3 * * 1", "Europe/Berlin")
list(client.get_workflow_templates())
client.get_workflow_template("flow"), client.get_cronworkflow("flow")
client.trigger_workflow_template("flow", "user", "tester", {"seed": 1})
client.suspend_workflow("run")
client.unsuspend_workflow("waits")
client.terminate_workflow("run")
client.delete_cronworkflow("flow")
client.delete_workflow_template("flow")
"""


class Recorder(BaseHTTPRequestHandler):
    """Stands where Kubernetes' API would, has what was posted, and notes what it is asked for."""

    asked: set[tuple[str, str]]
    posted: set[str]

    def answer(self) -> None:
        path = self.path.split("?")[0]
        where = path.removeprefix("/apis/argoproj.io/v1alpha1/namespaces/wind/").split("/")
        verbs = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
        self.asked.add((where[0], verbs.get(self.command, "get" if where[1:] else "list")))
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.command == "POST":
            self.posted.add(where[0])
        missing = self.command == "GET" and where[0] not in {"workflows", *self.posted}
        body = {"metadata": {"resourceVersion": "1"}, "items": [], "status": {"finishedAt": None}, "message": "none"}
        body["spec"] = {"suspend": where[-1] == "waits"}
        self.send_response(404 if missing else 200)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = answer  # noqa: N815

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def recorder() -> Iterator[HTTPServer]:
    Recorder.asked, Recorder.posted = set(), set()
    with serving(Recorder) as server:
        yield server


def test_a_deployer_may_do_what_metaflow_does_and_no_more(recorder: HTTPServer, tmp_path: Path) -> None:
    cluster = {"name": "here", "cluster": {"server": f"http://127.0.0.1:{recorder.server_port}"}}
    context = {"name": "here", "context": {"cluster": "here", "user": "me"}}
    user = {"name": "me", "user": {}}
    config = {"clusters": [cluster], "contexts": [context], "current-context": "here", "users": [user]}
    (tmp_path / "config").write_text(yaml.safe_dump({"apiVersion": "v1", "kind": "Config", **config}))
    env = {**os.environ, "KUBECONFIG": str(tmp_path / "config"), "METAFLOW_HOME": str(tmp_path)}
    subprocess.run([sys.executable, "-c", DEPLOY], env={**env, "USERNAME": "tester"}, timeout=60, check=True)

    roles = {
        document["metadata"]["name"]: document
        for document in documents((INFRA / "kubernetes" / "wind.yaml").read_text())
        if document["kind"] == "Role"
    }
    allowed = {
        (resource, verb)
        for rule in roles["wind-deployer"]["rules"]
        if rule["apiGroups"] == ["argoproj.io"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
    # The rest is what kubectl and Argo's page do: list, watch, and delete runs.
    assert Recorder.asked <= allowed
    assert {verb for _, verb in allowed - Recorder.asked} <= {"list", "watch", "delete"}


# Argo Workflows

VALUES = (INFRA / "argo" / "values.yaml").read_text()
CHART = yaml.safe_load((INFRA / "argo" / "chart-keys.yaml").read_text())
CHART_NAMED_IN = ("README.md", "argo/values.yaml", "argo/chart-keys.yaml")
CONTAINERS = ("controller", "executor", "mainContainer", "server")


def check_values(values: dict[str, Any]) -> None:
    """Raises for keys that the chart, Argo or Kubernetes does not know."""
    pending = [("top", values)]
    while pending:
        level, given = pending.pop()
        assert set(given) <= set(CHART[level]), level
        inner = {f"{level}.{key}".removeprefix("top."): value for key, value in given.items()}
        pending += [(name, value) for name, value in inner.items() if name in CHART]
    for name in CONTAINERS:
        parts = {key: values[name][key] for key in ("resources", "securityContext") if key in values[name]}
        checked(pod({"containers": [{"name": "main", **parts}]}))
    defaults = {"metadata": {}, **values["controller"]["workflowDefaults"]}
    argo.Workflow.model_validate(defaults, extra="forbid", by_alias=True, by_name=False)


def test_argo_knows_all_values() -> None:
    check_values(yaml.safe_load(VALUES))


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("singleNamespace:", "singleNamespaces:"),
        ("authModes:", "authMods:"),
        ("secondsAfterSuccess:", "secondsAfterSucces:"),
        ("podMetadata:", "podMetaData:"),
        ("allowPrivilegeEscalation:", "allowPrivilegesEscalation:"),
        ("requests:", "request:"),
    ],
)
def test_a_slip_in_argos_values_is_refused(right: str, wrong: str) -> None:
    with pytest.raises((AssertionError, ValidationError, kubernetes_validate.ValidationError)):
        check_values(yaml.safe_load(slip(VALUES, right, wrong)))


@UNSUPPORTED
def test_files_agree_on_namespace_and_service_account() -> None:
    accounts = [
        (document["metadata"]["namespace"], document["metadata"]["name"])
        for document in documents((INFRA / "kubernetes" / "wind.yaml").read_text())
        if document["kind"] == "ServiceAccount"
    ]
    namespace, account = accounts[0]
    values = yaml.safe_load(VALUES)
    assert values["workflow"]["serviceAccount"]["name"] == account
    assert values["controller"]["workflowDefaults"]["spec"]["serviceAccountName"] == account
    with mock_aws():
        trust = boto3.client("iam", "us-east-1").get_role(RoleName=stack()["PodRoleArn"].split("/")[-1])
    statement = trust["Role"]["AssumeRolePolicyDocument"]["Statement"][0]
    assert statement["Principal"]["Federated"].endswith(":oidc-provider/oidc.example.com/id/1")
    assert statement["Condition"]["StringEquals"] == {
        "oidc.example.com/id/1:aud": "sts.amazonaws.com",
        "oidc.example.com/id/1:sub": f"system:serviceaccount:{namespace}:{account}",
    }


# The guide


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", GUIDE, flags=re.S)


def test_the_guides_configs_are_valid() -> None:
    own, demo = blocks("yaml")
    task = "policy: {model: somewhere}\nprompts: {train: p.jsonl}\njudge: {name: verifier, function: 'm:score'}\n"
    cluster = parse(task + own)["cluster"]
    tolerated = cluster["steps"]["train"]["tolerations"][0]
    (taint,) = documents((INFRA / "kubernetes" / "eks-gpu.yaml").read_text())[0]["spec"]["template"]["spec"]["taints"]
    assert (tolerated["key"], tolerated["effect"]) == (taint["key"], taint["effect"])
    local = parse((ROOT / "flows" / "configs" / "demo.yaml").read_text() + demo)["cluster"]
    assert cluster["service_account"] == local["service_account"] == "wind"


def test_the_guides_commands_are_whole_and_name_what_is_there() -> None:
    for block in blocks("bash"):
        subprocess.run(["bash", "-n"], input=block, text=True, check=True)
    named = set(re.findall(r"(?:infra|flows|tests)/[\w./$-]+\w", GUIDE))
    assert len(named) > 8
    assert all((ROOT / name.replace("$kind", kind)).exists() for name in named for kind in ("cpu", "gpu"))
    client = re.search(r"kubernetes==[\d.]+", GUIDE)
    assert client
    assert client[0] in (ROOT / "requirements-dev.txt").read_text().splitlines()
    charts = [re.findall(r"\b1\.0\.\d+\b", (INFRA / name).read_text()) for name in CHART_NAMED_IN]
    assert len({version for versions in charts for version in versions}) == 1
    assert all(charts)


def test_a_failed_run_tells_what_the_guide_says(webhook) -> None:
    """As Metaflow's hook does it at the end of a run."""
    error = json.dumps({"templateName": "train-2", "message": "OOMKilled (exit code 137)"})
    variables = {"METAFLOW_WORKFLOW_NAME": "wind-abcde", "METAFLOW_ARGO_ERROR": error, "WEBHOOK": webhook.address}
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    env = {**os.environ, **variables, "PATH": path, "SCRIPT": TELL}
    subprocess.run(["bash", "-c", 'eval "${SCRIPT}"'], env=env, timeout=60, check=True)
    assert webhook.posted == [{"text": "wind-abcde: train-2: OOMKilled (exit code 137)"}]


# AWS


def cfn_lint(template: str) -> list[str]:
    """Rules of cfn-lint that the template breaks; its hints on documentation do not count."""
    found = cfnlint.lint_all(template)
    return [f"{match.rule.id}: {match.message}" for match in found if match.rule.id[0] in "EW"]


def test_the_template_passes_the_linter() -> None:
    assert cfn_lint(STACK) == []


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("BlockPublicAcls:", "BlockPublicAcl:"),
        ("DaysAfterInitiation: 7", "DaysAfterInitiation: soon"),
        ("VpcId: !Ref VpcId", "VpcId: !Ref Vpc"),
        ("s3:AbortMultipartUpload", "s3:AbortMultipartUploads"),
    ],
)
def test_the_linter_sees_a_slip_in_the_template(right: str, wrong: str) -> None:
    assert cfn_lint(slip(STACK, right, wrong))


def stack() -> dict[str, str]:
    """Outputs of a stack made from the template."""
    formation = boto3.client("cloudformation", "us-east-1")
    issuer = {"ParameterKey": "OidcIssuer", "ParameterValue": "oidc.example.com/id/1"}
    formation.create_stack(StackName="wind", TemplateBody=STACK, Parameters=[issuer], Capabilities=["CAPABILITY_IAM"])
    made = formation.describe_stacks(StackName="wind")["Stacks"][0]
    assert made["StackStatus"] == "CREATE_COMPLETE"
    return {output["OutputKey"]: output["OutputValue"] for output in made["Outputs"]}


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
