"""The config's `cluster` section as decorators, and where they apply."""

import pytest

from base import BadConfig
from cluster import leaves_this_machine, most_iterations, pod_options, refuse_user
from components.config.cluster import ClusterConfig
from components.config.errors import ConfigError
from components.run_config import parse

pytestmark = pytest.mark.thorough

CLUSTER = """
demo: {}
cluster:
  image: wind:1
  node_selector: {pool: cpu}
  secrets: [token]
  steps:
    train: {image: wind:1-gpu, node_selector: {pool: gpu}, shared_memory: 8192, volumes: {cache: /cache}}
"""


def test_what_kubernetes_takes_is_taken():
    text = """demo: {}
cluster:
  image: registry.example.com:5000/wind@sha256:0123
  secrets: [a.b-c]
  node_selector: {eks.amazonaws.com/instance-gpu-name: h100, pool: ""}
  tolerations: [{operator: Exists}, {key: nvidia.com/gpu, operator: Exists, effect: NoSchedule}, {key: a, value: b}]
  volumes: {models: /models}
"""
    assert parse(text)["cluster"]["node_selector"] == {"eks.amazonaws.com/instance-gpu-name": "h100", "pool": ""}


def test_a_kind_of_step_overrides_what_all_have():
    cluster = ClusterConfig.model_validate(parse(CLUSTER)["cluster"])
    assert pod_options(cluster, "plan") == {"image": "wind:1", "node_selector": {"pool": "cpu"}, "secrets": ["token"]}
    assert pod_options(cluster, "train") == {
        "image": "wind:1-gpu",
        "node_selector": {"pool": "gpu"},
        "secrets": ["token"],
        "shared_memory": 8192,
        "persistent_volume_claims": {"cache": "/cache"},
    }


@pytest.mark.parametrize(
    ("line", "leaves"),
    [
        ("flow.py run", False),
        ("flow.py resume --origin-run-id argo-wind-1", False),
        ("flow.py --config config argo.yaml run --with retry", False),
        ("flow.py argo-workflows create --only-json", True),
        ("flow.py run --with kubernetes", True),
        ("flow.py run --with retry --with kubernetes:memory=8", True),
        ("flow.py --with=kubernetes:cpu=2 run", True),
    ],
)
def test_where_it_applies(line, leaves):
    assert leaves_this_machine(line.split(), {}) is leaves


@pytest.mark.parametrize(
    ("environment", "leaves"),
    [
        ({"METAFLOW_DECOSPECS": "retry kubernetes:memory=8"}, True),
        ({"METAFLOW_DECOSPECS": "retry"}, False),
        ({"METAFLOW_KUBERNETES_WORKLOAD": "1"}, True),  # a task in its pod
    ],
)
def test_where_the_environment_says_so(environment, leaves):
    assert leaves_this_machine(["flow.py", "step", "train_1"], environment) is leaves


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cluster: {steps: {trains: {image: a}}}", "cluster.steps.trains: unknown key. Did you mean 'train'?"),
        ("cluster: {schedule: {timezone: UTC}}", "cluster.schedule.cron: is required."),
        ("cluster: {retries: 5}", "cluster.retries: 5 cannot be used."),
        ("cluster: {timeout_hours: 1000000}", "cluster.timeout_hours: 1000000 cannot be used."),
        ("cluster: {minutes_between_retries: 1000000}", "cluster.minutes_between_retries: 1000000 cannot be used."),
        (f"cluster: {{disk: {2**63 - 1}}}", f"cluster.disk: {2**63 - 1} cannot be used."),
        (f"resources: {{train: {{memory: {2**63 - 1}}}}}", f"resources.train.memory: {2**63 - 1} cannot be used."),
        ("training: {nodes_wait_minutes: 1e13}", "training.nodes_wait_minutes: 10000000000000.0 cannot be used."),
        ("training: {processes: 1000000000}", "training.processes: 1000000000 cannot be used."),
        ("cluster: {volumes: {a: /mnt/out}}", "cluster.volumes: a: Argo mounts a volume of its own at /mnt/out."),
        ("cluster: {volumes: {a: /dev/../dev/shm/}}", "cluster.volumes: a: /dev/shm is the pod's shared memory."),
        ("cluster: {volumes: {out: /a}}", "cluster.volumes: 'out' cannot be mounted: Metaflow gives a pod"),
        ("cluster: {steps: {train: {volumes: {dhsm: /a}}}}", "cluster.steps.train.volumes: 'dhsm' cannot be mounted"),
        ("cluster: {image: ''}", "cluster.image: '' is no image."),
        ("cluster: {service_account: My_Account}", "cluster.service_account: 'My_Account' is no name of Kubernetes."),
        ("cluster: {secrets: [hub, Hub]}", "cluster.secrets.1: 'Hub' is no name of Kubernetes."),
        ("cluster: {node_selector: {pool: a b}}", "cluster.node_selector: pool: 'a b' is no value of a label."),
        ("cluster: {node_selector: {/pool: a}}", "cluster.node_selector: '' is no name of Kubernetes."),
        ("cluster: {node_selector: {a/b/c: a}}", "cluster.node_selector: 'a/b' is no name of Kubernetes."),
        (
            f"cluster: {{node_selector: {{{'k' * 64}: a}}}}",
            f"cluster.node_selector: '{'k' * 64}' is no key of a label.",
        ),
        ("cluster: {volumes: {a.b: /a}}", "cluster.volumes: 'a.b' cannot be mounted."),
        ("cluster: {volumes: {a: data}}", "cluster.volumes: a: 'data' is no place to mount it."),
        ("cluster: {volumes: {a: /}}", "cluster.volumes: a: '/' is the root of the image."),
        ("cluster: {volumes: {a: //x/..}}", "cluster.volumes: a: '//x/..' is the root of the image."),
        ("cluster: {volumes: {a: /d, b: /d/}}", "cluster.volumes: /d is given twice."),
        ("cluster: {project: Bad Name}", "cluster.project: 'Bad Name' is no name of a Metaflow project."),
        ("cluster: {project: ''}", "cluster.project: '' is no name of a Metaflow project."),
        ("cluster: {project: größe}", "cluster.project: 'größe' is no name of a Metaflow project."),
        ('cluster: {project: "a\\n"}', "cluster.project: 'a\\n' is no name of a Metaflow project."),
        ("cluster: {steps: {train: {volumes: {a: /d, b: /d}}}}", "cluster.steps.train.volumes: /d is given twice."),
        ("cluster: {tolerations: [{taint: a}]}", "cluster.tolerations.0: 'taint' is unknown."),
        ("cluster: {tolerations: [{key: a, effect: NoStart}]}", "cluster.tolerations.0: effect: 'NoStart' is unknown."),
        ("cluster: {tolerations: [{key: a, operator: Is}]}", "cluster.tolerations.0: operator: 'Is' is unknown."),
        ("cluster: {tolerations: [{value: a}]}", "cluster.tolerations.0: key: is required."),
        (
            "cluster: {tolerations: [{key: a, operator: Exists, value: b}]}",
            "cluster.tolerations.0: value: has no meaning where the operator is Exists.",
        ),
    ],
)
def test_a_bad_setting_is_refused(text, message):
    with pytest.raises(ConfigError) as caught:
        parse(f"demo: {{}}\n{text}")
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize("user", ["max", "Max.Mustermann", "max_m", "max@corp.example", "a+b", "m-2"])
def test_users_whose_name_becomes_a_template_s(user):
    refuse_user({"cluster": {"project": "wind"}}, user, ["create"])


