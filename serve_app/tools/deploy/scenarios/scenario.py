"""What a deployment to Kubernetes says: kuberay/scenarios/*.yaml, with overrides, checked whole."""

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
    """Which images, all built from kuberay/images with one Ray version."""

    registry: str = Field(
        "serve-app", pattern=r"^[^\s:@]+(:[0-9]+[^\s:@]*)?$", description="where they are pulled from"
    )
    tag: str = Field("0.1.0", pattern=r"^[\w][\w.-]{0,127}$", description="their tag; nothing is deployed as `latest`")
    ray: str = Field("2.60.0", description="the Ray version in every one of them")
    pull_policy: Literal["IfNotPresent", "Always", "Never"] = "IfNotPresent"

    @field_validator("tag")
    @classmethod
    def _a_fixed_tag(cls, tag: str) -> str:
        if tag == "latest":
            raise ValueError("latest is another image every week; name the one that was tested")
        return tag

    def name(self, image: ImageName) -> str:
        return f"{self.registry}/{image}:{self.tag}"


class Group(Section):
    """One kind of pod: its image and what of a machine it takes."""

    image: ImageName
    cpu: float = Field(gt=0, description="cores that are set aside")
    memory: Quantity
    disk: Quantity = Field("10Gi", description="room for logs, temporary files, caches and models")
    gpus: int = Field(0, ge=0, le=16, description="nvidia.com/gpu")
    pools: tuple[str, ...] = Field((), description="node labels serve-app/pool it may run on; empty: any node")


class HeadGroup(Group):
    """The head: Ray's own services, and replicas only where it `works`."""

    works: bool = Field(False, description="false: num-cpus 0, so that no replica is placed there")


class WorkerGroup(Group):
    """Workers of one role; Ray's autoscaler keeps as many as the replicas ask for."""

    min: int = Field(1, ge=0)
    max: int = Field(1, ge=1)
    idle_timeout_s: int = Field(
        300, ge=1, description="how long an empty pod stays; a GPU machine takes minutes to return"
    )

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.min > self.max:
            raise ValueError(f"min {self.min} is over max {self.max}")
        return self


class ModelStore(Section):
    """The model repository on S3, which `scripts/models push` fills."""

    url: str = Field(pattern=r"^s3://[a-z0-9][a-z0-9.-]+(/\S*)?$")
    poll_s: int = Field(60, ge=5, description="how often a pod looks for a new version")
    room: Quantity = Field(
        "20Gi", description="on each pod's disk; two versions lie there while one replaces the other"
    )


class PlanStore(Section):
    """A volume that every vision pod shares, so that TensorRT's plans are built once."""

    claim: KubernetesName = "serve-app-plans"
    storage_class: str = Field("efs", description="one that many pods may write to (ReadWriteMany)")
    size: Quantity = "20Gi"


class SecretKey(Section):
    """A value that lives in a Secret; manifests only name it."""

    secret: KubernetesName
    key: str = Field(pattern=r"^[\w.-]+$")


class LoadBalancer(Section):
    """A network load balancer of AWS in front of the pods; null keeps the service inside the cluster."""

    internal: bool = True
    vpc: str = Field(
        "192.168.0.0/16", description="CIDR of the VPC, from which it calls pods; eksctl's unless told else"
    )
    clients: tuple[str, ...] = Field((), description="CIDRs that may call it; empty: the VPC")
    certificate: str | None = Field(None, description="ARN of an ACM certificate: TLS ends at the load balancer")


class HeadStore(Section):
    """Redis for Ray's global state, so that a lost head comes back to a cluster that went on."""

    address: str | None = Field(
        None,
        pattern=r"^(rediss?://)?[^:/\s]+:[0-9]{2,5}$",
        description="one that is there, host:port; ElastiCache takes passwords over TLS alone: rediss://host:port. "
        "null: one is deployed",
    )
    image: str = "redis:7.4.2-bookworm"
    password: SecretKey = SecretKey(secret="serve-app-redis", key="password")


class Upgrade(Section):
    """What KubeRay does when more than the Serve configuration changes."""

    strategy: Literal["new-cluster", "incremental", "none"] = "new-cluster"
    gateway_class: str | None = Field(None, description="for incremental: the GatewayClass; it shifts HTTP, not gRPC")
    step_percent: int = Field(10, ge=1, le=100)
    interval_s: int = Field(30, ge=1)
    max_surge_percent: int = Field(50, ge=1, le=100)

    @model_validator(mode="after")
    def _gateway_for_steps(self) -> Self:
        if self.strategy == "incremental" and not self.gateway_class:
            raise ValueError("incremental shifts traffic by a Gateway: name its gateway_class")
        return self


