"""Image repositories on ECR, one for each image of kuberay/images."""

import json
from typing import Any

from serve_app.tools.deploy.aws.installation import REPOSITORY_PREFIX, Installation
from serve_app.tools.deploy.aws.runner import Runner
from serve_app.tools.deploy.scenarios.scenario import ImageName, Scenario

IMAGES: tuple[ImageName, ...] = ("cpu", "head", "vision", "llm")
NO_REPOSITORY = ("RepositoryNotFoundException",)
UNTAGGED_DAYS = 14
# Tags never move, except for the layer cache that kuberay/images/build pushes again and again.
TAGS: dict[str, Any] = {
    "imageTagMutability": "IMMUTABLE_WITH_EXCLUSION",
    "imageTagMutabilityExclusionFilters": [{"filterType": "WILDCARD", "filter": "cache"}],
}
LIFECYCLE = {
    "rules": [
        {
            "rulePriority": 1,
            "description": "delete untagged images",
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


def repository_of(image: ImageName) -> str:
    return f"{REPOSITORY_PREFIX}/{image}"


def create_repositories(runner: Runner, installation: Installation) -> None:
    """Settings are written on every run: kuberay/images/build creates repositories too, without them."""
    for image in IMAGES:
        name = repository_of(image)
        if runner.get("ecr", "describe_repositories", NO_REPOSITORY, repositoryNames=[name]) is None:
            runner.change(
                "ecr",
                "create_repository",
                ("RepositoryAlreadyExistsException",),
                repositoryName=name,
                imageScanningConfiguration={"scanOnPush": True},
                encryptionConfiguration={"encryptionType": "AES256"},
                tags=installation.tags,
            )
        runner.change("ecr", "put_image_tag_mutability", repositoryName=name, **TAGS)
        runner.change("ecr", "put_lifecycle_policy", repositoryName=name, lifecyclePolicyText=json.dumps(LIFECYCLE))


def missing_images(runner: Runner, installation: Installation, scenario: Scenario) -> list[ImageName]:
    """Images that the scenario's pods need and that aren't pushed; other registries than ours are not checked."""
    if scenario.images.registry != installation.registry:
        return []
    needed = {scenario.head.image, *(group.image for group in scenario.workers.values())}
    missing: list[ImageName] = []
    for image in IMAGES:
        if image not in needed:
            continue
        found = runner.get(
            "ecr",
            "describe_images",
            ("ImageNotFoundException", *NO_REPOSITORY),
            repositoryName=repository_of(image),
            imageIds=[{"imageTag": scenario.images.tag}],
        )
        if found is None and not runner.dry_run:
            missing.append(image)
    return missing


def delete_repositories(runner: Runner) -> None:
    for image in IMAGES:
        runner.change("ecr", "delete_repository", NO_REPOSITORY, repositoryName=repository_of(image), force=True)
