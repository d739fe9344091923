# syntax=docker/dockerfile:1
# Two images from one file:  docker build --target cpu -t tuneport:cpu .   docker build --target gpu -t tuneport:gpu .
# The steps are `make setup`'s: uv, then `uv sync --locked`. Run it with -e TUNEPORT_MODEL=Qwen/Qwen3-0.6B -p 8000:8000.

FROM python:3.11-slim-bookworm AS build
WORKDIR /app
# g++ and the Python headers: vLLM and PyTorch compile small kernels when they start. Debian drops old versions, so none
# are pinned.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ libnuma1 make \
    && rm -rf /var/lib/apt/lists/*
COPY Makefile pyproject.toml uv.lock ./
RUN make .tools/uv/bin/uv
ENV UV_LINK_MODE=copy UV_COMPILE_BYTECODE=1

FROM build AS build-cpu
RUN .tools/uv/bin/uv sync --quiet --locked --no-install-project --extra cpu
COPY . .
RUN .tools/uv/bin/uv sync --quiet --locked --no-editable --extra cpu

FROM build AS build-gpu
RUN .tools/uv/bin/uv sync --quiet --locked --no-install-project --extra gpu
COPY . .
RUN .tools/uv/bin/uv sync --quiet --locked --no-editable --extra gpu

FROM python:3.11-slim-bookworm AS runtime
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ libnuma1 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 10001 tuneport \
    && install --directory --owner tuneport /state /models
# State (database, files, jobs, adapters) and models (also the hub's cache) outlive the container.
VOLUME ["/state", "/models"]
ENV PATH=/app/.venv/bin:$PATH \
    HF_HOME=/models \
    TUNEPORT_DATA_DIR=/state \
    TUNEPORT_HOST=0.0.0.0
WORKDIR /state
EXPOSE 8000
USER 10001
# Healthy means that the process answers; `GET /ready` says whether the engine does.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/health')"]
ENTRYPOINT ["tuneport"]
CMD ["serve"]

FROM runtime AS cpu
COPY --from=build-cpu --chown=root:root /app/.venv /app/.venv

FROM runtime AS gpu
COPY --from=build-gpu --chown=root:root /app/.venv /app/.venv
