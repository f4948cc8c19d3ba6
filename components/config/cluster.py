"""The config's section about clusters, with its defaults."""

from __future__ import annotations

from pydantic import Field, field_validator

from components.config.cron import check_cron, check_time_zone
from components.config.kube_names import Image, Labels, Mounts, Name, Project, Toleration
from components.config.schema import Section

MOST_MEGABYTES = 10**9  # beyond any machine, and within what Kubernetes can count


class PodConfig(Section):
    """What a step's pods are on Kubernetes, beside the step's `resources`."""

    image: Image | None = Field(
        None, description="absent: METAFLOW_KUBERNETES_CONTAINER_IMAGE, or Metaflow's own choice"
    )
    service_account: Name | None = Field(None, description="whose rights the pods have; absent: Metaflow's own choice")
    secrets: list[Name] | None = Field(None, description="names of Kubernetes secrets, which become variables")
    node_selector: Labels | None = Field(None, description="labels of the nodes that may run them")
    tolerations: list[Toleration] | None = Field(None, description="taints of nodes that may run them all the same")
    volumes: Mounts | None = Field(None, description="persistent volume claims and where they are mounted")
    shared_memory: int | None = Field(None, gt=0, le=MOST_MEGABYTES, description="MB of /dev/shm")
    disk: int | None = Field(None, gt=0, le=MOST_MEGABYTES, description="MB; absent: 10240")


class StepPods(Section):
    """What differs for the pods of each kind of step."""

    start: PodConfig = PodConfig()
    plan: PodConfig = PodConfig()
    generate: PodConfig = PodConfig()
    score: PodConfig = PodConfig()
    gather: PodConfig = PodConfig()
    train: PodConfig = PodConfig()
    evaluate: PodConfig = PodConfig()
    end: PodConfig = PodConfig()


class ScheduleConfig(Section):
    """When Argo starts a run by itself."""

    cron: str = Field(description="five fields: minute, hour, day of month, month, day of week")
    timezone: str = Field("UTC", description="an IANA name, such as Europe/Berlin")

    @field_validator("cron")
    @classmethod
    def _comes(cls, cron: str) -> str:
        check_cron(cron)
        return cron

    @field_validator("timezone")
    @classmethod
    def _exists(cls, timezone: str) -> str:
        check_time_zone(timezone)
        return timezone


class ClusterConfig(PodConfig):
    """How the flow runs on Kubernetes and Argo; ignored where it runs locally.

    The namespace is not here: Metaflow takes it from METAFLOW_KUBERNETES_NAMESPACE, for Argo from nowhere else.
    """

    root: bool = Field(False, description="whether images that run as root may; the project's own do not")
    project: Project | None = Field(None, description="Metaflow's @project: keeps the deployments of branches apart")
    schedule: ScheduleConfig | None = None
    # Metaflow makes six attempts at most, and keeps one of them for itself.
    retries: int = Field(3, ge=0, le=4, description="of a task that fails")
    minutes_between_retries: int = Field(2, ge=0, le=10_080, description="before a task that failed runs again")
    timeout_hours: int = Field(72, gt=0, le=8_784, description="after which a task is ended")
    steps: StepPods = StepPods()

    def pod(self, kind: str) -> PodConfig:
        """The pods of a kind of step, such as "train"."""
        own = getattr(self.steps, kind).model_dump(exclude_none=True)
        return PodConfig(**{**{name: getattr(self, name) for name in PodConfig.model_fields}, **own})
