"""CloudFormation stacks: Karpenter's roles, policies and queue; those of eksctl are only read."""

from serve_app.errors import ConfigurationError
from serve_app.tools.deploy.aws.installation import Installation
from serve_app.tools.deploy.aws.runner import Runner

TEMPLATE = "karpenter.cloudformation.yaml"
TIMEOUT_S = 900
# CloudFormation answers this code both for a stack that doesn't exist and for one that needs no update.
VALIDATION_ERROR = "ValidationError"
UNUSABLE = ("ROLLBACK_COMPLETE", "ROLLBACK_FAILED", "CREATE_FAILED", "DELETE_FAILED")


def create_karpenter_stack(runner: Runner, installation: Installation) -> None:
    name, template = installation.karpenter_stack, installation.read(TEMPLATE)
    status = stack_status(runner, name)
    if status in UNUSABLE:  # CloudFormation can't update a stack whose creation failed
        delete_karpenter_stack(runner, installation)
        status = None
    parameters = {
        "StackName": name,
        "TemplateBody": template,
        "Capabilities": ["CAPABILITY_NAMED_IAM"],
        "Tags": installation.tags,
    }
    if status is None:
        runner.change("cloudformation", "create_stack", ("AlreadyExistsException",), **parameters)
    elif not status.endswith("IN_PROGRESS") and _template(runner, name) != template:
        runner.change("cloudformation", "update_stack", (VALIDATION_ERROR,), **parameters)
    runner.wait(f"the stack {name} is complete", lambda: _is_complete(runner, name), TIMEOUT_S)


def delete_karpenter_stack(runner: Runner, installation: Installation) -> None:
    name = installation.karpenter_stack
    if stack_status(runner, name) is None and not runner.dry_run:
        return
    runner.change("cloudformation", "delete_stack", StackName=name)
    runner.wait(f"the stack {name} is deleted", lambda: stack_status(runner, name) is None, TIMEOUT_S)


def stack_status(runner: Runner, name: str) -> str | None:
    answer = runner.get("cloudformation", "describe_stacks", (VALIDATION_ERROR,), StackName=name)
    stacks = [stack for stack in (answer or {}).get("Stacks", []) if stack["StackStatus"] != "DELETE_COMPLETE"]
    return str(stacks[0]["StackStatus"]) if stacks else None


def _is_complete(runner: Runner, name: str) -> bool:
    status = stack_status(runner, name) or ""
    if status in UNUSABLE or "ROLLBACK" in status:
        raise ConfigurationError(f"the stack {name} is {status}; its events in the CloudFormation console say why")
    return status.endswith("_COMPLETE")


def _template(runner: Runner, name: str) -> str:
    answer = runner.get("cloudformation", "get_template", StackName=name)
    return str((answer or {}).get("TemplateBody", ""))
