"""The settings of a deployment to Kubernetes: kuberay/scenarios/*.yaml, with overrides."""

from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import Field, ValidationError, field_validator, model_validator

from serve_app.errors import ConfigurationError, near_miss
from serve_app.settings import PROJECT_ROOT, Section, mistakes

SCENARIOS = PROJECT_ROOT / "kuberay" / "scenarios"

Role = Literal["routers", "vision", "llm"]
ImageName = Literal["cpu", "head", "vision", "llm"]
KubernetesName = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")]
Quantity = Annotated[str, Field(pattern=r"^[0-9]+(\.[0-9]+)?(m|[kMGTPE]i?)?$")]


class Images(Section):
    """The images, all built from kuberay/images with one Ray version."""

    registry: str = Field(
        "serve-app", pattern=r"^[^\s:@]+(:[0-9]+[^\s:@]*)?$", description="where images are pulled from"
    )
    tag: str = Field("0.1.0", pattern=r"^[\w][\w.-]{0,127}$", description="their tag; `latest` isn't allowed")
    ray: str = Field("2.60.0", description="the Ray version in every image")
    pull_policy: Literal["IfNotPresent", "Always", "Never"] = "IfNotPresent"

    @field_validator("tag")
    @classmethod
    def _a_fixed_tag(cls, tag: str) -> str:
        if tag == "latest":
            raise ValueError("must be a fixed tag, got latest")
        return tag

    def name(self, image: ImageName) -> str:
        return f"{self.registry}/{image}:{self.tag}"


class Group(Section):
    """One kind of pod: its image and its resources."""

    image: ImageName
    cpu: float = Field(gt=0, description="requested cores")
    memory: Quantity
    disk: Quantity = Field("10Gi", description="disk space for logs, temporary files, caches and models")
    gpus: int = Field(0, ge=0, le=16, description="nvidia.com/gpu")
    pools: tuple[str, ...] = Field((), description="allowed values of the node label serve-app/pool; empty: any")
    priority_class: KubernetesName | None = Field(None, description="a PriorityClass of the cluster, for the scheduler")


class HeadGroup(Group):
    """The head: Ray's own services, and replicas if `works` is set."""

    works: bool = Field(False, description="false: no replicas are placed on the head (num-cpus 0)")


class WorkerGroup(Group):
    """Workers of one role; Ray's autoscaler starts as many as the replicas need."""

    min: int = Field(1, ge=0)
    max: int = Field(1, ge=1)
    spot: bool = Field(False, description="on spot machines, which AWS takes back two minutes after it says so")
    idle_timeout_s: int = Field(
        300, ge=1, description="how long an empty pod is kept; a GPU node takes minutes to start again"
    )

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.min > self.max:
            raise ValueError(f"min must not be greater than max, got min {self.min} and max {self.max}")
        return self


class ModelStore(Section):
    """The model repository on S3, written by `scripts/models push`."""

    url: str = Field(pattern=r"^s3://[a-z0-9][a-z0-9.-]+(/\S*)?$")
    poll_s: int = Field(60, ge=5, description="how often a pod checks for a new version")
    room: Quantity = Field("20Gi", description="disk space on each pod; an update keeps two versions for a while")


class PlanStore(Section):
    """A volume that all vision pods share, so that TensorRT plans are built once."""

    claim: KubernetesName = "serve-app-plans"
    storage_class: str = Field("efs", description="must support ReadWriteMany")
    size: Quantity = "20Gi"


class SecretKey(Section):
    """A value in a Secret; manifests only refer to it."""

    secret: KubernetesName
    key: str = Field(pattern=r"^[\w.-]+$")


class SecretStore(Section):
    """Where the External Secrets Operator finds the scenario's Secrets, each under its own name."""

    name: KubernetesName
    kind: Literal["SecretStore", "ClusterSecretStore"] = "ClusterSecretStore"
    refresh: str = Field("1h", pattern=r"^[0-9]+[smh]$", description="how often it looks for changed values")


