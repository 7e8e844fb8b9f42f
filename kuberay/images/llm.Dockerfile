# syntax=docker/dockerfile:1.7
# vLLM replicas on NVIDIA GPUs; also head and routers where language models are served, as building the application imports
# vLLM.
#
# vLLM, PyTorch, Ray and their requirements are those of the base. requirements/llm.txt adds the application's other packages
# to the base's environment.
# Size, an estimate: 25 GB on disk, 12 GB to pull, nearly all of it the base.
ARG UV_IMAGE=ghcr.io/astral-sh/uv
ARG UV_VERSION=0.13.8
ARG UV_DIGEST=
ARG BASE_IMAGE=rayproject/ray-llm
ARG BASE_TAG=2.60.0-py312-cu130
ARG BASE_DIGEST=
FROM ${UV_IMAGE}:${UV_VERSION}${UV_DIGEST:+@${UV_DIGEST}} AS uv
FROM ${BASE_IMAGE}:${BASE_TAG}${BASE_DIGEST:+@${BASE_DIGEST}}

ENV HOME=/tmp \
    RAY_SERVE_HAPROXY_BINARY_PATH=/usr/local/bin/serve-app-haproxy \
    PYTHONUNBUFFERED=1

USER 0:0
# Login shells reset PATH. /home/ray can be entered only by its user.
RUN echo "export PATH=$(dirname "$(command -v python)"):\$PATH" >/etc/profile.d/serve_app.sh \
    && chmod a+rx /home/ray

RUN --mount=type=bind,from=uv,source=/uv,target=/run/uv \
    --mount=type=bind,source=kuberay/images/requirements/llm.txt,target=/run/requirements.txt \
    --mount=type=cache,target=/root/.cache/uv \
    export UV_CACHE_DIR=/root/.cache/uv UV_LINK_MODE=copy UV_NO_PYTHON_DOWNLOADS=1 \
    && /run/uv pip install --system --no-deps --require-hashes --compile-bytecode --requirements /run/requirements.txt

WORKDIR /srv/serve_app
COPY pyproject.toml README.md LICENSE ./
COPY docs/shapes.jpg docs/
COPY scripts scripts
COPY configs configs
COPY serve_app serve_app
ARG RAY_VERSION=2.60.0
ARG VLLM_VERSION=0.29.0
RUN --mount=type=bind,from=uv,source=/uv,target=/run/uv \
    /run/uv pip install --system --no-cache --offline --no-deps --no-build-isolation --editable . \
    && ln -s "$(dirname "$(command -v python)")/serve-app-haproxy" /usr/local/bin/ \
    && python -m compileall -q serve_app \
    && python -c "from importlib.metadata import version; assert (version('ray'), version('vllm').partition('+')[0]) == ('${RAY_VERSION}', '${VLLM_VERSION}')" \
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
LABEL org.opencontainers.image.title="serve_app llm" \
      org.opencontainers.image.description="Language models in vLLM, with the head and routers of serve_app" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}" \
      org.opencontainers.image.base.name="${BASE_IMAGE}:${BASE_TAG}"
