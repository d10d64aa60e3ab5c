"""Where things are: `CT_*` environment variables, validated once, frozen. How things are done is the model spec's."""

import os
import subprocess
from functools import cache, cached_property
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError, field_validator
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

    launcher: Literal["subprocess", "forkserver"] = "subprocess"
    """How Airflow runs a step: a process of its own interpreter, or one forked by the step server."""
    forkserver_socket: str = ""
    """Where the step server listens (`python -m training.forkserver`)."""
    git_sha: str | None = None
    """The code's commit. Unset: asked of the repository that the code lies in, if any."""
    image: str | None = None
    """The image that a step runs in, for its provenance."""
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"

    @field_validator("home", "models_dir", "feature_repo")
    @classmethod
    def _absolute(cls, path: Path) -> Path:
        return path.expanduser().absolute()

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
        raise ConfigError(f"Settings are wrong: {problems}", hint="Mend these environment variables.") from error
    return settings.model_copy(update={"git_sha": settings.git_sha or _commit(ROOT)})


@cache
def _commit(folder: Path) -> str | None:
    """Asked once per process: the scheduler loads the settings with every DAG file."""
    command = ["git", "-C", str(folder), "rev-parse", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=5).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
