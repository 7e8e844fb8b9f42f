"""The credentials that a kubeconfig asks this project for."""

import base64
import json
import subprocess
import sys
from datetime import UTC, datetime
from urllib.parse import parse_qs, urlsplit

import boto3

from serve_app.tools.deploy.aws.token import credential_of


def test_a_token_is_a_signed_question_to_sts_for_one_cluster(aws):
    credential = credential_of(boto3.Session(), "mine", "us-west-2", datetime(2026, 1, 1, tzinfo=UTC))
    prefix, _, encoded = credential["status"]["token"].partition(".")
    assert prefix == "k8s-aws-v1"
    asked = parse_qs(urlsplit(base64.urlsafe_b64decode(encoded + "==").decode()).query)
    assert asked["Action"] == ["GetCallerIdentity"]
    assert asked["X-Amz-SignedHeaders"] == ["host;x-k8s-aws-id"]
    assert asked["X-Amz-Expires"] == ["60"]
    assert credential["status"]["expirationTimestamp"] == "2026-01-01T00:14:00Z"


def test_the_command_prints_what_kubernetes_reads(aws):
    command = [sys.executable, "-m", "serve_app.tools.deploy.aws.token", "--cluster-name=mine", "--region=us-west-2"]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert json.loads(ran.stdout)["kind"] == "ExecCredential"


def test_without_credentials_it_says_what_to_do(aws, monkeypatch, tmp_path):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    command = [sys.executable, "-m", "serve_app.tools.deploy.aws.token", "--cluster-name=mine", "--region=us-west-2"]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert ran.returncode == 1
    assert ran.stderr == "error: no AWS credentials: log in first (aws sso login)\n"
