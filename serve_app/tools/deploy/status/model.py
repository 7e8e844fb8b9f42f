"""The state of a service at one moment, as frozen values that can be explained without a cluster."""

from dataclasses import dataclass

from serve_app.tools.deploy.api.target import Target

UP = frozenset({"HEALTHY", "UPSCALING", "DOWNSCALING"})  # a deployment that scales has the replicas it needs


@dataclass(frozen=True, slots=True)
class Container:
    name: str
    image: str
    init: bool = False
    ready: bool = False
    state: str = "waiting"  # waiting, running or terminated
    reason: str = ""
    message: str = ""
    exit_code: int | None = None
    restarts: int = 0
    last_reason: str = ""  # of the previous run
    last_exit_code: int | None = None
    last_lines: tuple[str, ...] = ()  # of the previous run's log


@dataclass(frozen=True, slots=True)
class Pod:
    name: str
    group: str = ""
    cluster: str = ""
    phase: str = "Pending"
    ready: bool = False
    deleting: bool = False
    node: str = ""
    unschedulable: str = ""
    created: str = ""
    containers: tuple[Container, ...] = ()


@dataclass(frozen=True, slots=True)
class Condition:
    type: str
    status: str
    reason: str = ""
    message: str = ""

    @property
    def is_true(self) -> bool:
        return self.status == "True"


@dataclass(frozen=True, slots=True)
class Deployment:
    """A Serve deployment."""

    name: str
    status: str
    message: str = ""
    running: int | None = None  # replicas, if Ray's dashboard answers
    wanted: int | None = None


@dataclass(frozen=True, slots=True)
class Application:
    """A Serve application."""

    name: str
    status: str
    message: str = ""
    deployments: tuple[Deployment, ...] = ()

    @property
    def up(self) -> bool:
        return self.status == "RUNNING" and all(one.status in UP for one in self.deployments)


@dataclass(frozen=True, slots=True)
class Cluster:
    """A RayCluster of the RayService; `role` is active, pending, or old until it is deleted."""

    name: str
    role: str
    applications: tuple[Application, ...] = ()


@dataclass(frozen=True, slots=True)
class Event:
    about: str
    reason: str
    message: str
    warning: bool = False
    at: str = ""
    count: int = 1


@dataclass(frozen=True, slots=True)
class Address:
    """One port of a Service that clients may call."""

    service: str
    port: str
    url: str
    kind: str = "ClusterIP"


@dataclass(frozen=True, slots=True)
class Node:
    """A node that Karpenter requested (a NodeClaim)."""

    name: str
    instance_type: str = ""
    ready: bool = False
    problem: str = ""


@dataclass(frozen=True, slots=True)
class ServiceStatus:
    target: Target
    exists: bool = False
    deleting: bool = False
    generation: int = 0
    observed_generation: int = 0
    endpoints: int = 0
    conditions: tuple[Condition, ...] = ()
    clusters: tuple[Cluster, ...] = ()
    pods: tuple[Pod, ...] = ()
    events: tuple[Event, ...] = ()
    addresses: tuple[Address, ...] = ()
    nodes: tuple[Node, ...] = ()
    unreadable: tuple[str, ...] = ()

    def condition(self, type: str) -> Condition | None:
        return next((one for one in self.conditions if one.type == type), None)

    def is_true(self, type: str) -> bool:
        condition = self.condition(type)
        return condition is not None and condition.is_true

    def cluster(self, role: str) -> Cluster | None:
        return next((one for one in self.clusters if one.role == role), None)

    @property
    def observed(self) -> bool:
        """Whether the operator has seen the latest generation."""
        return self.exists and not self.deleting and self.observed_generation >= self.generation

    @property
    def serving(self) -> bool:
        """Whether all applications answer. During an upgrade KubeRay reports no applications of the active cluster."""
        active = self.cluster("active")
        applications = active.applications if active else ()
        known = bool(applications) or self.cluster("pending") is not None
        return self.is_true("Ready") and active is not None and known and all(one.up for one in applications)

    @property
    def up_to_date(self) -> bool:
        """Whether the latest generation is the one that serves."""
        return self.observed and self.serving and not self.is_true("UpgradeInProgress") and not self.cluster("pending")

    @property
    def groups(self) -> dict[tuple[str, str], tuple[Pod, ...]]:
        """Pods by cluster and group, heads first."""
        found: dict[tuple[str, str], list[Pod]] = {}
        for pod in sorted(self.pods, key=lambda one: (one.cluster, one.group != "head", one.group, one.name)):
            found.setdefault((pod.cluster, pod.group), []).append(pod)
        return {key: tuple(pods) for key, pods in found.items()}