class LoadBalancer(Section):
    """An AWS network load balancer in front of the pods; null: reachable only inside the cluster."""

    internal: bool = True
    vpc: str = Field("192.168.0.0/16", description="CIDR of the VPC, from which it calls pods; default: eksctl's")
    clients: tuple[str, ...] = Field((), description="CIDRs that may call it; empty: the VPC")
    certificate: str | None = Field(None, description="ARN of an ACM certificate; TLS ends at the load balancer")


class HeadStore(Section):
    """Redis for Ray's global state, so that a new head rejoins the running cluster."""

    address: str | None = Field(
        None,
        pattern=r"^(rediss?://)?[^:/\s]+:[0-9]{2,5}$",
        description="an existing Redis, host:port; for ElastiCache with a password rediss://host:port. "
        "null: one is deployed",
    )
    image: str = "redis:7.4.2-bookworm"
    password: SecretKey = SecretKey(secret="serve-app-redis", key="password")


class Upgrade(Section):
    """What KubeRay does when more than the Serve configuration changes."""

    strategy: Literal["new-cluster", "incremental", "none"] = "new-cluster"
    gateway_class: str | None = Field(None, description="for incremental, which shifts HTTP only, not gRPC")
    step_percent: int = Field(10, ge=1, le=100)
    interval_s: int = Field(30, ge=1)
    max_surge_percent: int = Field(50, ge=1, le=100)

    @model_validator(mode="after")
    def _gateway_for_steps(self) -> Self:
        if self.strategy == "incremental" and not self.gateway_class:
            raise ValueError("strategy incremental needs gateway_class")
        return self


class Scenario(Section):
    """One deployment: the service's configuration, its changes for Kubernetes, and the pods."""

    scenario: KubernetesName = Field(description="its name, which is the file's")
    purpose: str
    prerequisites: tuple[str, ...] = ()
    config: Path = Field(description="the configuration in configs/*.yaml")
    changes: dict[str, Any] = Field({}, description="merged into its `args`; named list items are merged by name")
    deployments: dict[str, Any] = Field({}, description="merged into its `deployments` by name")
    environment: dict[str, str] = Field({}, description="environment variables of every Ray process; no secrets")
    name: KubernetesName = Field("serve-app", max_length=40, description="of the RayService")
    namespace: KubernetesName = "serve-app"
    images: Images = Images()
    head: HeadGroup
    workers: dict[Role, WorkerGroup] = Field({}, description="worker groups by role")
    models: ModelStore | None = None
    plans: PlanStore | None = None
    hub_token: SecretKey | None = Field(None, description="Hugging Face token for gated models (HF_TOKEN)")
    keys: SecretKey | None = Field(None, description="API keys, as scripts/keys writes them; null: none are asked for")
    admin_key: SecretKey | None = Field(None, description="key for loading and unloading models, mounted as a file")
    secret_store: SecretStore | None = Field(
        None, description="whence External Secrets makes the Secrets; null: you do"
    )
    load_balancer: LoadBalancer | None = None
    head_store: HeadStore | None = None
    upgrade: Upgrade = Upgrade()
    initializing_timeout_s: int = Field(600, ge=60, description="time for nodes, images and engines to start")
    drain_s: int = Field(120, ge=30, description="how long a stopping pod may take to finish or move its work")
    deletion_delay_s: int = Field(120, ge=0, description="how long an upgrade keeps the old cluster")
    operator_namespace: KubernetesName = "kuberay-system"
    monitoring_namespace: KubernetesName = "monitoring"

    @property
    def secrets(self) -> tuple[SecretKey, ...]:
        """The Secrets that must exist before pods can start."""
        store = self.head_store.password if self.head_store else None
        return tuple(key for key in (self.keys, self.hub_token, self.admin_key, store) if key)

    def is_spot(self, role: str) -> bool:
        group = self.workers.get(role)  # type: ignore[call-overload]
        return group is not None and group.spot

    @property
    def autoscales(self) -> bool:
        return any(group.min < group.max for group in self.workers.values())

    @model_validator(mode="after")
    def _somewhere_to_work(self) -> Self:
        if not self.workers and not self.head.works:
            raise ValueError("no place for replicas: add workers, or set head.works")
        if self.workers and "routers" not in self.workers and not self.head.works:
            raise ValueError("no place for routers: add workers.routers, or set head.works")
        if self.plans and "vision" not in self.workers:
            raise ValueError("plans needs workers.vision")
        if self.models and self.workers and "vision" not in self.workers:
            raise ValueError("models needs workers.vision")
        return self

    @model_validator(mode="after")
    def _one_way_in(self) -> Self:
        if self.upgrade.strategy == "incremental" and self.load_balancer:
            raise ValueError(
                "load_balancer would bypass the Gateway of upgrade.strategy incremental: set load_balancer to null"
            )
        return self

    @field_validator("namespace")
    @classmethod
    def _a_namespace_of_its_own(cls, namespace: str) -> str:
        """It is labelled, its pods are confined, and what isn't allowed in it is cut off."""
        if namespace == "default" or namespace.startswith("kube-"):
            raise ValueError(f"{namespace} is shared with others; give the service one of its own")
        return namespace

    @field_validator("environment")
    @classmethod
    def _no_secrets(cls, environment: dict[str, str]) -> dict[str, str]:
        for name in environment:
            if name.upper().endswith(("TOKEN", "SECRET", "PASSWORD", "KEY")):
                raise ValueError(f"{name} would be readable in the manifest; use a Secret")
        return environment


