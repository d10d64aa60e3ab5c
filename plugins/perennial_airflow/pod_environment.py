"""Which settings the manifest of a step's pod has."""

from collections.abc import Mapping
from urllib.parse import parse_qs, urlsplit

from training.settings import IN_THE_IMAGE, NAMED_URL, StateSettings, is_secret, variable


def pod_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """The variables of `environ` that the manifest of a step's pod sets: the state role's, without secrets.

    Many people can read a pod's manifest. So a secret is left out: a field of the type SecretStr, and a URL with a
    password. Pods get secrets from the Secrets that CT_POD_SECRETS names.
    """
    shared = {
        variable(name)
        for name, field in StateSettings.model_fields.items()
        if not is_secret(field) and field.json_schema_extra != IN_THE_IMAGE
    }
    return {name: value for name, value in environ.items() if name in shared and not _has_password(value)}


def _has_password(value: str) -> bool:
    """Whether `value`, or one of the URLs in it, comma separated, has a password. True for one that cannot be read."""
    try:
        parts = [part.strip() for part in value.split(",")]
        named = [found[2] for part in parts if (found := NAMED_URL.fullmatch(part))]
        urls = [urlsplit(url) for url in (value, *parts, *named)]
        return any(url.password is not None or "password" in parse_qs(url.query) for url in urls)
    except ValueError:
        return True
