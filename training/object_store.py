"""How the clients of an object store are set up, from one environment.

State in an object store has three clients: obstore (training/storage.py), delta-rs (training/adapters/lake.py) and, for
the rows of tables, Arrow. The first two read the same variables by themselves, such as `AWS_REGION`,
`AWS_ENDPOINT_URL`, `AWS_SKIP_SIGNATURE` and `AWS_VIRTUAL_HOSTED_STYLE_REQUEST`. Arrow knows few of them:
`arrow_filesystem` passes them on. obstore reads no profile of `~/.aws`: `client_options` does, for all. Roles of a
machine, of a pod and of a web identity are found by each client itself.

Arrow's file systems are in C++. That of delta-rs is in Python, and no table may be read through it: pyarrow starts a
scan, as DuckDB asks it to, without letting other threads run Python meanwhile. If one of them holds the scan's lock and
needs Python to open a file, the two deadlock.
"""

import configparser
import json
import math
import os
import re
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import SplitResult, urlsplit
from urllib.request import getproxies, proxy_bypass

from training.contract.errors import ConfigError, StepError, TransientError

if TYPE_CHECKING:
    import pyarrow.fs as fs

#: How long a client retries by itself. After that the error is transient, and the step is retried.
RETRY_TIMEOUT = timedelta(seconds=20)
_CONNECT_SECONDS: Final = 5
_REQUEST_SECONDS: Final = 30
#: Object stores sign with a region, also those that have none.
_DEFAULT_REGION: Final = "us-east-1"

SCHEMES_HINT: Final = "Use a local path, s3://, gs:// or az://."
KEYS_HINT: Final = "Give this process credentials that may read and write there (AWS_ACCESS_KEY_ID, …)."

#: What Arrow says, in errors of pyarrow and of what reads through it, when a store does not answer or is overloaded.
_NO_ANSWER: Final = re.compile(
    r"AWS Error (NETWORK_CONNECTION|SLOW_DOWN|SERVICE_UNAVAILABLE|INTERNAL_FAILURE|REQUEST_TIMEOUT|THROTTLING)"
    r"|AWS Error [^\n]*(HTTP status 5\d\d|curlCode)"
    r"|google::cloud::Status\((UNAVAILABLE|DEADLINE_EXCEEDED|INTERNAL|RESOURCE_EXHAUSTED)"
    r"|Azure Error[^\n]*(5\d\d|[Cc]onnect)"
)
_REFUSED: Final = re.compile(
    r"AWS Error (ACCESS_DENIED|INVALID_ACCESS_KEY_ID|SIGNATURE_DOES_NOT_MATCH|INVALID_CLIENT_TOKEN_ID|MISSING_AUTH\w+"
    r"|UNRECOGNIZED_CLIENT|REQUEST_EXPIRED)"
    r"|AWS Error [^\n]*HTTP status 40[13]"
    r"|google::cloud::Status\((PERMISSION_DENIED|UNAUTHENTICATED)"
    r"|Azure Error[^\n]*(40[13]|Authenticat|Authoriz)"
)


def client_options(uri: str) -> dict[str, str]:
    """What obstore and delta-rs must be told about the store of `uri` beside what they read from the environment: of S3
    the keys of a profile, unless the environment has keys.

    Raises ConfigError when the profile that AWS_PROFILE names has no keys.
    """
    return _profile() if urlsplit(uri).scheme in ("s3", "s3a") else {}


def arrow_filesystem(uri: str) -> "fs.FileSystem":
    """Arrow's own file system for the folder `uri`, with the settings that obstore and delta-rs take.

    Raises ConfigError when a setting cannot be passed on to Arrow.
    """
    import pyarrow.fs as fs

    scheme, _, path = uri.partition("://")
    opening = _FILESYSTEMS.get(scheme)
    if opening is None:
        raise ConfigError(f"{uri} is in no object store whose tables can be read", SCHEMES_HINT)
    return fs.SubTreeFileSystem(path.rstrip("/"), opening(path.partition("/")[0]))


