"""Where things are and how programs run here: the `CT_*` environment variables, validated once and frozen.

The settings come in roles, and code takes the role that it needs: steps and adapters `StateSettings`, the prediction
service `ServingSettings`, Airflow's launchers `LauncherSettings`. `Settings` is all of them. How a model is trained and
judged is not a setting; that is in its spec (training/models).
"""

import os
import re
import subprocess
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, Field, SecretStr, ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, SettingsConfigDict

from training import storage
from training.contract.artifact import MAXIMUM_MIB
from training.contract.errors import ConfigError
from training.contract.model_spec import MODELS_DIR
from training.contract.names import DEFAULT_SERVICE, NAME_PATTERN, did_you_mean

PREFIX = "CT_"
#: Settings of the version before → what replaces them.
_REPLACED = {"CT_SERVING_MODEL": "CT_SERVING_MODELS, a list of models or *"}
#: An entry of CT_SERVING_URLS for another service than the default one.
NAMED_URL = re.compile(r"([a-z][a-z0-9_]*)\s*=\s*(.*)")
ROOT = Path(__file__).parent.parent
#: Marks a field of StateSettings whose value a step pod has on its own.
IN_THE_IMAGE: dict[str, Any] = {"in_the_image": True}


def _on_a_disk(path: str) -> str:
    if "://" in path:
        raise ValueError(f"{path} is not a path. This must be kept on a disk; a shared volume will do")
    return path


def _listed(text: str) -> list[str]:
    return [part for part in map(str.strip, text.split(",")) if part]


def _urls(text: str) -> str:
    for entry in _listed(text):
        name, equals, _ = entry.partition("=")
        if equals and "://" not in name and not NAMED_URL.fullmatch(entry):
            raise ValueError(f"{name.strip()!r} is not the name of a service. Write <service>=<url>, or a URL")
    return text


def _models(text: str) -> str:
    names = _listed(text)
    if not names or ("*" in names and len(names) > 1):
        raise ValueError("write the names of models, comma separated, or * alone for all of the service")
    for name in names:
        if name != "*" and not re.fullmatch(NAME_PATTERN, name):
            raise ValueError(f"{name!r} is not the name of a model")
    return text


def _without_token(url: str) -> str:
    if "token=" in url:
        raise ValueError("it must not hold the token: give it in SPARK_CONNECT_AUTHENTICATE_TOKEN, from a Secret")
    return url


Folder = Annotated[Path, AfterValidator(lambda path: path.expanduser().absolute())]
OnDisk = Annotated[str, AfterValidator(_on_a_disk)]


