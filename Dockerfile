# Perennial's images, one target each: airflow, training, serving, mlflow, backup; and spark, a Spark Connect server.
#
#   docker build --target training -t perennial/training .
#
# Every image installs its extra of pyproject.toml into /opt/venv, at the versions of the one lock.

ARG PYTHON_IMAGE=python:3.11-slim-bookworm
ARG POSTGRES_IMAGE=postgres:16-bookworm

# --- installer: mounted where it is needed, so it is in no image ---

FROM ${PYTHON_IMAGE} AS installer
RUN python -m venv /opt/uv && /opt/uv/bin/pip install --quiet --no-cache-dir uv==0.13.9
COPY pyproject.toml requirements.txt deploy/install.sh /opt/uv/

# --- code: compiled here, because a read-only root filesystem cannot store bytecode ---

FROM ${PYTHON_IMAGE} AS code
WORKDIR /app
COPY training training
COPY feature_repo feature_repo
COPY serving serving
COPY local local
COPY dags dags
COPY plugins plugins
RUN python -m compileall -q -j 0 .

# --- the images ---

FROM ${PYTHON_IMAGE} AS runtime
# A numeric user, so that Kubernetes can verify that it is not root. Group 0, so that another user id works as well.
RUN useradd --uid 10001 --gid 0 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin perennial \
    && install -d -o 10001 -g 0 -m 2775 /var/lib/perennial /var/lib/airflow /var/lib/mlflow /var/lib/serving /run/perennial \
    && python3.11 -m venv --without-pip /opt/venv
ENV PATH=/opt/venv/bin:$PATH \
    HOME=/tmp \
    PYTHONPATH=/app \
    PYTHONUNBUFFERED=1 \
    CT_HOME=/var/lib/perennial \
    DO_NOT_TRACK=true \
    MLFLOW_DISABLE_TELEMETRY=true \
    BENTOML_DO_NOT_TRACK=true
WORKDIR /app

FROM runtime AS mlflow
RUN --mount=type=bind,from=installer,source=/opt/uv,target=/opt/uv --mount=type=cache,target=/root/.cache/uv \
    sh /opt/uv/install.sh --extra mlflow
# No processes for the background jobs of MLflow's GenAI features, which are not used.
ENV MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false
# The server with a login, and its users.
COPY deploy/mlflow/login.py /opt/mlflow/login.py
RUN --mount=type=bind,from=code,source=/app/training,target=/tmp/code mkdir -p /usr/share/perennial \
    && python -I /tmp/code/sbom.py --name perennial/mlflow --system > /usr/share/perennial/sbom.cdx.json
USER 10001:0
EXPOSE 5000
CMD ["mlflow", "server", "--host", "0.0.0.0", "--port", "5000", "--workers", "1", "--serve-artifacts"]

# The package has 95 MB, of which the pages in Airflow need one file.
FROM runtime AS plotly
RUN --mount=type=bind,from=installer,source=/opt/uv,target=/opt/uv --mount=type=cache,target=/root/.cache/uv \
    sh /opt/uv/install.sh --extra pages

FROM runtime AS airflow
RUN --mount=type=bind,from=installer,source=/opt/uv,target=/opt/uv --mount=type=cache,target=/root/.cache/uv \
    sh /opt/uv/install.sh --extra airflow
# tests/compose/test_image_modules.py computes these lists from the imports.
COPY --from=code /app/training/__init__.py /app/training/atomic.py /app/training/object_store.py \
    /app/training/settings.py /app/training/storage.py training/
COPY --from=code /app/training/__pycache__ training/__pycache__
COPY --from=code /app/training/contract training/contract
COPY --from=code /app/training/models training/models
# The specs of the sources. Their SQL and Python are not looked at here.
COPY --from=code /app/feature_repo feature_repo
COPY --from=code /app/plugins plugins
COPY --from=plotly /opt/venv/lib/python3.11/site-packages/plotly/package_data/plotly.min.js \
    /opt/venv/lib/python3.11/site-packages/plotly/package_data/plotly.min.js
COPY --from=code /app/dags dags
ENV AIRFLOW_HOME=/var/lib/airflow \
    AIRFLOW__CORE__DAGS_FOLDER=/app/dags \
    AIRFLOW__CORE__PLUGINS_FOLDER=/app/plugins \
    AIRFLOW__CORE__LOAD_EXAMPLES=False
ARG GIT_SHA=""
ARG IMAGE=""
ENV CT_GIT_SHA=${GIT_SHA} CT_IMAGE=${IMAGE}
LABEL org.opencontainers.image.revision=${GIT_SHA}
RUN --mount=type=bind,from=code,source=/app/training,target=/tmp/code mkdir -p /usr/share/perennial \
    && python -I /tmp/code/sbom.py --name perennial/airflow --system > /usr/share/perennial/sbom.cdx.json
USER 10001:0
EXPOSE 8080
CMD ["airflow", "api-server"]

FROM runtime AS serving
RUN --mount=type=bind,from=installer,source=/opt/uv,target=/opt/uv --mount=type=cache,target=/root/.cache/uv \
    sh /opt/uv/install.sh --extra serving
COPY --from=code /app/training/__init__.py /app/training/atomic.py /app/training/delta_files.py \
    /app/training/delta_log.py /app/training/delta_reader.py /app/training/delta_tables.py /app/training/engine.py \
    /app/training/file_digests.py /app/training/layout.py /app/training/object_store.py /app/training/settings.py \
    /app/training/signing.py /app/training/storage.py training/
