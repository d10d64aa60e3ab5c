"""Where things are: `CT_*` environment variables, validated once, frozen. How things are done is the model spec's."""

import os
import subprocess
from functools import cache, cached_property
from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from training import storage
from training.contract.errors import ConfigError
from training.contract.model_spec import MODELS_DIR

PREFIX = "CT_"
ROOT = Path(__file__).parent.parent


class Settings(BaseSettings):
    """One field per `CT_*` variable. URIs left empty are folders under `home`."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, frozen=True, extra="forbid", protected_namespaces=(), use_attribute_docstrings=True
    )

    home: Path = ROOT / ".perennial"
    """One folder for everything that is not configured to live elsewhere."""
    models_dir: Path = MODELS_DIR
    """Model specs, <m>.yaml."""
    feature_repo: Path = ROOT / "feature_repo"
    """feature_store.yaml, and for each model <m>.py and <m>.sql."""

    landing_uri: str = ""
    """Files land at <landing>/<model>/<feed>/<partition>.parquet."""
    lake_uri: str = ""
    """Delta tables, <lake>/<model>/<table>."""
    work_uri: str = ""
    """Datasets, artifacts, reports, Data Docs: everything that can be made again from the lake."""
    results_uri: str = ""
    """Where steps leave their reports for Airflow; empty: results/ in the work folder."""
    ledger_uri: str = ""
    """Requests, decisions, rollouts: one file per entry, chained by hashes."""

    tracking_uri: str = "http://127.0.0.1:5000"
    """The MLflow server."""
    mlflow_url: str = ""
    """Where people open MLflow, for the links in task logs; empty: `tracking_uri`."""
    feast_registry: str = ""
    """Feast's registry file."""
    online_store: str = ""
    """Feast's online store: `redis://host:port/db`, or the path of an SQLite file."""

    serving_urls: str = "http://127.0.0.1:3000"
    """Every replica of the prediction service, comma separated; `dns+http://name:port` is all addresses of the name."""
    serving_model: str = "card_fraud"
    """The model that a prediction service serves."""
    serving_poll_seconds: float = Field(1.0, gt=0)
    """Seconds between two looks at the registry's aliases."""
    serving_state: str = ""
    """Last good copies of models, and predictions not yet shipped to the lake."""

    serving_lookup_seconds: float = Field(0.5, gt=0)
    """A lookup of up to 100 payments in the online store may take so long, one of more in proportion."""
    serving_store_down: Literal["refuse", "defaults"] = "refuse"
    """The online store slow or away: 503, or an answer from the features' defaults, flagged as such."""
    serving_deadline_seconds: float = Field(10.0, gt=0)
    """A request that cannot be answered in this time is refused with 503."""
    serving_maximum_in_flight: int = Field(256, ge=1)
    """Requests worked on at a time; further ones are refused with 503 and Retry-After."""
    serving_maximum_lag_seconds: float = Field(1.0, gt=0)
    """Requests are refused, too, while those before them wait longer than this for their turn."""
    serving_drain_seconds: float = Field(0.0, ge=0)
    """On SIGTERM: not ready, but answering, for so long before it stops to listen. Longer than a readiness probe."""
    serving_pinning: bool = False
    """Whether a request may choose the version that answers, by the header X-Perennial-Version."""
    serving_explain: bool = False
    """Whether /predict?explain=true is answered."""
    serving_keys_file: str = ""
    """Who may call: a file of hashed API keys (`make api-key`), read again when it changes. Empty: no key is asked."""
    serving_trusted_header: str = ""
    """A header that a gateway sets for callers that it has authenticated. It must strip the header from outside."""
    serving_trusted_peers: str = ""
    """Addresses or networks whose trusted header counts, comma separated. Empty: every peer's."""
    serving_api_key: SecretStr | None = None
    """The API key that the steps send to the prediction service."""

    launcher: Literal["subprocess", "forkserver", "pod"] = "subprocess"
    """How Airflow runs a step: a process of its own interpreter, one forked by the step server, or a pod of CT_IMAGE.
    """
    forkserver_socket: str = ""
    """Where the step server listens (`python -m training.forkserver`)."""
    pod_namespace: str = ""
    """Where step pods are made; empty: Airflow's own namespace, or the connection's."""
    pod_connection: str = ""
    """Airflow's connection to the cluster; empty: the service account of Airflow's own pod, else KUBECONFIG."""
    pod_service_account: str = ""
    """What step pods run as. They get no token of it."""
    pod_user: int = Field(10001, ge=1)
    """The user of the training image. Its group, and the volume's, is 0."""
    pod_image_pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    pod_image_pull_secrets: str = ""
    """Names of Secrets, comma separated."""
    pod_config_map: str = ""
    """A ConfigMap whose keys are environment variables of step pods. A `CT_*` of the task comes before it."""
    pod_secrets: str = ""
    """Names of Secrets, comma separated, whose keys are environment variables of step pods."""
    pod_volume_claim: str = ""
    """The PersistentVolumeClaim with the shared state; not needed when all of it is in an object store."""
    pod_volume_path: str = ""
    """Where it is mounted; empty: CT_HOME."""
    pod_priority_class: str = ""
    """Of step pods whose model spec names none."""
    pod_keep_failed_seconds: int = Field(86_400, ge=0)
    """How long a failed step pod stays, to be looked at."""
    git_sha: str | None = None
    """The code's commit. Unset: asked of the repository that the code lies in, if any."""
    image: str | None = None
    """The image that a step runs in, for its provenance."""
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"

    @field_validator("home", "models_dir", "feature_repo")
    @classmethod
    def _absolute(cls, path: Path) -> Path:
        return path.expanduser().absolute()

    @field_validator("feast_registry", "serving_state", "forkserver_socket")
    @classmethod
    def _on_a_disk(cls, path: str) -> str:
        if "://" in path:
            raise ValueError(f"{path} is no path: this is kept on a disk, that of a shared volume if need be")
        return path

    def _or_home(self, value: str, default: str) -> str:
        return value or str(self.home / default)

    @cached_property
    def landing(self) -> str:
        return self._or_home(self.landing_uri, "landing")

    @cached_property
    def lake(self) -> str:
        return self._or_home(self.lake_uri, "lake")

    @cached_property
    def work(self) -> str:
        return self._or_home(self.work_uri, "work")

    @cached_property
    def scratch(self) -> Path:
        """The local folder that steps work in: `work` itself or, where that is an object store, a folder of home."""
        return self.home / "work" if storage.is_remote(self.work) else storage.local(self.work)

    @cached_property
    def results(self) -> str:
        return self.results_uri or f"{self.work.rstrip('/')}/results"

    @cached_property
    def ledger(self) -> str:
        return self._or_home(self.ledger_uri, "ledger")

    @cached_property
    def feature_registry(self) -> str:
        return self._or_home(self.feast_registry, "feast/registry.db")

    @cached_property
    def online(self) -> str:
        return self._or_home(self.online_store, "feast/online.db")

    @cached_property
    def serving(self) -> str:
        return self._or_home(self.serving_state, "serving")

    @cached_property
    def step_server(self) -> Path:
        return Path(self._or_home(self.forkserver_socket, "run/steps.sock"))

    @property
    def replicas(self) -> list[str]:
        return [url.strip().rstrip("/") for url in self.serving_urls.split(",") if url.strip()]


def load_settings() -> Settings:
    """The settings of this process's environment, the code's commit looked up.

    Raises ConfigError for an unknown `CT_*` or a bad value.
    """
    known = {PREFIX + field.upper() for field in Settings.model_fields}
    unknown = sorted(key for key in os.environ if key.startswith(PREFIX) and key not in known)
    if unknown:
        raise ConfigError(f"Unknown setting {', '.join(unknown)}", hint=f"Known: {', '.join(sorted(known))}.")
    try:
        settings = Settings()
    except ValidationError as error:
        problems = "; ".join(f"{PREFIX}{str(e['loc'][0]).upper()}: {e['msg']}" for e in error.errors())
        raise ConfigError(f"Settings are wrong: {problems}", hint="Correct these environment variables.") from error
    return settings.model_copy(update={"git_sha": settings.git_sha or _commit(ROOT)})


@cache
def _commit(folder: Path) -> str | None:
    """Asked once per process: the scheduler loads the settings with every DAG file."""
    command = ["git", "-C", str(folder), "rev-parse", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=5).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
