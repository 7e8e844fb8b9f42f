"""CloudFormation stacks: Karpenter's roles, policies and queue as one; eksctl's own are only asked for."""

from serve_app.errors import ConfigurationError
from serve_app.tools.deploy.aws.calls import Answer, Calls
from serve_app.tools.deploy.aws.site import Site

TEMPLATE = "karpenter.cloudformation.yaml"
TIMEOUT_S = 900
# CloudFormation has one code for a stack that isn't there and for one that needs no update.
REFUSED = "ValidationError"
HOPELESS = ("ROLLBACK_COMPLETE", "ROLLBACK_FAILED", "CREATE_FAILED", "DELETE_FAILED")


def make_stack(calls: Calls, site: Site) -> None:
    found = stack_status(calls, site.stack)
    if found in HOPELESS:  # a first try that failed can't be updated: it goes, and is made anew
        delete_stack(calls, site)
        found = None
    said = {
        "StackName": site.stack,
        "TemplateBody": site.read(TEMPLATE),
        "Capabilities": ["CAPABILITY_NAMED_IAM"],
        "Tags": site.tag_list,
    }
    if found is None:
        calls.change("cloudformation", "create_stack", ("AlreadyExistsException",), **said)
    elif not found.endswith("IN_PROGRESS") and _template(calls, site) != said["TemplateBody"]:
        calls.change("cloudformation", "update_stack", (REFUSED,), **said)
    calls.wait(f"the stack {site.stack} is complete", lambda: _complete(calls, site), TIMEOUT_S)


def delete_stack(calls: Calls, site: Site) -> None:
    if stack_status(calls, site.stack) is None and not calls.rehearsal:
        return
    calls.change("cloudformation", "delete_stack", StackName=site.stack)
    calls.wait(f"the stack {site.stack} is gone", lambda: stack_status(calls, site.stack) is None, TIMEOUT_S)


def _complete(calls: Calls, site: Site) -> bool:
    status = stack_status(calls, site.stack) or ""
    if status in HOPELESS or "ROLLBACK" in status:
        raise ConfigurationError(
            f"the stack {site.stack} is {status}: CloudFormation's console tells which resource failed, and why"
        )
    return status.endswith("_COMPLETE")


def stack_status(calls: Calls, name: str) -> str | None:
    answer: Answer | None = calls.ask("cloudformation", "describe_stacks", (REFUSED,), StackName=name)
    stacks = [one for one in (answer or {}).get("Stacks", []) if one["StackStatus"] != "DELETE_COMPLETE"]
    return str(stacks[0]["StackStatus"]) if stacks else None


def _template(calls: Calls, site: Site) -> str:
    answer = calls.ask("cloudformation", "get_template", StackName=site.stack)
    return str((answer or {}).get("TemplateBody", ""))
