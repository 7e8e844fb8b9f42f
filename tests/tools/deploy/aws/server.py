"""AWS over HTTP: moto, what it lacks (quotas, add-ons, Pod Identity), and the Kubernetes API behind EKS's endpoint."""

import base64
import io
import json
import threading
import urllib.error
import urllib.request
from urllib.parse import parse_qs, urlsplit

import boto3
import yaml
from moto.backends import get_backend
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server
from werkzeug.wrappers import Request, Response

REGION, ACCOUNT = "us-west-2", "123456789012"
XML_SERVICES = (["cloudformation"], ["iam"], ["ec2"], ["sts"])
DENIALS = {
    "s3": "<Error><Code>AccessDenied</Code><Message>no</Message></Error>",
    "json": '{"__type": "AccessDeniedException", "message": "no"}',
    "xml": "<ErrorResponse><Error><Code>AccessDenied</Code><Message>no</Message></Error></ErrorResponse>",
}


class Quiet(WSGIRequestHandler):
    def log(self, *_):
        pass


class Aws:
    def __init__(self, kubernetes_url):
        self.moto = DomainDispatcherApplication(create_backend_app)
        self.kubernetes_url = kubernetes_url
        self.clear()
        self.server = make_server("127.0.0.1", 0, self, threaded=True, request_handler=Quiet)
        self.url = f"http://127.0.0.1:{self.server.port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def clear(self):
        self.quotas = {"L-DB2E81BA": 512.0, "L-417A185B": 0.0}
        self.refused = []  # requests that contain one of these are denied
        self.addons, self.failed_addons, self.identities = [], [], []
        self.requests, self.policies = [], {}

    def reset(self):
        urllib.request.urlopen(urllib.request.Request(f"{self.url}/moto-api/reset", method="POST"), timeout=30).read()
        self.clear()

    def __call__(self, environ, start):
        request = Request(environ)
        return self.answer(request, request.get_data(cache=True))(environ, start)

    def answer(self, request, body):
        service = request.headers.get("Authorization", "").partition("Credential=")[2].split("/")[3:4]
        target = request.headers.get("X-Amz-Target", "")
        line = f"{request.method} {request.full_path} {target} {body[:300].decode('latin-1')}"
        self.requests.append(line)
        if any(part in line for part in self.refused):
            return self.deny(service)
        if request.path.startswith("/_eksctl/"):
            return self.eksctl(*request.path.split("/")[2:], yaml.safe_load(body or b"null"))
        if request.path.startswith("/kubernetes"):
            return self.kubernetes(request, body)
        if target == "ServiceQuotasV20190624.GetServiceQuota":
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
        return self.pass_to_moto(request, body)

    def pass_to_moto(self, request, body):
        started = []
        environ = request.environ | {"wsgi.input": io.BytesIO(body), "CONTENT_LENGTH": str(len(body))}
        environ.pop("HTTP_TRANSFER_ENCODING", None)
        content = b"".join(self.moto(environ, lambda status, headers, _=None: started.append((status, headers))))
        status, headers = started[0]
        if request.method == "GET" and request.path.startswith("/clusters/") and request.path.count("/") == 2:
            content = self.with_endpoint(content)
        if request.method != "HEAD":
            headers = [one for one in headers if one[0].lower() not in ("content-length", "transfer-encoding")]
        return Response(content, status, headers)

    def bucket_policy(self, request, body):
        """moto ignores a policy's conditions, so a denial of plain HTTP would deny everything."""
        if request.method == "PUT":
            self.policies[request.path] = body
        return Response(self.policies[request.path], 204 if request.method == "PUT" else 200)

    def with_endpoint(self, answer):
        described = json.loads(answer)
        if "cluster" in described and described["cluster"]["status"] != "ACTIVE":
            del described["cluster"]["endpoint"], described["cluster"]["certificateAuthority"]
        elif "cluster" in described:
            described["cluster"]["endpoint"] = f"{self.url}/kubernetes"
            described["cluster"]["resourcesVpcConfig"]["vpcId"] = "vpc-1"  # which moto leaves out
        return json.dumps(described).encode()

    def deny(self, service):
        kind = "s3" if service == ["s3"] else "xml" if service[:1] in XML_SERVICES else "json"
        return Response(DENIALS[kind], 403, content_type="application/json" if kind == "json" else "text/xml")

    def eksctl(self, verb, part, name, config):
        """What a command of eksctl leaves in the account."""
        eks = boto3.client("eks", region_name=REGION)
        if verb == "delete":
            return self.eksctl_delete(eks, part, name)
        name = config["metadata"]["name"]
        if part == "cluster" and not self.create_stack(f"eksctl-{name}-cluster"):
            return Response("the stack exists", 409)
        subnets = [one["SubnetId"] for one in boto3.client("ec2", region_name=REGION).describe_subnets()["Subnets"]]
        role = f"arn:aws:iam::{ACCOUNT}:role/eks"
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
            for group in eks.list_nodegroups(clusterName=cluster)["nodegroups"]:
                if part == "cluster" or group == name:
                    eks.delete_nodegroup(clusterName=cluster, nodegroupName=group)
        if part == "cluster":
            self.addons, self.identities = [], []
            if name in clusters:
                eks.delete_cluster(name=name)
            boto3.client("cloudformation", region_name=REGION).delete_stack(StackName=f"eksctl-{name}-cluster")
        return Response("{}")

    def create_stack(self, name, status="CREATE_COMPLETE"):
        """False where it exists; moto's stacks never fail, so the status is set in its backend."""
        stacks = boto3.client("cloudformation", region_name=REGION)
        template = {"Resources": {"Nothing": {"Type": "AWS::CloudFormation::WaitConditionHandle"}}}
        try:
            stacks.create_stack(StackName=name, TemplateBody=json.dumps(template))
        except stacks.exceptions.AlreadyExistsException:
            return False
        get_backend("cloudformation")[ACCOUNT][REGION].get_stack(name).status = status
        return True

    def set_status(self, status, group=None):
        cluster = get_backend("eks")[ACCOUNT][REGION].clusters["serve-app-eks"]
        (cluster.nodegroups[group] if group else cluster).status = status

    def kubernetes(self, request, body):
        """As EKS: the bearer token is a request to STS that is signed for this cluster."""
        if not is_token(request.headers.get("Authorization", "").removeprefix("Bearer ")):
            return Response('{"kind": "Status", "code": 401, "message": "Unauthorized"}', 401)
        url = self.kubernetes_url + request.full_path.removeprefix("/kubernetes").rstrip("?")
        headers = {"Authorization": "Bearer admin", "Content-Type": request.headers.get("Content-Type", "")}
        forwarded = urllib.request.Request(url, body or None, headers, method=request.method)
        try:
            with urllib.request.urlopen(forwarded, timeout=30) as answer:
                return Response(answer.read(), answer.status, content_type="application/json")
        except urllib.error.HTTPError as error:
            return Response(error.read(), error.code, content_type="application/json")


def is_token(token):
    prefix, _, encoded = token.partition(".")
    if prefix != "k8s-aws-v1":
        return False
    query = parse_qs(urlsplit(base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4))).query)
    signed = query.get(b"X-Amz-SignedHeaders", [b""])[0]
    return query.get(b"Action") == [b"GetCallerIdentity"] and b"x-k8s-aws-id" in signed
