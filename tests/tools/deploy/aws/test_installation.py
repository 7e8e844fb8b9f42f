"""How the files of kuberay/cluster are filled in with the names of an installation."""

from serve_app.tools.deploy.aws.installation import Installation

TEXT = "serve-app-eks in us-west-2: arn:aws:s3:::serve-app-eks-models-111122223333-us-west-2 of 111122223333"


def test_a_filled_in_name_that_contains_a_placeholder_is_kept():
    for names, filled in (
        (
            ("serve-app-eks", "eu-west-1", "123456789012", "shared-models-us-west-2"),
            "serve-app-eks in eu-west-1: arn:aws:s3:::shared-models-us-west-2 of 123456789012",
        ),
        (
            ("team-us-west-2", "us-east-1", "123456789012", "team-us-west-2-models"),
            "team-us-west-2 in us-east-1: arn:aws:s3:::team-us-west-2-models of 123456789012",
        ),
        (
            ("my-serve-app-eks", "cn-north-1", "123456789012", "b-111122223333", "aws-cn"),
            "my-serve-app-eks in cn-north-1: arn:aws-cn:s3:::b-111122223333 of 123456789012",
        ),
    ):
        assert Installation(*names).fill(TEXT) == filled
