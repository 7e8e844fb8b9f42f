"""What is looked at before anything is made: the tools, the account, and how many GPUs it may have."""

import math
import re
import shutil
from collections.abc import Iterator

from serve_app.errors import ConfigurationError, ServeAppError
from serve_app.tools.deploy.aws.calls import Calls
from serve_app.tools.deploy.scenarios.scenario import Scenario

# Each with the first version that knows what kuberay/cluster says; the links are where people get them.
TOOLS = {
    "eksctl": (("eksctl", "version"), (0, 230), "https://eksctl.io/installation"),
    "helm": (("helm", "version", "--template={{.Version}}"), (3, 14), "https://helm.sh/docs/intro/install"),
}
# Service Quotas' codes of the vCPUs that may run at once, by the pools whose instances count.
QUOTAS = {
    "L-DB2E81BA": ("Running On-Demand G and VT instances", ("g5", "g6")),
    "L-417A185B": ("Running On-Demand P instances", ("p5",)),
}
SMALLEST = {"g5": 4, "g6": 4, "p5": 192}  # vCPUs of the smallest instance of a pool


def check_tools(calls: Calls) -> None:
    for tool, (argv, needed, link) in TOOLS.items():
        if not calls.rehearsal and shutil.which(tool) is None:
            raise ConfigurationError(f"{tool} is not on the PATH: {link} says how to install it")
        answer = calls.answer_of(argv)
        if calls.rehearsal:
            continue
        found = re.search(r"(\d+)\.(\d+)", answer or "")
        if found is None:
            raise ConfigurationError(f"`{' '.join(argv)}` tells no version: {link} says how to install {tool}")
        if (int(found[1]), int(found[2])) < needed:
            raise ConfigurationError(
                f"{tool} {found[0]} is too old, {'.'.join(map(str, needed))} is needed: {link} has a newer one"
            )
        calls.say(f"{tool} {found[0]}")


def check_quotas(calls: Calls, scenario: Scenario) -> None:
    """Warns only: nodes start as the scenario grows, and a quota can be raised while a cluster is made."""
    for code, (name, pools) in QUOTAS.items():
        first, most = vcpus(scenario, pools)
        if not most:
            continue
        try:
            answer = calls.ask("service-quotas", "get_service_quota", ServiceCode="ec2", QuotaCode=code)
        except ServeAppError as problem:
            calls.say(f"warning: the quota {name!r} is not known: {problem}")
            continue
        if answer is not None:
            for line in warnings(name, code, answer["Quota"]["Value"], first, most):
                calls.say(line)


def vcpus(scenario: Scenario, pools: tuple[str, ...]) -> tuple[float, float]:
    """How many vCPUs of these pools a scenario starts with, and how many it grows to."""
    first = most = 0.0
    for group in scenario.workers.values():
        mine = [pool for pool in group.pools if pool in pools]
        if mine:
            size = max(min(SMALLEST[pool] for pool in mine), 2 ** math.ceil(math.log2(group.cpu)))
            first, most = first + size * group.min, most + size * group.max
    return first, most


def warnings(name: str, code: str, allowed: float, first: float, most: float) -> Iterator[str]:
    if allowed >= most:
        return
    when = "can't start" if allowed < first else f"starts, and can't grow to the {most:g} that its max_replicas need"
    yield f"warning: the account may run {allowed:g} vCPUs of {name!r}, the scenario begins with {first:g}: it {when}"
    yield "  pods then stay Pending, and Karpenter's events and log say (kubectl get events -A | grep Vcpu):"
    yield (
        f"  VcpuLimitExceeded: You have requested more vCPU capacity than your current vCPU limit of {allowed:g} allows"
    )
    yield f"  ask for more: https://console.aws.amazon.com/servicequotas/home/services/ec2/quotas/{code}"
