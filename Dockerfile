# Perennial's images, one target each: airflow, training, serving, mlflow.
#
#   docker build --target training -t perennial/training .
#
# Every image installs its extra of pyproject.toml, at the versions of the one lock, into an environment of its own.

ARG PYTHON_IMAGE=python:3.11-slim-bookworm

# --- environments ---

FROM ${PYTHON_IMAGE} AS builder
RUN python -m venv /opt/uv && /opt/uv/bin/pip install --quiet --no-cache-dir uv
ENV UV_COMPILE_BYTECODE=1 UV_LINK_MODE=copy UV_PYTHON_DOWNLOADS=never VIRTUAL_ENV=/opt/venv PATH=/opt/uv/bin:$PATH
RUN uv venv --quiet --python "$(command -v python3.11)" /opt/venv
WORKDIR /build
COPY pyproject.toml requirements.txt ./

FROM builder AS airflow-venv
RUN --mount=type=cache,target=/root/.cache/uv \
    uv pip install --quiet -r pyproject.toml --extra airflow -c requirements.txt

FROM builder AS mlflow-venv
RUN --mount=type=cache,target=/root/.cache/uv \
    uv pip install --quiet -r pyproject.toml --extra mlflow -c requirements.txt

FROM builder AS serving-venv
RUN --mount=type=cache,target=/root/.cache/uv \
    uv pip install --quiet -r pyproject.toml --extra serving -c requirements.txt

FROM builder AS training-venv
# cpu, or what `uv pip install --torch-backend` takes: cu126, auto, … A torch wheel among UV_FIND_LINKS is taken as it is.
ARG TORCH_BACKEND=cpu
RUN --mount=type=cache,target=/root/.cache/uv \
    backend="--torch-backend=${TORCH_BACKEND}"; \
    for wheel in "${UV_FIND_LINKS:-/none}"/torch-*.whl; do if [ -e "$wheel" ]; then backend=; fi; done; \
    uv pip install --quiet $backend -r pyproject.toml --extra training --extra demo -c requirements.txt

# --- code, compiled here: a read-only root filesystem takes no bytecode ---

FROM ${PYTHON_IMAGE} AS code
WORKDIR /app
COPY training training
COPY feature_repo feature_repo
COPY serving serving
COPY local local
COPY dags dags
COPY plugins plugins
RUN python -m compileall -q -j 0 .

# --- what runs ---

FROM ${PYTHON_IMAGE} AS runtime
# A number, so that Kubernetes can see that it is not root; group 0, so that another number can be used as well.
RUN useradd --uid 10001 --gid 0 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin perennial \
    && install -d -o 10001 -g 0 -m 2775 /var/lib/perennial /var/lib/airflow /var/lib/mlflow /var/lib/serving /run/perennial
ENV PATH=/opt/venv/bin:$PATH \
    HOME=/tmp \
    PYTHONPATH=/app \
    PYTHONUNBUFFERED=1 \
    CT_HOME=/var/lib/perennial \
    DO_NOT_TRACK=true \
    MLFLOW_DISABLE_TELEMETRY=true \
    BENTOML_DO_NOT_TRACK=true
WORKDIR /app
USER 10001:0

FROM runtime AS mlflow
COPY --from=mlflow-venv /opt/venv /opt/venv
# Background jobs of MLflow's GenAI features: processes that nothing here uses.
ENV MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false
EXPOSE 5000
CMD ["mlflow", "server", "--host", "0.0.0.0", "--port", "5000", "--workers", "1", "--serve-artifacts"]

FROM runtime AS airflow
COPY --from=airflow-venv /opt/venv /opt/venv
COPY --from=code /app/training/__init__.py /app/training/settings.py training/
COPY --from=code /app/training/__pycache__ training/__pycache__
COPY --from=code /app/training/contract training/contract
COPY --from=code /app/training/models training/models
COPY --from=code /app/plugins plugins
COPY --from=code /app/dags dags
ENV AIRFLOW_HOME=/var/lib/airflow \
    AIRFLOW__CORE__DAGS_FOLDER=/app/dags \
    AIRFLOW__CORE__PLUGINS_FOLDER=/app/plugins \
    AIRFLOW__CORE__LOAD_EXAMPLES=False
ARG GIT_SHA=""
ARG IMAGE=""
ENV CT_GIT_SHA=${GIT_SHA} CT_IMAGE=${IMAGE}
LABEL org.opencontainers.image.revision=${GIT_SHA}
EXPOSE 8080
CMD ["airflow", "api-server"]

FROM runtime AS serving
COPY --from=serving-venv /opt/venv /opt/venv
COPY --from=code /app/training/__init__.py /app/training/settings.py training/
COPY --from=code /app/training/contract training/contract
COPY --from=code /app/training/domain training/domain
COPY --from=code /app/training/adapters training/adapters
COPY --from=code /app/training/models training/models
COPY --from=code /app/feature_repo feature_repo
COPY --from=code /app/serving serving
ENV BENTOML_HOME=/tmp/bentoml CT_SERVING_STATE=/var/lib/serving
ARG GIT_SHA=""
ARG IMAGE=""
ENV CT_GIT_SHA=${GIT_SHA} CT_IMAGE=${IMAGE}
LABEL org.opencontainers.image.revision=${GIT_SHA}
EXPOSE 3000
CMD ["bentoml", "serve", "serving.service:Service", "--working-dir", "/app", "--host", "0.0.0.0", "--port", "3000"]

FROM runtime AS training
COPY --from=training-venv /opt/venv /opt/venv
COPY --from=code /app/training training
COPY --from=code /app/feature_repo feature_repo
# The demo's story, which needs nothing that is not here.
COPY --from=code /app/local local
ARG GIT_SHA=""
ARG IMAGE=""
ENV CT_GIT_SHA=${GIT_SHA} CT_IMAGE=${IMAGE}
LABEL org.opencontainers.image.revision=${GIT_SHA}
ENTRYPOINT ["python"]
CMD ["-m", "training", "--help"]
