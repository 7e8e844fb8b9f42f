# syntax=docker/dockerfile:1.7
# The whole service without a GPU, for kind, minikube or a laptop: `docker run --shm-size 2g -p 8000:8000 serve-app/cpu:0.1.0`.
#
# Size, an estimate: 9.2 GB on disk (packages 8.9 GB, of which 5 GB are PyTorch's CUDA libraries, as PyPI has
# no build without them), 4 GB to pull.
ARG UV_IMAGE=ghcr.io/astral-sh/uv
ARG UV_VERSION=0.13.8
ARG UV_DIGEST=
ARG BASE_IMAGE=python
ARG BASE_TAG=3.11-slim-bookworm
ARG BASE_DIGEST=
FROM ${UV_IMAGE}:${UV_VERSION}${UV_DIGEST:+@${UV_DIGEST}} AS uv
FROM ${BASE_IMAGE}:${BASE_TAG}${BASE_DIGEST:+@${BASE_DIGEST}}

ENV PATH=/opt/serve_app/bin:$PATH \
    HOME=/tmp \
    RAY_SERVE_HAPROXY_BINARY_PATH=/opt/serve_app/bin/serve-app-haproxy \
    PYTHONUNBUFFERED=1

# KubeRay's probes use wget; vLLM's CPU kernels need libnuma; login shells reset PATH.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libnuma1 wget \
    && rm -rf /var/lib/apt/lists/* \
    && echo "export PATH=/opt/serve_app/bin:\$PATH" >/etc/profile.d/serve_app.sh

RUN --mount=type=bind,from=uv,source=/uv,target=/run/uv \
    --mount=type=bind,source=kuberay/images/requirements/cpu.txt,target=/run/requirements.txt \
    --mount=type=cache,target=/root/.cache/uv \
    export UV_CACHE_DIR=/root/.cache/uv UV_LINK_MODE=copy UV_NO_PYTHON_DOWNLOADS=1 \
    && /run/uv venv --python 3.11 /opt/serve_app \
    && VIRTUAL_ENV=/opt/serve_app /run/uv pip sync --require-hashes --compile-bytecode /run/requirements.txt

WORKDIR /srv/serve_app
COPY pyproject.toml README.md LICENSE ./
COPY docs/shapes.jpg docs/
COPY model_repository/weights model_repository/weights
COPY model_repository/cpu model_repository/cpu
COPY scripts scripts
COPY configs configs
COPY serve_app serve_app
RUN --mount=type=bind,from=uv,source=/uv,target=/run/uv \
    VIRTUAL_ENV=/opt/serve_app /run/uv pip install --no-cache --offline --no-deps --no-build-isolation --editable . \
    && python -m compileall -q serve_app model_repository

# Built here, as the root file system is read-only in pods; without network, so that `auto` takes the weights above.
RUN --network=none python scripts/build_models --config configs/serve.yaml \
    && chmod -R a+rX model_repository

USER 1000:100
EXPOSE 8000 8001 8265 8080 6379 10001
HEALTHCHECK --interval=15s --timeout=5s --start-period=120s --retries=4 \
    CMD ["bash", "-c", "wget --tries 1 --timeout 2 -qO- http://localhost:52365/api/local_raylet_healthz | grep -q success"]
CMD ["python", "scripts/serve"]

ARG BASE_IMAGE
ARG BASE_TAG
ARG VERSION=0.1.0
ARG REVISION=unknown
ARG CREATED=1970-01-01T00:00:00Z
LABEL org.opencontainers.image.title="serve_app cpu" \
      org.opencontainers.image.description="YOLO and language models in one Ray Serve application, without a GPU" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}" \
      org.opencontainers.image.base.name="${BASE_IMAGE}:${BASE_TAG}"
