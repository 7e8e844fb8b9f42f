"""Pods in the Kubernetes API server of these tests: what they need, say and answer, as kubelets have it."""

import socketserver
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from kubernetes import client
from kubernetes.stream import portforward

PODS = "/api/v1/namespaces/default/pods"
SECRETS = "/api/v1/namespaces/default/secrets"


def pod(**spec):
    return {
        "metadata": {"name": "web", "labels": {"app": "web"}},
        "spec": {"containers": [{"name": "web", "image": "a"}]} | spec,
    }


def phase(kubernetes):
    return kubernetes.request("GET", f"{PODS}/web")[1]["status"]["phase"]


class Echo(socketserver.BaseRequestHandler):
    def handle(self):
        while data := self.request.recv(1024):
            self.request.sendall(data.upper())


@pytest.fixture
def running_pod(kubernetes):
    """Name of a pod whose port 8000 answers what it gets in capitals."""
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Echo) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        kubernetes.control(portforward={"8000": server.server_address[1]})
        kubernetes.request("POST", PODS, pod())
        kubernetes.until(lambda: phase(kubernetes) == "Running")
        yield "web"
        server.shutdown()


def test_a_port_is_forwarded(kubernetes, running_pod):
    core = client.CoreV1Api(kubernetes.client())
    call = core.connect_get_namespaced_pod_portforward
    forwarded = portforward(call, running_pod, "default", ports="8000,8001")
    forwarded.socket(8000).sendall(b"hello")
    assert forwarded.socket(8000).recv(100) == b"HELLO"
    forwarded.socket(8001).sendall(b"hello")
    said = kubernetes.until(lambda: forwarded.error(8001))
    assert said.endswith("connection refused")


def test_logs_are_told_by_the_line(kubernetes, running_pod):
    kubernetes.control(logs={"web": ["one", "two", "three"]})
    core = client.CoreV1Api(kubernetes.client())
    assert core.read_namespaced_pod_log(running_pod, "default", tail_lines=2) == "two\nthree\n"
    follows = core.read_namespaced_pod_log(running_pod, "default", follow=True, _preload_content=False)
    lines = iter(follows.stream(decode_content=True))
    assert b"one" in next(lines)
    kubernetes.control(logs={"web": ["four"]})
    assert next(line for line in lines if b"four" in line)
    follows.close()


def test_there_is_no_log_of_a_life_before_the_first(kubernetes, running_pod):
    status, answer = kubernetes.request("GET", f"/api/v1/namespaces/default/pods/{running_pod}/log?previous=true")
    assert (status, answer["reason"]) == (400, "BadRequest")
    assert answer["message"] == f'previous terminated container "web" in pod "{running_pod}" not found'


def test_who_has_two_containers_has_to_be_asked_for_one(kubernetes):
    containers = [{"name": "web", "image": "a"}, {"name": "side", "image": "a"}]
    kubernetes.request("POST", PODS, pod(containers=containers))
    kubernetes.until(lambda: phase(kubernetes) == "Running")
    status, answer = kubernetes.request("GET", f"{PODS}/web/log")
    assert (status, "choose one of: [web side]" in answer["message"]) == (400, True)
    assert kubernetes.request("GET", f"{PODS}/web/log?container=side")[0] == 200


def test_a_pod_that_has_not_started_has_no_log(kubernetes):
    kubernetes.control(trouble="image_pull", pod="web")
    kubernetes.request("POST", PODS, pod())
    kubernetes.control(turns=5)
    status, answer = kubernetes.request("GET", f"{PODS}/web/log")
    assert (status, answer["message"]) == (
        400,
        'container "web" in pod "web" is trying and failing to pull image',
    )


def waiting(kubernetes):
    status = kubernetes.request("GET", f"{PODS}/web")[1]["status"]
    return [one["state"].get("waiting", {}) for one in status.get("containerStatuses", ())]