class Scenario(Section):
    """One deployment: the service's configuration, what differs on Kubernetes, and the machines."""

    scenario: KubernetesName = Field(description="its own name; that of the file")
    purpose: str
    prerequisites: tuple[str, ...] = ()
    config: Path = Field(description="configs/*.yaml, as it runs locally")
    changes: dict[str, Any] = Field({}, description="merged into its `args`; lists of named things by name")
    deployments: dict[str, Any] = Field({}, description="merged into its `deployments`, by name")
    environment: dict[str, str] = Field({}, description="variables of every Ray process; no secrets")
    name: KubernetesName = Field("serve-app", max_length=40, description="of the RayService")
    namespace: KubernetesName = "serve-app"
    images: Images = Images()
    head: HeadGroup
    workers: dict[Role, WorkerGroup] = Field({}, description="groups of workers, by what runs on them")
    models: ModelStore | None = None
    plans: PlanStore | None = None
    hub_token: SecretKey | None = Field(None, description="Hugging Face's, for gated models: HF_TOKEN")
    admin_key: SecretKey | None = Field(None, description="what load and unload ask for, mounted as a file")
    load_balancer: LoadBalancer | None = None
    head_store: HeadStore | None = None
    upgrade: Upgrade = Upgrade()
    initializing_timeout_s: int = Field(600, ge=60, description="nodes, image pulls, engine builds; then it has failed")
    drain_s: int = Field(120, ge=30, description="how long a stopping pod's work may take to finish or move")
    deletion_delay_s: int = Field(120, ge=0, description="how long the old cluster of an upgrade still answers")
    operator_namespace: KubernetesName = "kuberay-system"
    monitoring_namespace: KubernetesName = "monitoring"

    @property
    def secrets(self) -> tuple[SecretKey, ...]:
        """Everything that must be there before pods can start."""
        store = self.head_store.password if self.head_store else None
        return tuple(key for key in (self.hub_token, self.admin_key, store) if key)

    @property
    def autoscales(self) -> bool:
        return any(group.min < group.max for group in self.workers.values())

    @model_validator(mode="after")
    def _somewhere_to_work(self) -> Self:
        if not self.workers and not self.head.works:
            raise ValueError("head.works is false and there are no workers: nothing could be placed")
        if self.workers and "routers" not in self.workers and not self.head.works:
            raise ValueError("routers have no place: add workers.routers, or set head.works")
        if self.plans and "vision" not in self.workers:
            raise ValueError("plans are for workers.vision, and there are none")
        if self.models and self.workers and "vision" not in self.workers:
            raise ValueError("models are for workers.vision, and there are none")
        return self

    @model_validator(mode="after")
    def _one_way_in(self) -> Self:
        if self.upgrade.strategy == "incremental" and self.load_balancer:
            raise ValueError(
                "an incremental upgrade shifts traffic at its Gateway, and the load balancer would pass it by: "
                "set load_balancer to null"
            )
        return self

    @field_validator("environment")
    @classmethod
    def _no_secrets(cls, environment: dict[str, str]) -> dict[str, str]:
        for name in environment:
            if name.upper().endswith(("TOKEN", "SECRET", "PASSWORD", "KEY")):
                raise ValueError(f"{name} would be shown to whoever reads the manifest; put it into a Secret")
        return environment


def scenario_names() -> tuple[str, ...]:
    return tuple(sorted(path.stem for path in SCENARIOS.glob("*.yaml")))


def read_scenario(name: str, overrides: Sequence[str] = ()) -> Scenario:
    """A scenario of kuberay/scenarios, or a file of one's own, with `key.below=value` for what should differ."""
    path = SCENARIOS / f"{name}.yaml"
    if not path.is_file():
        path = Path(name)
    if not path.is_file():
        known = scenario_names()
        hint = near_miss(name, known, f"there are {', '.join(known)}")
        raise ConfigurationError(f"no scenario {name!r} in kuberay/scenarios, and no such file{hint}")
    try:
        content = yaml.safe_load(path.read_text())
    except yaml.YAMLError as problem:
        raise ConfigurationError(f"{path} is not YAML: {str(problem).splitlines()[-1].strip()}") from None
    if not isinstance(content, dict):
        raise ConfigurationError(f"{path} has keys and values, not {content!r}")
    for override in overrides:
        _set(content, override)
    return parse_scenario({"scenario": path.stem} | content, path.name)


def parse_scenario(content: dict[str, Any], source: str) -> Scenario:
    try:
        return Scenario.model_validate(content)
    except ValidationError as problem:
        raise ConfigurationError(f"{source}: {mistakes(problem.errors(), 'scenario')}") from None


def _set(content: dict[str, Any], override: str) -> None:
    """`images.tag=1.20`: read as YAML, but a number or a date stays as it was written, for the key's own type to read.

    What goes into the Serve configuration has no type here, so there numbers are YAML's; nothing takes a date.
    """
    path, equals, text = override.partition("=")
    *parents, last = path.split(".")
    if not equals or not last:
        raise ConfigurationError(f"--set {override!r}: write key=value, with dots to go down: images.tag=1.2")
    target = content
    for key in parents:
        below = target.get(key)
        if below is None:
            below = target[key] = {}
        if not isinstance(below, dict):
            raise ConfigurationError(f"--set {override!r}: {key} has the value {below!r}, and nothing below it")
        target = below
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        raise ConfigurationError(f"--set {override!r}: {text!r} is not YAML") from None
    untyped = path.split(".")[0] in ("changes", "deployments")
    written = isinstance(value, date) or (type(value) in (int, float) and not untyped)
    target[last] = text if written else value