def read_error(error: BaseException) -> StepError | None:
    """The error of the step contract for what was raised while a table was read through Arrow; None where the store is
    not the reason."""
    said = str(error)
    if _REFUSED.search(said):
        return ConfigError(f"The object store refuses access: {said:.500}", KEYS_HINT)
    if _NO_ANSWER.search(said):
        return TransientError(f"The object store did not answer: {said:.500}", hint="Check the store, then retry.")
    return None


def _s3(bucket: str) -> "fs.FileSystem":
    import pyarrow.fs as fs

    options: dict[str, Any] = {}
    keys = {name: _setting(f"AWS_{name.upper()}") for name in ("access_key_id", "secret_access_key", "session_token")}
    profile = _profile()
    if _is_on("AWS_SKIP_SIGNATURE"):
        options["anonymous"] = True
    elif found := profile or {f"aws_{name}": value for name, value in keys.items() if value}:
        options["access_key"] = found.get("aws_access_key_id")
        options["secret_key"] = found.get("aws_secret_access_key")
        options["session_token"] = found.get("aws_session_token")
    region = _setting("AWS_REGION", "AWS_DEFAULT_REGION") or profile.get("aws_region", _DEFAULT_REGION)
    endpoint = urlsplit(_setting("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"))
    host = endpoint.netloc
    if _is_on("AWS_VIRTUAL_HOSTED_STYLE_REQUEST"):
        # The other clients want the bucket's name in the endpoint. Arrow puts it there.
        options["force_virtual_addressing"], host = True, host.removeprefix(f"{bucket}.")
    if host:
        options |= {"endpoint_override": host, "scheme": endpoint.scheme}
    if proxy := _proxy(endpoint.scheme or "https", endpoint.hostname or f"s3.{region}.amazonaws.com"):
        options["proxy_options"] = proxy
    return fs.S3FileSystem(
        region=region,
        connect_timeout=_CONNECT_SECONDS,
        request_timeout=_REQUEST_SECONDS,
        retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=_attempts()),
        **options,
    )


def _attempts() -> int:
    """Amazon's client counts attempts. It waits for up to 1 s before the second and twice as long before each other."""
    return 1 + int(math.log2(1 + RETRY_TIMEOUT.total_seconds()))


def _profile() -> dict[str, str]:
    """The keys and the region of the AWS profile to use, by the names that delta-rs knows; empty without one."""
    if _setting("AWS_ACCESS_KEY_ID") or _is_on("AWS_SKIP_SIGNATURE"):
        return {}
    others = ("AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI")
    granted = _setting(*others, "AWS_CONTAINER_CREDENTIALS_FULL_URI")
    name = _setting("AWS_PROFILE")
    if granted and not name:
        return {}
    found: dict[str, str] = {}
    files = {"AWS_CONFIG_FILE": "config", "AWS_SHARED_CREDENTIALS_FILE": "credentials"}
    for variable, file in files.items():
        parser = configparser.RawConfigParser()
        path = Path(_setting(variable) or f"~/.aws/{file}").expanduser()
        try:
            parser.read(path)
        except (configparser.Error, UnicodeDecodeError) as error:
            raise ConfigError(f"{path} is not a file of AWS profiles: {error}", KEYS_HINT) from error
        for section in (name or "default", f"profile {name}"):
            if parser.has_section(section):
                found |= dict(parser.items(section))
    wanted = ("aws_access_key_id", "aws_secret_access_key", "aws_session_token")
    keys = {each: found[each] for each in wanted if each in found}
    if name and not keys and not granted:
        command = f"aws configure export-credentials --profile {name} --format env"
        problem = f"The AWS profile {name} (AWS_PROFILE) has no keys in ~/.aws/credentials or ~/.aws/config"
        raise ConfigError(problem, f"Put its keys into the environment: `eval $({command})`.")
    if keys and "region" in found and not _setting("AWS_REGION", "AWS_DEFAULT_REGION"):
        keys["aws_region"] = found["region"]
    return keys


