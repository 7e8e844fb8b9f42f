# syntax=docker/dockerfile:1.7
# Triton replicas on NVIDIA GPUs, with TensorRT and DALI; track A; the Job that builds TensorRT plans.
#
# NVIDIA's release 26.08: Ubuntu 24.04 and Python 3.12 as in Ray's images, Triton 2.72, TensorRT 11.2.1 and DALI 2.2.0 (PyPI
# has the same versions, which build the models), and CUDA 13 as in PyTorch's packages and ray-llm's cu130. Nodes need driver
# 580 or newer. To change the release, also change the last two lines of requirements/vision.in.
# Size, an estimate: 22 GB on disk (base 16 GB, packages 6 GB), 12 GB to pull.
ARG UV_IMAGE=ghcr.io/astral-sh/uv
ARG UV_VERSION=0.13.8
ARG UV_DIGEST=
ARG BASE_IMAGE=nvcr.io/nvidia/tritonserver
ARG BASE_TAG=26.08-py3
ARG BASE_DIGEST=
FROM ${UV_IMAGE}:${UV_VERSION}${UV_DIGEST:+@${UV_DIGEST}} AS uv
FROM ${BASE_IMAGE}:${BASE_TAG}${BASE_DIGEST:+@${BASE_DIGEST}}

# The base's PYTHONPATH has a DALI that lacks its requirements. Triton's Python backend runs the first python3 on PATH.
ENV PATH=/opt/serve_app/bin:$PATH \
    HOME=/tmp \
    RAY_SERVE_HAPROXY_BINARY_PATH=/opt/serve_app/bin/serve-app-haproxy \
    PYTHONPATH= \
    PYTHONUNBUFFERED=1

USER 0:0
# Login shells reset PATH.
RUN echo "export PATH=/opt/serve_app/bin:/opt/tritonserver/bin:\$PATH" >/etc/profile.d/serve_app.sh

RUN --mount=type=bind,from=uv,source=/uv,target=/run/uv \
    --mount=type=bind,source=kuberay/images/requirements/vision.txt,target=/run/requirements.txt \
    --mount=type=cache,target=/root/.cache/uv \
    export UV_CACHE_DIR=/root/.cache/uv UV_LINK_MODE=copy UV_NO_PYTHON_DOWNLOADS=1 \
    && /run/uv venv --python 3.12 /opt/serve_app \
    && VIRTUAL_ENV=/opt/serve_app /run/uv pip sync --require-hashes --compile-bytecode /run/requirements.txt

# Triton's Python package is the base's. TensorRT's bindings load the base's libraries; the package `tensorrt` would install
# the same two gigabytes again.
RUN --mount=type=bind,from=uv,source=/uv,target=/run/uv \
    VIRTUAL_ENV=/opt/serve_app /run/uv pip install --no-cache --offline --no-deps --compile-bytecode \
        /opt/tritonserver/python/tritonserver-*.whl \
    && printf "%s\n" "from tensorrt_bindings import *" "from tensorrt_bindings import __version__" \
        >/opt/serve_app/lib/python3.12/site-packages/tensorrt.py

WORKDIR /srv/serve_app
COPY pyproject.toml README.md LICENSE ./
COPY docs/shapes.jpg docs/
COPY model_repository/gpu model_repository/gpu
COPY scripts scripts
COPY configs configs
COPY serve_app serve_app
RUN --mount=type=bind,from=uv,source=/uv,target=/run/uv \
    VIRTUAL_ENV=/opt/serve_app /run/uv pip install --no-cache --offline --no-deps --no-build-isolation --editable . \
    && python -m compileall -q serve_app model_repository \
    && python -c "import boto3, nvidia.dali, onnx, serve_app.app, tritonserver, ultralytics"

USER 1000:100
EXPOSE 8000 8001 8265 8080 6379 10001
HEALTHCHECK --interval=15s --timeout=5s --start-period=60s --retries=4 \
    CMD ["bash", "-c", "wget --tries 1 --timeout 2 -qO- http://localhost:52365/api/local_raylet_healthz | grep -q success"]
ENTRYPOINT []
CMD ["ray", "start", "--head", "--block"]

ARG BASE_IMAGE
ARG BASE_TAG
ARG VERSION=0.1.0
ARG REVISION=unknown
ARG CREATED=1970-01-01T00:00:00Z
LABEL org.opencontainers.image.title="serve_app vision" \
      org.opencontainers.image.description="Triton with TensorRT and DALI in Ray Serve replicas" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}" \
      org.opencontainers.image.base.name="${BASE_IMAGE}:${BASE_TAG}"
