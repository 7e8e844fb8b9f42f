"""The fixed ports of a pod, which NetworkPolicies name."""

HTTP = 8000
GRPC = 8001
DASHBOARD = 8265
METRICS = 8080
AUTOSCALER_METRICS, DASHBOARD_METRICS = 44217, 44227  # Ray's own choice; of the head alone
GCS = 6379
CLIENT = 10001
AGENT = 52365  # Ray's dashboard agent, which KubeRay's probes call
REDIS = 6379

# `ray start` would choose random ports for these.
START = {
    "node-manager-port": 6380,
    "object-manager-port": 6381,
    "runtime-env-agent-port": 6382,
    "dashboard-agent-grpc-port": 6383,
    "dashboard-agent-listen-port": AGENT,
    "metrics-export-port": METRICS,
    "min-worker-port": 10002,
    "max-worker-port": 19999,
}

# Ranges used between pods of one service.
REPLICAS_HTTP = (30000, 31000)  # HAProxy to replicas; RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT and so on
REPLICAS_GRPC = (40000, 41000)
EPHEMERAL = (32768, 60999)  # Linux's ephemeral ports: calls between replicas, NCCL
INSIDE = (
    (GCS, START["dashboard-agent-grpc-port"]),
    (HTTP, GRPC),
    (METRICS, METRICS),
    (DASHBOARD, DASHBOARD),
    (CLIENT, START["max-worker-port"]),
    REPLICAS_HTTP,
    REPLICAS_GRPC,
    EPHEMERAL,
)
