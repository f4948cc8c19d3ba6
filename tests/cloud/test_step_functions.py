"""AWS Step Functions: the unrolled flow is a state machine, whose jobs ask AWS Batch for the config's resources."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest

from support.flows.flow_home import FLOW, Home

pytestmark = [pytest.mark.s3, pytest.mark.thorough]

TRAIN = {"cpu": 2, "gpu": 1, "memory": 9000}


@pytest.fixture
def account(moto_server) -> dict[str, str]:
    """Variables with which Metaflow finds an AWS account that has a job queue."""
    keys = {name.lower(): moto_server.env[name] for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")}
    client = functools.partial(boto3.client, endpoint_url=moto_server.endpoint, region_name="us-east-1", **keys)
    role = client("iam").create_role(RoleName="wind", AssumeRolePolicyDocument="{}")["Role"]["Arn"]
    profile = client("iam").create_instance_profile(InstanceProfileName="wind")["InstanceProfile"]["Arn"]
    machines = {
        "type": "EC2",
        "minvCpus": 0,
        "maxvCpus": 8,
        "instanceTypes": ["optimal"],
        "instanceRole": profile,
        "subnets": [client("ec2").describe_subnets()["Subnets"][0]["SubnetId"]],
        "securityGroupIds": [client("ec2").describe_security_groups()["SecurityGroups"][0]["GroupId"]],
    }
    environment = client("batch").create_compute_environment(
        computeEnvironmentName="wind", type="MANAGED", state="ENABLED", serviceRole=role, computeResources=machines
    )
    order = [{"order": 1, "computeEnvironment": environment["computeEnvironmentArn"]}]
    client("batch").create_job_queue(jobQueueName="wind", state="ENABLED", priority=1, computeEnvironmentOrder=order)
    return {
        "AWS_ENDPOINT_URL": moto_server.endpoint,
        "METAFLOW_BATCH_JOB_QUEUE": "wind",
        "METAFLOW_ECS_S3_ACCESS_IAM_ROLE": role,
        "METAFLOW_SFN_DYNAMO_DB_TABLE": "wind",
        "METAFLOW_SFN_IAM_ROLE": role,
        "PYTHONPATH": str(FLOW.parent),
    }


def in_order(machine: dict[str, Any]) -> Iterator[str]:
    """Names of the states from the first to the last; those of a Map in their place."""
    name = machine["StartAt"]
    while name:
        state = machine["States"][name]
        yield from in_order(state["Iterator"]) if state["Type"] == "Map" else [name]
        name = state.get("Next")


def test_the_flow_is_a_state_machine(moto_server, account: dict[str, str], tmp_path: Path) -> None:
    home = Home(tmp_path, moto_server, changes={"resources": {"train": TRAIN}})
    options = [
        "--no-pylint",
        "--datastore",
        "s3",
        "--config",
        "config",
        str(tmp_path / "config.yaml"),
        "--with",
        "retry",
    ]
    machine = json.loads(home.python(str(FLOW), *options, "step-functions", "create", "--only-json", **account))
    body = ["plan_1", "#generate_1", "generate_1", "score_1", "gather_1", "train_1", "evaluate_1"]
    assert list(in_order(machine)) == ["start", *body, "end"]
    job = machine["States"]["train_1"]["Parameters"]
    assert {one["Type"]: one["Value"] for one in job["ContainerOverrides"]["ResourceRequirements"]} == {
        "VCPU": "2",
        "GPU": "1",
        "MEMORY": "9000",
    }
    assert job["RetryStrategy"] == {"Attempts": 4}  # Metaflow's own default of three retries
    assert len(json.dumps(job["ContainerOverrides"])) < 8192  # AWS Batch takes no more
