"""What a person reads when S3 can't be asked, or says no: the thing, the reason and what to do, and no secret."""

import json
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from serve_app.errors import ConfigurationError, UnavailableError
from serve_app.tools.models import store as storing
from serve_app.tools.models.store import BucketUrl, Store

BAD_URLS = (
    "my-models/yolo",
    "https://my-models/yolo",
    "s3:/my-models",
    "s3://",
    "s3:///yolo",
    "s3://My_Models/yolo",
    "s3://my-models/a/../b",
)


@pytest.mark.parametrize("url", BAD_URLS)
def test_a_bad_url_is_refused_before_anything_is_asked(models, url):
    done = models.run("ls", url)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: argument url: {url!r}")


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("s3://models", "current"),
        ("s3://models/", "current"),
        ("s3://models/a/b/", "a/b/current"),
        ("s3://models//a", "a/current"),
    ],
)
def test_slashes_too_many_mean_nothing(text, key):
    assert BucketUrl.parse(text).key("current") == key


def test_a_repository_may_be_the_whole_bucket(models, source, bucket, tree, tmp_path):
    models.succeed("push", source, f"s3://{bucket}")
    models.succeed("pull", f"s3://{bucket}/", "served")
    assert tree(tmp_path / "served" / "current") == tree(source)


@pytest.mark.parametrize("command", [("push", "source", "URL"), ("pull", "URL", "served"), ("ls", "URL")])
def test_a_bucket_that_is_not_there_is_named(models, source, command):
    url = "s3://nobodys-models/yolo"
    done = models.run(*(url if word == "URL" else word for word in command))
    assert done.returncode == 1
    assert "error: s3://nobodys-models/yolo/" in done.stderr
    assert "there is no such bucket: create it, or mend the URL" in done.stderr


@pytest.mark.parametrize("command", [("push", "source", "URL"), ("pull", "URL", "served")])
def test_missing_credentials_are_told_with_the_ways_to_give_them(models, source, url, monkeypatch, command):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    done = models.run(*(url if word == "URL" else word for word in command))
    assert done.returncode == 1
    assert "there are no AWS credentials: set AWS_PROFILE, or AWS_ACCESS_KEY_ID" in done.stderr
    assert "IRSA or EKS Pod Identity" in done.stderr


def test_half_of_the_credentials_is_told(models, url):
    done = models.run("ls", url, AWS_SECRET_ACCESS_KEY="")
    assert done.returncode == 1
    assert "AWS credentials" in done.stderr


def test_a_profile_that_is_not_there_is_named(models, url):
    done = models.run("ls", url, AWS_PROFILE="nobody")
    assert done.returncode == 1
    assert "nobody" in done.stderr
    assert "mend AWS_PROFILE or ~/.aws/config" in done.stderr


@pytest.mark.parametrize("endpoint", ["nonsense", "http://user:hidden-password@127.0.0.1:1"])
def test_an_endpoint_that_cannot_be_asked_is_told_without_its_password(models, url, endpoint):
    done = models.run("ls", url, AWS_ENDPOINT_URL=endpoint)
    assert done.returncode == 1
    assert "AWS_ENDPOINT_URL" in done.stderr
    assert "hidden-password" not in done.stderr


def test_a_denied_action_is_named_with_the_rights_that_are_needed(models, source, url, bucket, s3):
    models.succeed("push", source, url)
    rule = {"Effect": "Deny", "Principal": "*", "Action": "s3:GetObject", "Resource": f"arn:aws:s3:::{bucket}/*"}
    s3.put_bucket_policy(Bucket=bucket, Policy=json.dumps({"Version": "2012-10-17", "Statement": [rule]}))
    done = models.run("pull", url, "served")
    assert done.returncode == 1
    assert f"error: {url}/current: access denied to GetObject: the role needs s3:ListBucket" in done.stderr


class Refusing(BaseHTTPRequestHandler):
    """Answers every request as it was told to."""

    def do_GET(self):
        status, code = self.server.answer
        body = f"<Error><Code>{code}</Code><Message>said by S3</Message></Error>".encode() if code else b""
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("x-amz-bucket-region", "eu-central-1")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def refusing(monkeypatch):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Refusing)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setattr(storing, "ATTEMPTS", 1)
    yield server
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    ("status", "code", "kind", "message"),
    [
        (403, "AccessDenied", ConfigurationError, "access denied to GetObject: the role needs"),
        (403, "InvalidAccessKeyId", ConfigurationError, "S3 doesn't know the access key: set AWS_PROFILE"),
        (403, "SignatureDoesNotMatch", ConfigurationError, "the secret key doesn't belong to the access key"),
        (400, "ExpiredToken", ConfigurationError, "the credentials have expired: set AWS_PROFILE"),
        (400, "AuthorizationHeaderMalformed", ConfigurationError, "in another region: set AWS_REGION to eu-central-1"),
        (400, "Odd", ConfigurationError, "S3 refuses GetObject: Odd: said by S3"),
        (503, "SlowDown", UnavailableError, "S3 answers SlowDown: try again later"),
        (500, "InternalError", UnavailableError, "S3 answers InternalError: try again later"),
        (502, "", UnavailableError, "S3 answers 502: try again later"),
    ],
)
def test_each_refusal_says_what_to_do_of_a_faked_s3(refusing, status, code, kind, message):
    refusing.answer = (status, code)
    with pytest.raises(kind, match=rf"^s3://models/yolo/current: .*{message}"):
        Store(BucketUrl.parse("s3://models/yolo")).read("current")


def test_the_command_starts_without_engines():
    heavy = ("ray", "torch", "numpy", "tritonclient", "serve_app.triton", "serve_app.settings")
    program = f"import sys, serve_app.tools.models.command; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("[]\n", "")