def said(kubernetes):
    return [one["message"] for one in kubernetes.objects("Event", "default") if one["type"] == "Warning"]


def test_a_pod_waits_for_the_secret_of_its_environment(kubernetes):
    variable = {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "hub", "key": "token"}}}
    kubernetes.request("POST", PODS, pod(containers=[{"name": "web", "image": "a", "env": [variable]}]))
    wanted = {"reason": "CreateContainerConfigError", "message": 'secret "hub" not found'}
    kubernetes.until(lambda: waiting(kubernetes) == [wanted])
    kubernetes.until(lambda: 'Error: secret "hub" not found' in said(kubernetes))
    kubernetes.request("POST", SECRETS, {"metadata": {"name": "hub"}, "stringData": {"other": "x"}})
    wanted["message"] = "couldn't find key token in Secret default/hub"
    kubernetes.until(lambda: waiting(kubernetes) == [wanted])
    patch = {"stringData": {"token": "x"}}
    kubernetes.request("PATCH", f"{SECRETS}/hub", patch, media="application/merge-patch+json")
    kubernetes.until(lambda: phase(kubernetes) == "Running")


def test_a_pod_waits_for_the_secret_of_its_volume(kubernetes):
    kubernetes.request("POST", PODS, pod(volumes=[{"name": "keys", "secret": {"secretName": "keys"}}]))
    message = 'MountVolume.SetUp failed for volume "keys" : secret "keys" not found'
    kubernetes.until(lambda: message in said(kubernetes))
    assert waiting(kubernetes) == [{"reason": "ContainerCreating"}]
    kubernetes.request("POST", SECRETS, {"metadata": {"name": "keys"}, "stringData": {"a": "x"}})
    kubernetes.until(lambda: phase(kubernetes) == "Running")


def test_a_pod_does_not_wait_for_what_is_optional(kubernetes):
    volume = {"name": "keys", "secret": {"secretName": "keys", "optional": True}}
    kubernetes.request("POST", PODS, pod(volumes=[volume]))
    kubernetes.until(lambda: phase(kubernetes) == "Running")


def test_a_deleted_pod_leaves_after_a_while(kubernetes, running_pod):
    assert kubernetes.request("DELETE", f"{PODS}/{running_pod}")[1]["metadata"]["deletionTimestamp"]
    kubernetes.until(lambda: kubernetes.request("GET", f"{PODS}/{running_pod}")[0] == 404)
    kubernetes.request("POST", PODS, pod())
    kubernetes.request("DELETE", f"{PODS}/web?gracePeriodSeconds=0")
    assert kubernetes.request("GET", f"{PODS}/web")[0] == 404


class Page(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(b'{"path": "' + self.path.encode() + b'"}')

    def log_message(self, *arguments):
        pass


def test_a_services_pages_are_read_through_the_server(kubernetes):
    service = {
        "metadata": {"name": "web"},
        "spec": {"ports": [{"name": "http", "port": 80}], "selector": {"app": "web"}},
    }
    kubernetes.request("POST", "/api/v1/namespaces/default/services", service)
    path = "/api/v1/namespaces/default/services/web:http/proxy/status?a=1"
    status, answer = kubernetes.request("GET", path)
    assert (status, answer["message"]) == (503, 'no endpoints available for service "web:http"')
    with ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        kubernetes.control(portforward={"80": server.server_address[1]})
        assert kubernetes.request("GET", path) == (200, {"path": "/status?a=1"})
        server.shutdown()


def test_a_load_balancer_gets_a_name(kubernetes):
    service = {"metadata": {"name": "web"}, "spec": {"type": "LoadBalancer", "ports": [{"port": 80}]}}
    kubernetes.request("POST", "/api/v1/namespaces/default/services", service)

    def ingress():
        return kubernetes.object("Service", "web", "default")["status"]["loadBalancer"].get("ingress")

    assert kubernetes.until(ingress)[0]["hostname"].endswith(".elb.us-east-1.amazonaws.com")