@pytest.mark.parametrize("user", ["Jürgen", "Max Mustermann", "a/b"])
def test_users_whose_name_no_template_can_have(user):
    config = {"cluster": {"project": "wind"}}
    with pytest.raises(BadConfig, match=f"cluster.project: .*'{user}'.*Set METAFLOW_USER"):
        refuse_user(config, user, ["create"])
    refuse_user(config, user, ["--branch", "nightly", "argo-workflows", "create"])
    refuse_user(config, user, ["--production", "argo-workflows", "create"])
    refuse_user({"cluster": {"project": None}}, user, ["create"])
    refuse_user({"cluster": None}, user, ["create"])


STEPS = ["start", *(f"{kind}_{t}" for t in (1, 2) for kind in ("plan", "generate", "score", "gather", "train")), "end"]


def test_argo_must_keep_as_many_shards_as_there_may_be():
    """The demo has 512 prompts by default, so no more shards."""

    def most(**prompts):
        return most_iterations(parse(f"demo: {{}}\niterations: 2\nprompts: {prompts}"), STEPS)

    automatic = {"shards": "auto", "per_iteration": 512}
    assert most(**automatic, most_shards=50) == most(shards=50) > most(shards=500)
    assert most(**automatic, most_shards=9000) == most(shards=512)


def most_of_arms(*arms, compare="seeds: [0, 1]", prompts="shards: 2"):
    apart = [f"{{training: {{epochs: {i}}}, {arm[1:]}" for i, arm in enumerate(arms, 1)]  # equal ones are refused
    listed = "".join(f"\n    a{i}: {arm}" for i, arm in enumerate(apart))
    return most_iterations(
        parse(f"demo: {{}}\niterations: 2\nprompts: {{{prompts}}}\ncompare:\n  {compare}\n  arms:{listed}"), STEPS
    )


def test_argo_must_keep_the_shards_of_all_arms_of_a_comparison():
    """Each step is 7,600 bytes and each task 250: for two seeds, of 2 x 4 shards, of 2 x (2 + 100), and of both alike.

    Start and end have a task each, and of a MiB 10,000 are for the rest.
    """
    room = 2**20 - 10_000 - 2 * (7_600 + 250) - 2 * len("{}")

    def expected(shards, branches=4):
        one = 5 * (7_600 + len("{}")) + 250 * (3 * branches + 2 * shards)
        return room * 2 // (2 * one)

    many = "{prompts: {shards: 100}}"
    assert most_of_arms("{}", "{}") == expected(2 * 4)
    assert most_of_arms("{}", many) == expected(2 * 102)
    assert most_of_arms(many, many) == expected(2 * 200)
    assert most_of_arms(many, many, prompts="shards: 500") == expected(2 * 200)  # which no arm has


def test_automatic_shards_of_arms_go_by_their_budget():
    """Of 8,000 samples in two iterations, K = 8 leave an arm 500 prompts, and half of them 250; seconds are unknown."""
    automatic, halves = "shards: auto, most_shards: 400", ("{}", "{share: 0.5}")
    samples = most_of_arms(*halves, compare="seeds: [0]\n  budget: {samples: 8000}", prompts=automatic)
    by_hand = ("{prompts: {shards: 400}}", "{share: 0.5, prompts: {shards: 250}}")
    assert samples == most_of_arms(*by_hand, compare="seeds: [0]\n  budget: {samples: 8000}")
    seconds = most_of_arms(*halves, compare="seeds: [0]\n  budget: {seconds: 8000}", prompts=automatic)
    assert seconds == most_of_arms("{}", "{}", compare="seeds: [0]", prompts="shards: 400")
