"""What users read when a request to S3 fails: the object, the reason and the fix, and no secret."""

import json
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import boto3
import pytest

from serve_app.errors import ConfigurationError, UnavailableError
from serve_app.tools.models import bucket
from serve_app.tools.models.bucket import Bucket, BucketUrl


def test_a_bad_url_is_refused_before_any_request(models, s3):
    for url, message in (
        ("my-models/yolo", "is not s3://BUCKET/PREFIX, as in s3://my-models/yolo"),
        ("https://my-models/yolo", "is not s3://BUCKET/PREFIX, as in s3://my-models/yolo"),
        ("s3:/my-models", "is not s3://BUCKET/PREFIX, as in s3://my-models/yolo"),
        ("s3://", "is not s3://BUCKET/PREFIX, as in s3://my-models/yolo"),
        ("s3:///yolo", "is not s3://BUCKET/PREFIX, as in s3://my-models/yolo"),
        ("s3://My_Models/yolo", "is not s3://BUCKET/PREFIX, as in s3://my-models/yolo"),
        ("s3://my-models/a/../b", "must not contain '.', '..' or control characters"),
    ):
        errors = models.fail("ls", url, status=2)
        assert errors.startswith(f"error: argument url: {url!r}"), url
        assert errors.endswith(f"{message}\n"), url
    assert s3.requests == []


def test_extra_slashes_are_ignored_and_a_repository_may_be_the_whole_bucket(models, source, objects, served, tree):
    for text, key in (
        ("s3://models", "current"),
        ("s3://models/", "current"),
        ("s3://models/a/b/", "a/b/current"),
        ("s3://models//a", "a/current"),
    ):
        assert BucketUrl.parse(text).key("current") == key, text
    models.succeed("push", source, f"s3://{objects.bucket}")
    models.succeed("pull", f"s3://{objects.bucket}/", served)
    assert tree(served / "current") == tree(source)


def test_every_command_names_a_missing_bucket(models, source):
    url = "s3://nobodys-models/yolo"
    for command in (("push", source, url), ("pull", url, "served"), ("ls", url)):
        errors = models.fail(*command)
        assert errors.startswith(f"error: {url}/"), command
        assert errors.endswith(": the bucket does not exist: create it, or correct the URL\n"), command


@pytest.mark.parametrize(
    ("changes", "messages"),
    [
        (
            {"AWS_ACCESS_KEY_ID": None, "AWS_SECRET_ACCESS_KEY": None},
            ["no AWS credentials found: set AWS_PROFILE, or AWS_ACCESS_KEY_ID", "(IRSA or EKS Pod Identity)"],
        ),
        ({"AWS_SECRET_ACCESS_KEY": ""}, ["the AWS credentials are incomplete: set AWS_PROFILE"]),
        ({"AWS_PROFILE": "nobody"}, ["nobody", "check AWS_PROFILE and ~/.aws/config"]),
        ({"AWS_ENDPOINT_URL": "nonsense"}, ["nonsense: correct AWS_ENDPOINT_URL or AWS_REGION"]),
        ({"AWS_ENDPOINT_URL": "http://user:hidden@127.0.0.1:1"}, ["cannot connect to 127.0.0.1:1: check the"]),
    ],
    ids=["no credentials", "half of them", "unknown profile", "bad endpoint", "password in the endpoint"],
)
def test_bad_settings_of_aws_are_named_with_the_fix(models, url, monkeypatch, changes, messages):
    for name, value in changes.items():
        monkeypatch.delenv(name, raising=False) if value is None else monkeypatch.setenv(name, value)
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)
    errors = models.fail("ls", url)
    assert all(message in errors for message in messages), errors
    assert "hidden" not in errors


def test_a_denied_action_is_named_with_the_permissions_that_are_needed(models, source, url, objects):
    models.succeed("push", source, url)
    resource = f"arn:aws:s3:::{objects.bucket}/*"
    rule = {"Effect": "Deny", "Principal": "*", "Action": "s3:GetObject", "Resource": resource}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [rule]})
    objects.client.put_bucket_policy(Bucket=objects.bucket, Policy=policy)
    errors = models.fail("pull", url, "served")
    assert errors.startswith(f"error: {url}/current: access denied to GetObject: the role needs s3:ListBucket")


def test_each_answer_of_s3_is_translated_with_the_fix_against_a_faked_s3(monkeypatch):
    cases = (
        (403, "AccessDenied", ConfigurationError, "access denied to GetObject: the role needs"),
        (403, "InvalidAccessKeyId", ConfigurationError, "S3 does not know the access key: set AWS_PROFILE"),
        (403, "SignatureDoesNotMatch", ConfigurationError, "the secret key does not belong to the access key"),
        (400, "ExpiredToken", ConfigurationError, "the credentials have expired: set AWS_PROFILE"),
        (400, "AuthorizationHeaderMalformed", ConfigurationError, "in another region: set AWS_REGION to eu-central-1"),
        (400, "Odd", ConfigurationError, "S3 refused GetObject: Odd: explained by S3"),
        (503, "SlowDown", UnavailableError, "S3 answered SlowDown: try again later"),
        (500, "InternalError", UnavailableError, "S3 answered InternalError: try again later"),
        (502, "", UnavailableError, "S3 answered 502: try again later"),
    )

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            status, code = answer
            body = f"<Error><Code>{code}</Code><Message>explained by S3</Message></Error>".encode() if code else b""
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("x-amz-bucket-region", "eu-central-1")
            self.end_headers()
            self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setattr(bucket, "ATTEMPTS", 1)
    faked = Bucket(BucketUrl.parse("s3://models/yolo"))
    for status, code, kind, message in cases:
        answer = status, code
        with pytest.raises(kind, match=rf"^s3://models/yolo/current: .*{message}"):
            faked.read("current")
    server.shutdown()
    server.server_close()
    with pytest.raises(UnavailableError, match=r"^s3://models/yolo/current: cannot connect to 127\.0\.0\.1:\d+: check"):
        faked.read("current")


def test_the_command_starts_without_engines():
    heavy = ("ray", "torch", "numpy", "tritonclient", "serve_app.triton", "serve_app.settings")
    program = f"import sys, serve_app.tools.models.command; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("[]\n", "")