def _gcs(bucket: str) -> "fs.FileSystem":
    import pyarrow.fs as fs

    options: dict[str, Any] = {"retry_time_limit": RETRY_TIMEOUT}
    path = _setting("GOOGLE_SERVICE_ACCOUNT", "GOOGLE_SERVICE_ACCOUNT_PATH")
    text = _setting("GOOGLE_SERVICE_ACCOUNT_KEY")
    account = json.loads(text or Path(path).read_text()) if text or path else {}
    endpoint: SplitResult = urlsplit(_setting("GOOGLE_BASE_URL") or account.get("gcs_base_url", ""))
    if endpoint.netloc:
        options |= {"endpoint_override": endpoint.netloc, "scheme": endpoint.scheme}
    if _is_on("GOOGLE_SKIP_SIGNATURE") or account.get("disable_oauth"):
        options["anonymous"] = True
    elif account:
        # Arrow finds the key of a service account by this name alone.
        if not path:
            hint = "Put it into a file and name that in GOOGLE_APPLICATION_CREDENTIALS."
            raise ConfigError("Arrow does not read a key from GOOGLE_SERVICE_ACCOUNT_KEY", hint)
        os.environ.setdefault("GOOGLE_APPLICATION_CREDENTIALS", path)
    return fs.GcsFileSystem(**options)


def _azure(container: str) -> "fs.FileSystem":
    import pyarrow.fs as fs

    if _is_on("AZURE_STORAGE_USE_EMULATOR", "AZURE_USE_EMULATOR"):
        hint = "Set AZURE_STORAGE_ENDPOINT, AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY instead."
        raise ConfigError("Arrow does not know AZURE_STORAGE_USE_EMULATOR", hint)
    account = _setting("AZURE_STORAGE_ACCOUNT_NAME")
    if not account:
        raise ConfigError(f"No account for az://{container}", "Set AZURE_STORAGE_ACCOUNT_NAME.")
    options: dict[str, Any] = {}
    if key := _setting("AZURE_STORAGE_ACCOUNT_KEY", "AZURE_STORAGE_ACCESS_KEY", "AZURE_STORAGE_MASTER_KEY"):
        options["account_key"] = key
    elif token := _setting("AZURE_STORAGE_SAS_KEY", "AZURE_STORAGE_SAS_TOKEN"):
        options["sas_token"] = "?" + token.removeprefix("?")
    elif not _setting("AZURE_FEDERATED_TOKEN_FILE"):  # Arrow reads those of a federated token itself.
        options["client_id"] = _setting("AZURE_STORAGE_CLIENT_ID", "AZURE_CLIENT_ID") or None
        if secret := _setting("AZURE_STORAGE_CLIENT_SECRET", "AZURE_CLIENT_SECRET"):
            options["client_secret"] = secret
            options["tenant_id"] = _setting("AZURE_STORAGE_TENANT_ID", "AZURE_TENANT_ID", "AZURE_STORAGE_AUTHORITY_ID")
    if (endpoint := urlsplit(_setting("AZURE_STORAGE_ENDPOINT", "AZURE_ENDPOINT"))).netloc:
        host = endpoint.netloc
        authority = host.removeprefix(account) if host.startswith(f"{account}.") else host
        options |= {f"{kind}_storage_authority": authority for kind in ("blob", "dfs")}
        options |= {f"{kind}_storage_scheme": endpoint.scheme for kind in ("blob", "dfs")}
    return fs.AzureFileSystem(account, **options)


_FILESYSTEMS: Final[dict[str, Callable[[str], "fs.FileSystem"]]] = {
    "s3": _s3,
    "s3a": _s3,
    "gs": _gcs,
    "az": _azure,
    "azure": _azure,
}


def _setting(*names: str) -> str:
    """The first of these variables that is set; empty when none is."""
    return next((value for name in names if (value := os.environ.get(name, ""))), "")


def _is_on(*names: str) -> bool:
    return _setting(*names).lower() in ("1", "true", "t", "yes", "y", "on")


def _proxy(scheme: str, host: str) -> str | None:
    """The proxy on the way to `host`. The other clients find it by themselves."""
    found = getproxies()
    return None if proxy_bypass(host) else found.get(scheme, found.get("all"))
