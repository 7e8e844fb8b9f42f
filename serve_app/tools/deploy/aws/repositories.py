"""The image repositories on ECR: one an image, with tags that stay what they were and a scan of what is pushed."""

import json

from serve_app.tools.deploy.aws.calls import Calls
from serve_app.tools.deploy.aws.site import REPOSITORY_PREFIX, Site
from serve_app.tools.deploy.scenarios.scenario import ImageName, Scenario

IMAGES: tuple[ImageName, ...] = ("cpu", "head", "vision", "llm")
UNTAGGED_DAYS = 14
LIFECYCLE = {
    "rules": [
        {
            "rulePriority": 1,
            "description": "what no tag names any more",
            "selection": {
                "tagStatus": "untagged",
                "countType": "sinceImagePushed",
                "countUnit": "days",
                "countNumber": UNTAGGED_DAYS,
            },
            "action": {"type": "expire"},
        }
    ]
}


def make_repositories(calls: Calls, site: Site) -> None:
    for image in IMAGES:
        name = f"{REPOSITORY_PREFIX}/{image}"
        if calls.ask("ecr", "describe_repositories", ("RepositoryNotFoundException",), repositoryNames=[name]) is None:
            calls.change(
                "ecr",
                "create_repository",
                ("RepositoryAlreadyExistsException",),
                repositoryName=name,
                imageTagMutability="IMMUTABLE",
                imageScanningConfiguration={"scanOnPush": True},
                encryptionConfiguration={"encryptionType": "AES256"},
                tags=site.tag_list,
            )
        calls.change("ecr", "put_lifecycle_policy", repositoryName=name, lifecyclePolicyText=json.dumps(LIFECYCLE))


def missing_images(calls: Calls, site: Site, scenario: Scenario) -> list[ImageName]:
    """Images that the scenario's pods would wait for in vain; another registry than ours is asked by them alone."""
    if scenario.images.registry != site.registry:
        return []
    absent = ("ImageNotFoundException", "RepositoryNotFoundException")
    missing: list[ImageName] = []
    for image in images_of(scenario):
        found = calls.ask(
            "ecr",
            "describe_images",
            absent,
            repositoryName=f"{REPOSITORY_PREFIX}/{image}",
            imageIds=[{"imageTag": scenario.images.tag}],
        )
        if found is None and not calls.rehearsal:
            missing.append(image)
    return missing


def images_of(scenario: Scenario) -> list[ImageName]:
    used = {scenario.head.image, *(group.image for group in scenario.workers.values())}
    return [image for image in IMAGES if image in used]


def delete_repositories(calls: Calls) -> None:
    for image in IMAGES:
        calls.change(
            "ecr",
            "delete_repository",
            ("RepositoryNotFoundException",),
            repositoryName=f"{REPOSITORY_PREFIX}/{image}",
            force=True,
        )
