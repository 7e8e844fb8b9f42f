"""What is seen of a deployment at one moment, frozen, so that what it means can be told without a cluster."""

from dataclasses import dataclass

from serve_app.tools.deploy.api.target import Target


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
    last_reason: str = ""  # of the run before this one
    last_exit_code: int | None = None
    last_lines: tuple[str, ...] = ()  # of that run's log


@dataclass(frozen=True, slots=True)
class Pod:
    name: str
    group: str = ""
    cluster: str = ""
    phase: str = "Pending"
    ready: bool = False
    ending: bool = False
    node: str = ""
    address: str = ""
    unschedulable: str = ""
    made: str = ""
    containers: tuple[Container, ...] = ()


@dataclass(frozen=True, slots=True)
class Condition:
    kind: str
    status: str
    reason: str = ""
    message: str = ""

    @property
    def holds(self) -> bool:
        return self.status == "True"


@dataclass(frozen=True, slots=True)
class Deployment:
    """One of Serve's."""

    name: str
    status: str
    message: str = ""
    running: int | None = None  # replicas, where Ray's dashboard can be asked
    wanted: int | None = None
    places: tuple[str, ...] = ()  # addresses of the pods its replicas run in


@dataclass(frozen=True, slots=True)
class Application:
    name: str
    status: str
    message: str = ""
    deployments: tuple[Deployment, ...] = ()

    @property
    def up(self) -> bool:
        return self.status == "RUNNING" and all(one.status in UP for one in self.deployments)


UP = frozenset({"HEALTHY", "UPSCALING", "DOWNSCALING"})  # those that scale have all they must have


@dataclass(frozen=True, slots=True)
class Cluster:
    """A RayCluster of the RayService; `role` is active, pending, or old for one that waits for its end."""

    name: str
    role: str
    applications: tuple[Application, ...] = ()


@dataclass(frozen=True, slots=True)
class Happening:
    """A Kubernetes event."""

    about: str
    reason: str
    message: str
    warning: bool = False
    at: str = ""
    count: int = 1


@dataclass(frozen=True, slots=True)
class Address:
    """A way in: a Service's port."""

    service: str
    port: str
    url: str
    kind: str = "ClusterIP"


@dataclass(frozen=True, slots=True)
class Machine:
    """A node that Karpenter has asked for."""

    name: str
    instance_type: str = ""
    ready: bool = False
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Observation:
    target: Target
    exists: bool = False
    ending: bool = False
    generation: int = 0
    seen_generation: int = 0
    endpoints: int = 0
    conditions: tuple[Condition, ...] = ()
    clusters: tuple[Cluster, ...] = ()
    pods: tuple[Pod, ...] = ()
    happenings: tuple[Happening, ...] = ()
    addresses: tuple[Address, ...] = ()
    machines: tuple[Machine, ...] = ()
    unread: tuple[str, ...] = ()

    def condition(self, kind: str) -> Condition | None:
        return next((one for one in self.conditions if one.kind == kind), None)

    def holds(self, kind: str) -> bool:
        return any(one.holds for one in self.conditions if one.kind == kind)

    def cluster(self, role: str) -> Cluster | None:
        return next((one for one in self.clusters if one.role == role), None)

    @property
    def current(self) -> bool:
        """The operator has looked at what was applied last."""
        return self.exists and not self.ending and self.seen_generation >= self.generation

    @property
    def serving(self) -> bool:
        """Requests are answered by all that should; beside a new cluster KubeRay tells nothing of the active one."""
        active = self.cluster("active")
        applications = active.applications if active else ()
        known = bool(applications) or self.cluster("pending") is not None
        return self.holds("Ready") and active is not None and known and all(one.up for one in applications)

    @property
    def done(self) -> bool:
        """What was applied last is what serves."""
        return self.current and self.serving and not self.holds("UpgradeInProgress") and not self.cluster("pending")

    @property
    def groups(self) -> dict[tuple[str, str], tuple[Pod, ...]]:
        """Pods by cluster and group, heads first."""
        found: dict[tuple[str, str], list[Pod]] = {}
        for pod in sorted(self.pods, key=lambda one: (one.cluster, one.group != "head", one.group, one.name)):
            found.setdefault((pod.cluster, pod.group), []).append(pod)
        return {key: tuple(pods) for key, pods in found.items()}
