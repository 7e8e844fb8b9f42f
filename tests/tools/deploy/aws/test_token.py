"""The token that a kubeconfig asks this project for; `test_install` uses it against an API that checks it."""

import json
import subprocess
import sys
from datetime import UTC, datetime

import boto3

from serve_app.tools.deploy.aws.token import credential_of

COMMAND = [sys.executable, "-m", "serve_app.tools.deploy.aws.token", "--cluster-name=mine", "--region=us-west-2"]


def run():
    return subprocess.run(COMMAND, capture_output=True, text=True, timeout=60)


def test_a_token_expires_a_minute_before_eks_refuses_it(account):
    credential = credential_of(boto3.Session(), "mine", "us-west-2", datetime(2026, 1, 1, tzinfo=UTC))
    assert credential["status"]["expirationTimestamp"] == "2026-01-01T00:14:00Z"
    assert credential["status"]["token"].startswith("k8s-aws-v1.")


def test_the_command_prints_a_credential_or_how_to_log_in(account, monkeypatch, tmp_path):
    assert json.loads(run().stdout)["kind"] == "ExecCredential"
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    done = run()
    assert (done.returncode, done.stderr) == (1, "error: no AWS credentials: log in first (aws sso login)\n")
