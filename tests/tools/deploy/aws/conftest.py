"""AWS for tests: moto's server and what it lacks, and the Kubernetes API behind an EKS endpoint."""

import base64
import io
import json
import os
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import boto3
import pytest
import yaml
from moto.backends import get_backend
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server
from werkzeug.wrappers import Request, Response

from serve_app.tools.deploy.aws.calls import Calls

HERE = Path(__file__).resolve().parent
REGION, ACCOUNT = "us-west-2", "123456789012"
QUERIED = (["cloudformation"], ["iam"], ["ec2"], ["sts"])  # answer XML; the others JSON
DENIALS = {
    "s3": "<Error><Code>AccessDenied</Code><Message>no</Message></Error>",
    "json": '{"__type": "AccessDeniedException", "message": "no"}',
    "xml": "<ErrorResponse><Error><Code>AccessDenied</Code><Message>no</Message></Error></ErrorResponse>",
}


class Quiet(WSGIRequestHandler):
    def log(self, *_):
        pass


class Aws:
    """moto over HTTP; EC2's quotas, EKS add-ons and Pod Identity are answered here, since moto has none of them."""

    def __init__(self, kubernetes_url):
        self.moto = DomainDispatcherApplication(create_backend_app)
        self.kubernetes_url = kubernetes_url
        self.quotas = {"L-DB2E81BA": 512.0, "L-417A185B": 0.0}
        self.refused = []  # parts of requests that are answered with a denial
        self.addons, self.failed_addons, self.identities = [], [], []
        self.requests = []
        self.policies = {}
        self.server = make_server("127.0.0.1", 0, self, threaded=True, request_handler=Quiet)
        self.url = f"http://127.0.0.1:{self.server.port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def __call__(self, environ, start):
        request = Request(environ)
        body = request.get_data(cache=True)
        return self.answer(request, body)(environ, start)

    def answer(self, request, body):
        service = request.headers.get("Authorization", "").partition("Credential=")[2].split("/")[3:4]
        target = request.headers.get("X-Amz-Target", "")
        line = f"{request.method} {request.full_path} {target} {body[:300].decode('latin-1')}"
        if request.path != "/moto-api/reset":
            self.requests.append(line)
        if any(part in line for part in self.refused):
            return self.deny(service)
        if request.path.startswith("/_eksctl/"):
            return self.eksctl(*request.path.split("/")[2:], yaml.safe_load(body or b"null"))
        if request.path.startswith("/kubernetes"):
            return self.kubernetes(request, body)
        if request.headers.get("X-Amz-Target") == "ServiceQuotasV20190624.GetServiceQuota":
            return Response(json.dumps({"Quota": {"Value": self.quotas[json.loads(body)["QuotaCode"]]}}))
        if "policy" in request.args and service == ["s3"]:
            return self.bucket_policy(request, body)
        if request.path.endswith("/addons"):
            return Response(json.dumps({"addons": self.addons}))
        if "/addons/" in request.path and request.method == "GET":
            status = "CREATE_FAILED" if request.path.rpartition("/")[2] in self.failed_addons else "ACTIVE"
            return Response(json.dumps({"addon": {"status": status}}))
        if request.path.endswith("/pod-identity-associations"):
            return Response(json.dumps({"associations": self.identities}))
        return self.through(request, body)

    def through(self, request, body):
        found = []
        environ = dict(request.environ)
        environ["wsgi.input"], environ["CONTENT_LENGTH"] = io.BytesIO(body), str(len(body))
        environ.pop("HTTP_TRANSFER_ENCODING", None)
        chunks = b"".join(self.moto(environ, lambda status, headers, _=None: found.append((status, headers))))
        status, headers = found[0]
        if request.method == "GET" and request.path.startswith("/clusters/") and request.path.count("/") == 2:
            chunks = self.with_endpoint(chunks)
        kept = [(key, value) for key, value in headers if key.lower() not in ("content-length", "transfer-encoding")]
        if request.method == "HEAD":
            kept = headers
        return Response(chunks, status, kept)

    def bucket_policy(self, request, body):
        """Kept here: moto reads a policy without its conditions, and a denial of plain HTTP would deny everything."""
        if request.method == "PUT":
            self.policies[request.path] = body
        return Response(self.policies[request.path], 204 if request.method == "PUT" else 200)

    def with_endpoint(self, answer):
        described = json.loads(answer)
        if "cluster" in described and described["cluster"]["status"] != "ACTIVE":
            del described["cluster"]["endpoint"], described["cluster"]["certificateAuthority"]
        elif "cluster" in described:
            described["cluster"]["endpoint"] = f"{self.url}/kubernetes"
            described["cluster"]["resourcesVpcConfig"]["vpcId"] = "vpc-1"  # EKS tells it, moto doesn't
        return json.dumps(described).encode()

    def deny(self, service):
        kind = "s3" if service == ["s3"] else "xml" if service[:1] in QUERIED else "json"
        return Response(DENIALS[kind], 403, content_type="application/json" if kind == "json" else "text/xml")

    def eksctl(self, verb, part, name, config):
        """What eksctl does of this command, as far as somebody looks at it later."""
        eks = boto3.client("eks", region_name=REGION)
        if verb == "delete":
            return self.eksctl_delete(eks, part, name)
        name = config["metadata"]["name"]
        if part == "cluster" and not self.make_stack(f"eksctl-{name}-cluster"):
            return Response("the stack is there", 409)
        subnets = [one["SubnetId"] for one in boto3.client("ec2", region_name=REGION).describe_subnets()["Subnets"]]
        role = "arn:aws:iam::123456789012:role/eks"
        if part == "cluster":
            eks.create_cluster(name=name, roleArn=role, resourcesVpcConfig={"subnetIds": subnets})
        if part in ("cluster", "nodegroup"):
            for group in config["managedNodeGroups"]:
                eks.create_nodegroup(clusterName=name, nodegroupName=group["name"], nodeRole=role, subnets=subnets)
        if part == "addon":
            self.failed_addons = []
        if part in ("cluster", "addon"):
            self.addons += [one["name"] for one in config["addons"]]
        if part in ("cluster", "podidentityassociation"):
            self.identities += [
                {"namespace": one["namespace"], "serviceAccount": one["serviceAccountName"]}
                for one in config["iam"]["podIdentityAssociations"]
            ]
        return Response("{}")

    def eksctl_delete(self, eks, part, name):
        clusters = eks.list_clusters()["clusters"]
        for cluster in clusters:
            groups = eks.list_nodegroups(clusterName=cluster)["nodegroups"]
            for group in groups:
                if part == "cluster" or group == name:
                    eks.delete_nodegroup(clusterName=cluster, nodegroupName=group)
        if part == "cluster":
            self.addons, self.identities = [], []
            if name in clusters:
                eks.delete_cluster(name=name)
            boto3.client("cloudformation", region_name=REGION).delete_stack(StackName=f"eksctl-{name}-cluster")
        return Response("{}")

    def make_stack(self, name, status="CREATE_COMPLETE"):
        """Whether there was none; moto's stacks never fail, so the status is set from behind."""
        stacks = boto3.client("cloudformation", region_name=REGION)
        template = {"Resources": {"Nothing": {"Type": "AWS::CloudFormation::WaitConditionHandle"}}}
        try:
            stacks.create_stack(StackName=name, TemplateBody=json.dumps(template))
        except stacks.exceptions.AlreadyExistsException:
            return False
        self.behind("cloudformation").get_stack(name).status = status
        return True

    def behind(self, service):
        return get_backend(service)[ACCOUNT][REGION]

    def set_status(self, status, group=None):
        cluster = self.behind("eks").clusters["serve-app-eks"]
        (cluster.nodegroups[group] if group else cluster).status = status

    def kubernetes(self, request, body):
        """As EKS: the bearer token is a question to STS, signed for this cluster; whoever it names is let in."""
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if not self.known(token):
            return Response('{"kind": "Status", "code": 401, "message": "Unauthorized"}', 401)
        url = self.kubernetes_url + request.full_path.removeprefix("/kubernetes").rstrip("?")
        headers = {"Authorization": "Bearer admin", "Content-Type": request.headers.get("Content-Type", "")}
        forwarded = urllib.request.Request(url, body or None, headers, method=request.method)
        try:
            with urllib.request.urlopen(forwarded, timeout=30) as answer:
                return Response(answer.read(), answer.status, content_type="application/json")
        except urllib.error.HTTPError as problem:
            return Response(problem.read(), problem.code, content_type="application/json")

    def known(self, token):
        prefix, _, encoded = token.partition(".")
        if prefix != "k8s-aws-v1":
            return False
        asked = parse_qs(urlsplit(base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4))).query)
        signed = asked.get(b"X-Amz-SignedHeaders", [b""])[0]
        return asked.get(b"Action") == [b"GetCallerIdentity"] and b"x-k8s-aws-id" in signed

    def reset(self):
        urllib.request.urlopen(urllib.request.Request(f"{self.url}/moto-api/reset", method="POST"), timeout=30).read()


