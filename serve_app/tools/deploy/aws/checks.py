"""Checks before anything is created: tool versions, and the account's quota of GPU instances."""

import math
import re
import shutil

from serve_app.errors import ConfigurationError, ServeAppError
from serve_app.tools.deploy.aws.runner import Runner
from serve_app.tools.deploy.scenarios.scenario import Scenario

# Each with the first version that supports what kuberay/cluster uses.
TOOLS = {
    "eksctl": (("eksctl", "version"), (0, 230), "https://eksctl.io/installation"),
    "helm": (("helm", "version", "--template={{.Version}}"), (3, 14), "https://helm.sh/docs/intro/install"),
}
# Service Quotas' codes for running vCPUs, with the node pools whose instances count.
QUOTAS = {
    "L-DB2E81BA": ("Running On-Demand G and VT instances", ("g5", "g6")),
    "L-417A185B": ("Running On-Demand P instances", ("p5",)),
}
SMALLEST_VCPUS = {"g5": 4, "g6": 4, "p5": 192}  # of a pool's instances


def check_tools(runner: Runner) -> None:
    for tool, (argv, needed, link) in TOOLS.items():
        if runner.dry_run:
            runner.output(argv)
            continue
        if shutil.which(tool) is None:
            raise ConfigurationError(f"{tool} is not on the PATH; install it: {link}")
        found = re.search(r"(\d+)\.(\d+)", runner.output(argv) or "")
        if found is None:
            raise ConfigurationError(f"`{' '.join(argv)}` prints no version; reinstall {tool}: {link}")
        if (int(found[1]), int(found[2])) < needed:
            raise ConfigurationError(
                f"{tool} must be {'.'.join(map(str, needed))} or newer, got {found[0]}; upgrade it: {link}"
            )
        runner.say(f"{tool} {found[0]}")


def warn_about_quotas(runner: Runner, scenario: Scenario) -> None:
    """Warn only: GPU nodes start later, and the quota can be raised meanwhile."""
    for code, (name, pools) in QUOTAS.items():
        least, most = count_vcpus(scenario, pools)
        if not most:
            continue
        try:
            answer = runner.get("service-quotas", "get_service_quota", ServiceCode="ec2", QuotaCode=code)
        except ServeAppError as error:
            runner.say(f"warning: can't read the quota {name!r}: {error}")
            continue
        if answer is not None and (quota := answer["Quota"]["Value"]) < most:
            runner.say(_quota_warning(name, code, quota, least, most))


def count_vcpus(scenario: Scenario, pools: tuple[str, ...]) -> tuple[float, float]:
    """vCPUs of these pools with the scenario's least and most workers."""
    least = most = 0.0
    for group in scenario.workers.values():
        sizes = [SMALLEST_VCPUS[pool] for pool in group.pools if pool in pools]
        if sizes:
            vcpus = max(min(sizes), 2 ** math.ceil(math.log2(group.cpu)))
            least, most = least + vcpus * group.min, most + vcpus * group.max
    return least, most


def _quota_warning(name: str, code: str, quota: float, least: float, most: float) -> str:
    effect = "it can't start" if quota < least else f"it starts, but can't scale to its maximum of {most:g}"
    return (
        f"warning: the quota {name!r} is {quota:g} vCPUs, the scenario starts with {least:g}: {effect}\n"
        "  Pods over the quota stay Pending (kubectl get events -A | grep Vcpu):\n"
        f"  VcpuLimitExceeded: You have requested more vCPU capacity than your current vCPU limit of {quota:g} allows\n"
        f"  To raise it: https://console.aws.amazon.com/servicequotas/home/services/ec2/quotas/{code}"
    )