def scenario_names() -> tuple[str, ...]:
    return tuple(sorted(path.stem for path in SCENARIOS.glob("*.yaml")))


def read_scenario(name: str, overrides: Sequence[str] = ()) -> Scenario:
    """A scenario of kuberay/scenarios or any file, with overrides such as `images.tag=1.2`."""
    path = SCENARIOS / f"{name}.yaml"
    if not path.is_file():
        path = Path(name)
    if not path.is_file():
        known = scenario_names()
        hint = near_miss(name, known, f"known: {', '.join(known)}")
        raise ConfigurationError(f"no scenario {name!r} in kuberay/scenarios, and no such file{hint}")
    try:
        content = yaml.safe_load(path.read_text())
    except yaml.YAMLError as problem:
        raise ConfigurationError(f"{path} isn't valid YAML: {str(problem).splitlines()[-1].strip()}") from None
    if not isinstance(content, dict):
        raise ConfigurationError(f"{path} must contain a mapping, got {content!r}")
    for override in overrides:
        _set(content, override)
    return parse_scenario({"scenario": path.stem} | content, path.name)


def parse_scenario(content: dict[str, Any], source: str) -> Scenario:
    try:
        return Scenario.model_validate(content)
    except ValidationError as problem:
        raise ConfigurationError(f"{source}: {mistakes(problem.errors(), 'scenario')}") from None


def _set(content: dict[str, Any], override: str) -> None:
    """Values are YAML, but numbers and dates stay text, so that `images.tag=1.20` keeps its zero.

    The Serve configuration below `changes` and `deployments` has no types here: there numbers are numbers.
    """
    path, equals, text = override.partition("=")
    *parents, last = path.split(".")
    if not equals or not last:
        raise ConfigurationError(f"--set {override!r}: expected KEY=VALUE, such as images.tag=1.2")
    target = content
    for key in parents:
        below = target.get(key)
        if below is None:
            below = target[key] = {}
        if not isinstance(below, dict):
            raise ConfigurationError(f"--set {override!r}: {key} has no keys, its value is {below!r}")
        target = below
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        raise ConfigurationError(f"--set {override!r}: {text!r} isn't valid YAML") from None
    section = path.split(".")[0]
    written = isinstance(value, date) or (type(value) in (int, float) and section not in ("changes", "deployments"))
    written |= (
        section == "environment" and isinstance(value, bool | None) and bool(parents)
    )  # `yes`, and no text at all
    target[last] = text if written else value