@pytest.fixture(scope="session")
def kubernetes_process(tmp_path_factory):
    announced = tmp_path_factory.mktemp("kubernetes") / "addresses.json"
    server = HERE.parent / "kubernetes_api"
    command = [sys.executable, str(server), "--port", "0", "--announce", str(announced)]
    with subprocess.Popen([*command, "--crds", str(HERE.parent / "crds")], stdout=subprocess.PIPE, text=True) as child:
        child.stdout.readline()
        yield json.loads(announced.read_text())["url"]
        child.send_signal(signal.SIGTERM)


@pytest.fixture(scope="session")
def aws_server(kubernetes_process):
    server = Aws(kubernetes_process)
    yield server
    server.server.shutdown()


@pytest.fixture
def aws(aws_server, monkeypatch, tmp_path):
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    aws_server.reset()
    aws_server.__dict__.update(refused=[], addons=[], failed_addons=[], identities=[], requests=[])
    aws_server.quotas = {"L-DB2E81BA": 512.0, "L-417A185B": 0.0}
    for name, value in {
        "AWS_ENDPOINT_URL": aws_server.url,
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": REGION,
        "AWS_CONFIG_FILE": str(tmp_path / "none"),
        "AWS_MAX_ATTEMPTS": "1",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(Calls, "poll_s", 0.05)
    return aws_server


@pytest.fixture
def kubernetes(kubernetes_process, tmp_path):
    """Requests to the Kubernetes API as its administrator; what a test made goes again."""

    def request(method, path, body=None):
        headers = {"Authorization": "Bearer admin", "Content-Type": "application/json"}
        data = None if body is None else json.dumps(body).encode()
        asked = urllib.request.Request(kubernetes_process + path, data, headers, method=method)
        try:
            with urllib.request.urlopen(asked, timeout=30) as answer:
                return json.loads(answer.read())
        except urllib.error.HTTPError as problem:
            if problem.code == 404:
                return None
            raise AssertionError(problem.read()) from None

    yield request
    for name in ("serve-app", "monitoring", "robots"):
        request("DELETE", f"/api/v1/namespaces/{name}")
