"""Print a token for an EKS cluster's API: kubeconfigs run `python -m serve_app.tools.deploy.aws.token`."""

import argparse
import base64
import json
import sys
from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
from botocore.exceptions import BotoCoreError
from botocore.signers import RequestSigner

API = "client.authentication.k8s.io/v1"
LIFETIME = timedelta(minutes=14)  # EKS accepts it for 15
SIGNATURE_S = 60


def credential_of(session: boto3.Session, cluster: str, region: str, now: datetime) -> dict[str, Any]:
    """The token is a presigned GetCallerIdentity request, with which EKS asks STS who the caller is."""
    client = session.client("sts", region_name=region)
    signer = RequestSigner(
        client.meta.service_model.service_id, region, "sts", "v4", session.get_credentials(), session.events
    )
    request = {
        "method": "GET",
        "url": f"{client.meta.endpoint_url}/?Action=GetCallerIdentity&Version=2011-06-15",
        "body": {},
        "headers": {"x-k8s-aws-id": cluster},
        "context": {},
    }
    url = signer.generate_presigned_url(request, region_name=region, expires_in=SIGNATURE_S, operation_name="")
    token = "k8s-aws-v1." + base64.urlsafe_b64encode(url.encode()).decode().rstrip("=")
    expires = (now + LIFETIME).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {"apiVersion": API, "kind": "ExecCredential", "status": {"token": token, "expirationTimestamp": expires}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cluster-name", required=True)
    parser.add_argument("--region", required=True)
    options = parser.parse_args()
    try:
        session = boto3.Session(region_name=options.region)
        if session.get_credentials() is None:
            sys.exit("error: no AWS credentials: log in first (aws sso login)")
        print(json.dumps(credential_of(session, options.cluster_name, options.region, datetime.now(UTC))))
    except BotoCoreError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