class StateSettings(BaseSettings):
    """Where the state is, and where the prediction service is for those who call it.

    One field per `CT_*` variable. URIs left empty are folders under `home`.
    """

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="forbid", protected_namespaces=())

    home: Folder = ROOT / ".perennial"
    """The folder of everything that has no setting of its own."""
    models_dir: Folder = MODELS_DIR
    """Model specs, <m>.yaml."""
    feature_repo: Folder = ROOT / "feature_repo"
    """feature_store.yaml, and for each source <s>.yaml, <s>.py and <s>.sql."""

    landing_uri: str = ""
    """Files land at <landing>/<source>/<feed>/<partition>.parquet."""
    landed_maximum_bytes: int = Field(1 << 36, ge=1)
    """A landed file whose rows take more bytes, uncompressed, is refused, also when its content is small. Ingest reads
    it in batches: its memory does not grow with the file."""
    lake_uri: str = ""
    """Delta tables, <lake>/<source>/<table> and <lake>/<source>/predictions/<model>."""
    work_uri: str = ""
    """Datasets, artifacts, reports, pages about partitions: everything that can be computed again from the lake."""
    results_uri: str = ""
    """Where steps write their reports for Airflow; empty: results/ in the work folder."""
    ledger_uri: str = ""
    """Requests, decisions, rollouts: one file per entry, chained by hashes."""

    engine: str = Field("duckdb", pattern=r"^[a-z][a-z0-9_]*$")
    """What computes features and joins them to events: `duckdb`, in the step's process; `spark`, on a cluster, where
    `ingest` also checks the rows and `score` runs the model; or an engine of another package."""
    engine_url: Annotated[str, AfterValidator(_without_token)] = ""
    """Where the engine is: for `spark` the URL of a Spark Connect server, such as `sc://spark:15002`."""

    tracking_uri: str = "http://127.0.0.1:5000"
    """The MLflow server."""
    mlflow_url: str = ""
    """Where people open MLflow, for the links in task logs; empty: `tracking_uri`."""
    feast_registry: OnDisk = ""
    """Feast's registry file."""
    online_store: str = ""
    """Feast's online store: `redis://host:port/db`, or the path of an SQLite file."""

    serving_urls: Annotated[str, AfterValidator(_urls)] = "http://127.0.0.1:3000"
    """Every replica of the prediction service, comma separated; `dns+http://name:port` is all addresses of the name.
    `<service>=<url>` is a replica of the service with this name, for models whose spec says `serving: <service>`."""
    serving_api_key: SecretStr | None = None
    """The API key that the steps send to the prediction service."""
    releasers: str = ""
    """The Airflow users, comma separated, who may roll back, force a training and decide about a version's approval.
    Empty: everyone whom Airflow allows."""

    artifact_maximum_mib: int = Field(MAXIMUM_MIB, ge=1)
    """In MiB: an artifact with a larger file, or whose graph has larger constants, is not loaded."""

    trusted_keys: str = ""
    """Public keys, comma separated, of which one must have signed a model version before it is loaded: PEM, or what
    stands between its first and last line. Empty: signatures are not checked. See docs/security.md."""
    signing_key_file: str = Field("", json_schema_extra=IN_THE_IMAGE)
    """The file with the private key, PEM, that signs model versions: for the step `register` and `make sign` alone."""
    signing_key_password: SecretStr | None = None
    """The password of that file."""

    git_sha: str | None = Field(None, json_schema_extra=IN_THE_IMAGE)
    """The commit of the code. Empty: read from the Git repository around the code, if there is one."""
    image: str | None = None
    """The image that steps run in. It is recorded with their results, and step pods run it."""
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """Less severe log messages are left out."""

    @property
    def may_serve(self) -> bool:
        """Whether what is trained here may serve one day. If not, runs have no pictures and pages: nobody would look at
        them, and they take longer than many fits."""
        return True

    def _or_home(self, value: str, default: str) -> str:
        return value or str(self.home / default)

    @property
    def landing(self) -> str:
        return self._or_home(self.landing_uri, "landing")

    @property
    def lake(self) -> str:
        return self._or_home(self.lake_uri, "lake")

    @property
    def work(self) -> str:
        return self._or_home(self.work_uri, "work")

    @property
    def scratch(self) -> Path:
        """The local folder that steps work in: `work`, or a folder of `home` when `work` is an object store."""
        return self.home / "work" if storage.is_remote(self.work) else storage.local(self.work)

    @property
    def results(self) -> str:
        return self.results_uri or f"{self.work.rstrip('/')}/results"

    @property
    def ledger(self) -> str:
        return self._or_home(self.ledger_uri, "ledger")

    @property
    def feature_registry(self) -> str:
        return self._or_home(self.feast_registry, "feast/registry.db")

    @property
    def online(self) -> str:
        return self._or_home(self.online_store, "feast/online.db")

    def replicas(self, service: str | None = DEFAULT_SERVICE) -> list[str]:
        """The URLs of the replicas of `service`. None, for a model that no service serves: there are none.

        Raises ConfigError when CT_SERVING_URLS has none of a service that is not the default one.
        """
        if service is None:
            return []
        found = list[str]()
        for entry in _listed(self.serving_urls):
            named = NAMED_URL.fullmatch(entry)
            name, url = named.groups() if named else (DEFAULT_SERVICE, entry)
            if name == service:
                found.append(url.strip().rstrip("/"))
        if not found and service != DEFAULT_SERVICE:
            hint = f"Add {service}=<url> to CT_SERVING_URLS, or change `serving` in the model spec."
            raise ConfigError(f"CT_SERVING_URLS names no replica of the prediction service {service}", hint)
        return found


