"""How the files of kuberay/cluster become those of one installation."""

import pytest

from serve_app.tools.deploy.aws.site import Site

TEXT = "serve-app-eks in us-west-2: arn:aws:s3:::serve-app-eks-models-111122223333-us-west-2 of 111122223333"


@pytest.mark.parametrize(
    ("site", "filled"),
    [
        (
            Site("serve-app-eks", "eu-west-1", "123456789012", "shared-models-us-west-2"),
            "serve-app-eks in eu-west-1: arn:aws:s3:::shared-models-us-west-2 of 123456789012",
        ),
        (
            Site("team-us-west-2", "us-east-1", "123456789012", "team-us-west-2-models"),
            "team-us-west-2 in us-east-1: arn:aws:s3:::team-us-west-2-models of 123456789012",
        ),
        (
            Site("my-serve-app-eks", "cn-north-1", "123456789012", "b-111122223333", "aws-cn"),
            "my-serve-app-eks in cn-north-1: arn:aws-cn:s3:::b-111122223333 of 123456789012",
        ),
    ],
)
def test_a_name_that_holds_another_placeholder_stays_as_it_was_said(site, filled):
    assert site.fill(TEXT) == filled