COPY --from=code /app/training/__pycache__ training/__pycache__
COPY --from=code /app/training/contract training/contract
COPY --from=code /app/training/compat training/compat
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
RUN --mount=type=bind,from=code,source=/app/training,target=/tmp/code mkdir -p /usr/share/perennial \
    && python -I /tmp/code/sbom.py --name perennial/serving --system > /usr/share/perennial/sbom.cdx.json
USER 10001:0
EXPOSE 3000
CMD ["bentoml", "serve", "serving.service:Service", "--working-dir", "/app", "--host", "0.0.0.0", "--port", "3000"]

FROM runtime AS training
# cpu, or what `uv pip install --torch-backend` takes: cu126, auto, …
ARG TORCH_BACKEND=cpu
RUN --mount=type=bind,from=installer,source=/opt/uv,target=/opt/uv --mount=type=cache,target=/root/.cache/uv \
    sh /opt/uv/install.sh --extra training --extra demo
# `spark` adds pyspark, which CT_ENGINE=spark needs. Its jars, 0.5 GB, are Spark itself: steps only call a server.
ARG EXTRAS=""
RUN --mount=type=bind,from=installer,source=/opt/uv,target=/opt/uv --mount=type=cache,target=/root/.cache/uv \
    test -z "$EXTRAS" || { sh /opt/uv/install.sh --extra training --extra demo --extra $EXTRAS \
    && rm -rf /opt/venv/lib/python3.11/site-packages/pyspark/jars; }
COPY --from=code /app/training training
COPY --from=code /app/feature_repo feature_repo
# The demo, which needs nothing else.
COPY --from=code /app/local local
ARG GIT_SHA=""
ARG IMAGE=""
ENV CT_GIT_SHA=${GIT_SHA} CT_IMAGE=${IMAGE}
LABEL org.opencontainers.image.revision=${GIT_SHA}
RUN --mount=type=bind,from=code,source=/app/training,target=/tmp/code mkdir -p /usr/share/perennial \
    && python -I /tmp/code/sbom.py --name perennial/training --system > /usr/share/perennial/sbom.cdx.json
USER 10001:0
ENTRYPOINT ["python"]
CMD ["-m", "training", "--help"]

# A Spark Connect server with as many executors as its container has cores. It has none of our code: its Python workers
# get that from the steps, and here the packages that it imports.
FROM runtime AS spark
# Java's package writes manual pages, and this image has no folder for them.
RUN mkdir -p /usr/share/man/man1 && apt-get update \
    && apt-get install -y --no-install-recommends openjdk-17-jre-headless procps && rm -rf /var/lib/apt/lists/* \
    && install -d -o 10001 -g 0 -m 2775 /var/lib/spark
RUN --mount=type=bind,from=installer,source=/opt/uv,target=/opt/uv --mount=type=cache,target=/root/.cache/uv \
    sh /opt/uv/install.sh --extra spark --extra spark-workers
# Java unpacks libraries into its temporary folder and runs them, which Docker does not allow in /tmp by default.
ENV SPARK_LOCAL_DIRS=/var/lib/spark \
    JAVA_TOOL_OPTIONS=-Djava.io.tmpdir=/var/lib/spark
ARG GIT_SHA=""
LABEL org.opencontainers.image.revision=${GIT_SHA}
RUN --mount=type=bind,from=code,source=/app/training,target=/tmp/code mkdir -p /usr/share/perennial \
    && python -I /tmp/code/sbom.py --name perennial/spark --system > /usr/share/perennial/sbom.cdx.json
USER 10001:0
EXPOSE 15002
# A server that was killed has left its shuffles.
CMD ["sh", "-c", "rm -rf /var/lib/spark/* && exec \"$@\"", "--", "spark-submit", "--master", "local[*]", \
    "--conf", "spark.connect.grpc.binding.address=0.0.0.0", \
    "--conf", "spark.ui.enabled=false", "--conf", "spark.jars.ivy=/tmp/ivy", \
    "--class", "org.apache.spark.sql.connect.service.SparkConnectServer", "spark-internal"]

# Training and PostgreSQL's client programs of the server's version: an older pg_dump refuses a newer server.
FROM ${POSTGRES_IMAGE} AS postgres
RUN mkdir /client && cp -a /usr/lib/postgresql/*/bin/pg_dump /usr/lib/postgresql/*/bin/pg_restore \
    /usr/lib/*-linux-gnu/libpq.so.5* /client/

FROM training AS backup
ARG IMAGE=""
ENV CT_IMAGE=${IMAGE}
USER 0:0
RUN apt-get update && apt-get install -y --no-install-recommends libpq5 && rm -rf /var/lib/apt/lists/* \
    && install -d -o 10001 -g 0 -m 2770 /var/lib/perennial-backups
COPY --from=postgres /client/pg_* /usr/local/bin/
COPY --from=postgres /client/libpq.so.5* /usr/local/lib/
RUN ldconfig && pg_dump --version
RUN --mount=type=bind,from=code,source=/app/training,target=/tmp/code mkdir -p /usr/share/perennial \
    && python -I /tmp/code/sbom.py --name perennial/backup --system > /usr/share/perennial/sbom.cdx.json
USER 10001:0
CMD ["-m", "training.backup", "make"]