class ServingSettings(StateSettings):
    """What a replica of the prediction service needs besides the state."""

    serving_models: Annotated[str, AfterValidator(_models)] = "*"
    """The models that a prediction service serves, comma separated; `*`: all whose spec has its name in `serving`."""
    serving_maximum_models: int = Field(0, ge=0)
    """Models in memory at a time. Beyond this, the least recently used are unloaded; their next request loads them from
    the replica's disk. 0: all models stay in memory."""
    serving_name: str = Field(DEFAULT_SERVICE, pattern=NAME_PATTERN)
    """The name of the prediction service."""
    serving_management_port: int = Field(0, ge=0, le=65535)
    """A second port, on all interfaces, that answers for /metrics, the OpenAPI page and /admin too. The port of
    predictions then answers 404 for them. 0: one port for all."""
    serving_poll_seconds: float = Field(1.0, gt=0)
    """Seconds between two reads of the registry's aliases."""
    serving_state: OnDisk = ""
    """The folder with the last good copies of models, and with predictions that are not in the lake yet."""

    serving_load_mib: int = Field(1024, ge=64)
    """Memory that the first load of a version may take beyond the artifact's libraries, in MiB. It runs in a separate
    process, whose death does not stop the service. Keep twice that free beside the versions in memory."""
    serving_load_seconds: float = Field(30.0, gt=0)
    """Time limit for the first load of a version and the scores of its golden rows."""

    serving_ship_seconds: float = Field(60.0, gt=0)
    """Seconds after which predictions are put into the lake, or sooner when there are many. Each time adds a commit and
    a file. Until then they are on the replica's disk, and monitoring and a rollout's quality guard lack them."""

    serving_lookup_seconds: float = Field(0.5, gt=0)
    """Time limit for a lookup of up to 100 events in the online store. A larger one gets proportionally more."""
    serving_store_down: Literal["refuse", "defaults"] = "refuse"
    """When the online store is slow or down: answer 503, or answer from the features' defaults and say so."""
    serving_deadline_seconds: float = Field(10.0, gt=0)
    """A request that cannot be answered in this time is refused with 503."""
    serving_maximum_in_flight: int = Field(256, ge=1)
    """Requests in progress at a time; further ones are refused with 503 and Retry-After."""
    serving_maximum_lag_seconds: float = Field(1.0, gt=0)
    """Requests are also refused while earlier ones wait longer than this before they are scored."""
    serving_drain_seconds: float = Field(0.0, ge=0)
    """After SIGTERM the service is not ready but still answers for this long, before it stops listening. Set it longer
    than the period of the readiness probe."""
    serving_pinning: bool = False
    """Whether a request may choose the version that answers, by the header X-Perennial-Version."""
    serving_explain: bool = False
    """Whether /predict?explain=true is answered."""
    serving_keys_file: str = ""
    """A file of hashed API keys (`make api-key`) that says who may call. It is read again when it changes. Empty: no
    key is needed."""
    serving_trusted_header: str = ""
    """The header in which a gateway names the callers that it has authenticated. The gateway must remove this header
    from the requests that it receives."""
    serving_trusted_peers: str = ""
    """Addresses or networks from which the trusted header is accepted, comma separated. Empty: from everywhere."""

    @property
    def serving(self) -> str:
        return self._or_home(self.serving_state, "serving")

    @property
    def listed_models(self) -> list[str] | None:
        """The models that CT_SERVING_MODELS lists; None for `*`."""
        listed = _listed(self.serving_models)
        return None if listed == ["*"] else listed


class LauncherSettings(StateSettings):
    """What Airflow needs to run steps, besides the state."""

    launcher: str = Field("subprocess", pattern=r"^[a-z][a-z0-9_]*$")
    """How Airflow runs a step: `subprocess`, a child process of the task; `forkserver`, a process that the step server
    forks; `pod`, a pod of CT_IMAGE; or a launcher of another package."""
    forkserver_socket: OnDisk = ""
    """Where the step server listens (`python -m training.forkserver`)."""
    pod_namespace: str = ""
    """The namespace of step pods; empty: the namespace of Airflow's own pod, or of the connection."""
    pod_connection: str = ""
    """Airflow's connection to the cluster; empty: the service account of Airflow's own pod, or else KUBECONFIG."""
    pod_service_account: str = ""
    """The service account of step pods. Its token is not mounted."""
    pod_user: int = Field(10001, ge=1)
    """The user of the training image. Its group, and the volume's, is 0."""
    pod_image_pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    """When a node pulls CT_IMAGE."""
    pod_image_pull_secrets: str = ""
    """Names of the Secrets with which CT_IMAGE is pulled, comma separated."""
    pod_config_map: str = ""
    """A ConfigMap whose keys become environment variables of step pods. A `CT_*` variable of the task overrides it."""
    pod_secrets: str = ""
    """Names of Secrets, comma separated, whose keys become environment variables of step pods."""
    pod_signing_secret: str = ""
    """The name of a Secret with the key `signing-key.pem`, the private key that signs model versions. Pods of the step
    `register` mount it, and no others."""
    pod_volume_claim: str = ""
    """The PersistentVolumeClaim with the shared state; not needed when all of it is in an object store."""
    pod_volume_path: str = ""
    """Where it is mounted; empty: CT_HOME."""
    pod_priority_class: str = ""
    """The priority class of step pods whose model spec names none."""
    pod_keep_failed_seconds: int = Field(86_400, ge=0)
    """How long a failed step pod is kept for inspection."""

    @property
    def step_server(self) -> Path:
        return Path(self._or_home(self.forkserver_socket, "run/steps.sock"))


