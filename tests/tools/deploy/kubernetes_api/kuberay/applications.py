"""Ray Serve's applications at play: their deployments, from the configuration, and how they come up."""

from dataclasses import dataclass
from functools import cache

import yaml

SUBMITTED, PLANNED, HEALTHY = 1, 2, 4  # turns after a configuration was submitted


@dataclass
class Serving:
    """Serve in one RayCluster."""

    config: str = ""
    turns: int = 0
    head: str = ""  # uid of the pod that keeps the state

    def is_lost(self, head, kept):
        """Whether another head has come that knows nothing; `kept`: the state is kept outside of it."""
        before, self.head = self.head, head
        return before not in ("", head) and not kept

    def submit(self, config):
        self.config, self.turns = config, SUBMITTED

    def statuses(self, workers_run, trouble):
        """applicationStatuses, as Serve answers now."""
        if not self.config or self.turns < PLANNED:
            return {}
        planned = {app.get("name", "default"): app for app in applications(self.config)}
        return {name: self.status(app, name, workers_run, trouble) for name, app in planned.items()}

    def status(self, app, name, workers_run, trouble):
        names = deployments(app)
        if trouble and self.turns > PLANNED:
            return ailing(names, name, trouble)
        if self.turns >= HEALTHY and workers_run:
            return {"status": "RUNNING", "serveDeploymentStatuses": {one: {"status": "HEALTHY"} for one in names}}
        waiting = {"status": "UPDATING"}
        if self.turns > HEALTHY * 3:
            waiting["message"] = (
                f"Deployment '{names[-1]}' in application '{name}' has 1 replicas that have taken more than 30s to be "
                "scheduled. This may be due to waiting for the cluster to auto-scale or for a runtime environment to "
                "be installed."
            )
        return {"status": "DEPLOYING", "serveDeploymentStatuses": {one: dict(waiting) for one in names}}


def ailing(names, name, trouble):
    failed = trouble["trouble"] == "serve_failed"
    ill = trouble.get("deployment", names[-1])
    message = trouble.get("message", "A replica failed to start with exception. Retrying. Error: RuntimeError: no GPU")
    state = "DEPLOY_FAILED" if failed else "UNHEALTHY"
    said = f"Failed to update the deployments [{ill!r}]." if failed else f"The deployments [{ill!r}] are UNHEALTHY."
    statuses = {one: {"status": "UPDATING" if failed else "HEALTHY"} for one in names}
    statuses[ill] = {"status": state, "message": message}
    return {"status": state, "message": said, "serveDeploymentStatuses": statuses}


@cache
def applications(config):
    return (yaml.load(config, Loader=yaml.CSafeLoader) or {}).get("applications") or []


def deployments(app):
    """Names of what one application deploys: those it configures, and those its arguments ask for."""
    names = [one["name"] for one in app.get("deployments") or ()]
    arguments = app.get("args") or {}
    names += [one["name"] for one in arguments.get("triton") or () if "name" in one]
    names += [one["name"] for one in arguments.get("llms") or () if "name" in one]
    if arguments.get("baseline", "default") is not None:
        names.append("baseline")
    return list(dict.fromkeys(["router", *names]))
