# syntax=docker/dockerfile:1.7
# Head and routers of clusters without language models, and the playground; no GPU.
#
# The base provides the system, its tools and Python. The application has a virtual environment of its own, with the versions
# that were tested.
# Size, an estimate: 3.7 GB on disk (base 2.5 GB, packages 1.2 GB), 1.3 GB to pull.
ARG UV_IMAGE=ghcr.io/astral-sh/uv
ARG UV_VERSION=0.13.8
ARG UV_DIGEST=
ARG BASE_IMAGE=rayproject/ray
ARG BASE_TAG=2.60.0-py312
ARG BASE_DIGEST=
FROM ${UV_IMAGE}:${UV_VERSION}${UV_DIGEST:+@${UV_DIGEST}} AS uv
FROM ${BASE_IMAGE}:${BASE_TAG}${BASE_DIGEST:+@${BASE_DIGEST}}

ENV PATH=/opt/serve_app/bin:$PATH \
    HOME=/tmp \
    RAY_SERVE_HAPROXY_BINARY_PATH=/opt/serve_app/bin/serve-app-haproxy \
    PYTHONUNBUFFERED=1

USER 0:0
# Login shells reset PATH.
RUN echo "export PATH=/opt/serve_app/bin:\$PATH" >/etc/profile.d/serve_app.sh

RUN --mount=type=bind,from=uv,source=/uv,target=/run/uv \
    --mount=type=bind,source=kuberay/images/requirements/head.txt,target=/run/requirements.txt \
    --mount=type=cache,target=/root/.cache/uv \
    export UV_CACHE_DIR=/root/.cache/uv UV_LINK_MODE=copy UV_NO_PYTHON_DOWNLOADS=1 \
    && /run/uv venv --python 3.12 /opt/serve_app \
    && VIRTUAL_ENV=/opt/serve_app /run/uv pip sync --require-hashes --compile-bytecode /run/requirements.txt

WORKDIR /srv/serve_app
COPY pyproject.toml README.md LICENSE ./
COPY docs/shapes.jpg docs/
COPY scripts scripts
COPY configs configs
COPY serve_app serve_app
RUN --mount=type=bind,from=uv,source=/uv,target=/run/uv \
    VIRTUAL_ENV=/opt/serve_app /run/uv pip install --no-cache --offline --no-deps --no-build-isolation --editable . \
    && python -m compileall -q serve_app \
    && python -c "import boto3, gradio, openai, serve_app.app"

USER 1000:100
EXPOSE 8000 8001 8265 8080 6379 10001
HEALTHCHECK --interval=15s --timeout=5s --start-period=60s --retries=4 \
    CMD ["bash", "-c", "wget --tries 1 --timeout 2 -qO- http://localhost:52365/api/local_raylet_healthz | grep -q success"]
CMD ["ray", "start", "--head", "--block"]

ARG BASE_IMAGE
ARG BASE_TAG
ARG VERSION=0.1.0
ARG REVISION=unknown
ARG CREATED=1970-01-01T00:00:00Z
LABEL org.opencontainers.image.title="serve_app head" \
      org.opencontainers.image.description="Ray head, routers and playground of serve_app" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}" \
      org.opencontainers.image.base.name="${BASE_IMAGE}:${BASE_TAG}"