class BackupSettings(StateSettings):
    """What `make backup` and `make restore` need besides the state."""

    backup_uri: str = ""
    """The folder of backups, each in a folder of its own; empty: `<home>-backups`."""
    backup_registry_database: SecretStr | None = None
    """MLflow's database, `sqlite:///<path>` or `postgresql://<user>:<password>@<host>/<name>`; empty: mlflow/mlflow.db
    in home."""
    backup_airflow_database: SecretStr | None = None
    """Airflow's database, in the same form; empty: airflow/airflow.db in home."""
    backup_artifacts_uri: str = ""
    """Where MLflow's server keeps its artifacts; empty: mlflow/artifacts in home."""

    @property
    def backups(self) -> str:
        return self.backup_uri or f"{self.home}-backups"

    @property
    def registry_database(self) -> str:
        given = self.backup_registry_database
        return given.get_secret_value() if given else f"sqlite:///{self.home}/mlflow/mlflow.db"

    @property
    def airflow_database(self) -> str:
        given = self.backup_airflow_database
        return given.get_secret_value() if given else f"sqlite:///{self.home}/airflow/airflow.db"

    @property
    def artifacts(self) -> str:
        return self._or_home(self.backup_artifacts_uri, "mlflow/artifacts")


class Settings(ServingSettings, LauncherSettings, BackupSettings):
    """All roles."""


#: The roles, each with its title in docs/reference.md.
ROLES: Mapping[str, type[StateSettings]] = {
    "State": StateSettings,
    "Prediction service": ServingSettings,
    "Launchers": LauncherSettings,
    "Backups": BackupSettings,
}


def variable(field: str) -> str:
    """The environment variable of a field."""
    return PREFIX + field.upper()


#: The variables with the private key.
SIGNING = (variable("signing_key_file"), variable("signing_key_password"))


def own_fields(role: type[StateSettings]) -> dict[str, FieldInfo]:
    """The fields of a role, without those that it shares with the state role."""
    shared = () if role is StateSettings else StateSettings.model_fields
    return {name: field for name, field in role.model_fields.items() if name not in shared}


def is_secret(field: FieldInfo) -> bool:
    """Whether the type of a field says that its value is a secret."""
    return SecretStr in (field.annotation, *get_args(field.annotation))


def load_settings() -> Settings:
    """The settings of this process's environment, with the commit of the code filled in.

    Raises ConfigError for an unknown `CT_*` variable or a bad value.
    """
    known = {variable(name) for name in Settings.model_fields}
    unknown = sorted(key for key in os.environ if key.startswith(PREFIX) and key not in known)
    if unknown:
        replaced = [f"{key} is now {_REPLACED[key]}." for key in unknown if key in _REPLACED]
        meant = "".join(did_you_mean(key, known) for key in unknown if key not in _REPLACED).strip()
        hint = " ".join([*replaced, *([meant] if meant else []), f"Known: {', '.join(sorted(known))}."])
        raise ConfigError(f"Unknown setting {', '.join(unknown)}", hint)
    try:
        settings = Settings()
    except ValidationError as error:
        problems = "; ".join(f"{variable(str(e['loc'][0]))}: {e['msg']}" for e in error.errors())
        raise ConfigError(f"Settings are wrong: {problems}", hint="Correct these environment variables.") from error
    return settings.model_copy(update={"git_sha": settings.git_sha or _commit(ROOT)})


@cache
def _commit(folder: Path) -> str | None:
    """The commit that is checked out, or None. Cached: the scheduler loads the settings with every DAG file."""
    command = ["git", "-C", str(folder), "rev-parse", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=5).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
