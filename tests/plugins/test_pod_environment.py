"""What the manifest of a step's pod sets: the settings of the state, and no secret."""

import pytest
from perennial_airflow.pod_environment import pod_environment

from training.settings import Settings, StateSettings, is_secret, variable


def test_no_secret_gets_into_the_plain_environment_of_a_pod() -> None:
    urls = {"tracking_uri", "mlflow_url", "online_store", "serving_urls", "ledger_uri", "lake_uri"}
    values = dict.fromkeys(Settings.model_fields, "a-secret")
    values |= dict.fromkeys(urls, "https://user:a-secret@host")
    secrets = {name for name, field in Settings.model_fields.items() if is_secret(field)}
    assert "serving_api_key" in secrets
    environment = pod_environment({variable(name): value for name, value in values.items()})
    assert not environment.keys() & {variable(name) for name in secrets | urls}


def test_a_password_in_any_of_several_urls_keeps_the_setting_out() -> None:
    several = {"CT_SERVING_URLS": "http://a:3000,http://me:secret@b:3000"}
    assert pod_environment(several) == {}
    assert pod_environment({"CT_SERVING_URLS": "http://a:3000,flights=http://me:secret@b:3000"}) == {}
    assert pod_environment({"CT_SERVING_URLS": "http://a:3000,http://b:3000"}) != {}


@pytest.mark.parametrize(
    "url",
    ["redis://:a,b@h:1/0", "http://u:p,q@mlflow", "redis://:a[b@h", "redis://h/0?password=x", "http://u:p@h,http://b"],
)
def test_a_password_with_any_character_keeps_the_setting_out(url: str) -> None:
    assert pod_environment({"CT_TRACKING_URI": url, "CT_ONLINE_STORE": url, "CT_LAKE_URI": "s3://lake"}) == {
        "CT_LAKE_URI": "s3://lake"
    }


def test_a_pod_gets_the_state_and_neither_the_services_nor_the_launchers_settings() -> None:
    environment = pod_environment({variable(name): "x" for name in Settings.model_fields} | {"PATH": "/bin"})
    # The pod of the step register gets the signing key as a mounted Secret.
    signing = {"signing_key_file", "signing_key_password"}
    expected = StateSettings.model_fields.keys() - {"serving_api_key", "git_sha"} - signing
    assert environment.keys() == {variable(name) for name in expected}
