"""The `CT_*` of the ConfigMap are settings that the code knows, with values that it takes."""

from tests.helm.chart import CHART, PRODUCTION, Manifest, merged, named, pods, render
from tests.helm.conftest import LOCAL, MATRIX
from training.contract.model_spec import model_names
from training.settings import PREFIX, Settings


def _settings(manifests: list[Manifest]) -> dict[str, str]:
    data = named(manifests, "ConfigMap", "perennial-settings")["data"]
    return {name: value for name, value in data.items() if name.startswith(PREFIX)}


def _load(values: dict[str, str]) -> Settings:
    return Settings(**{name.removeprefix(PREFIX).lower(): value for name, value in values.items()})


def test_every_setting_is_known_and_its_value_taken(manifests: list[Manifest]) -> None:
    found = _settings(manifests)
    assert {name.removeprefix(PREFIX).lower() for name in found} <= set(Settings.model_fields)
    _load(found)
    for _, pod in pods(manifests):
        for container in pod["spec"]["containers"]:
            # A value from a Secret can be any text.
            own = {e["name"]: e.get("value", "secret") for e in container["env"] if e["name"].startswith(PREFIX)}
            _load({**found, **own})


def test_everything_that_lasts_is_where_the_values_say() -> None:
    uris = {name: f"s3://bucket/{name}" for name in ("landing", "lake", "work", "ledger")}
    settings = _load(_settings(render(PRODUCTION)))
    assert {name: getattr(settings, name) for name in uris} == uris
    settings = _load(_settings(render(LOCAL)))
    assert {getattr(settings, name) for name in uris} == {f"/var/lib/perennial/{name}" for name in uris}


def test_keys_that_verify_reach_everything_and_the_one_that_signs_no_object_of_the_chart() -> None:
    from training.adapters.signatures import TrustedKeys

    manifests = render(MATRIX["namespaces"])
    for each in manifests:
        if each["kind"] == "ConfigMap" and each["metadata"]["name"] == "perennial-settings":
            data = each["data"]
            assert len(TrustedKeys(data["CT_TRUSTED_KEYS"]).ids) == 1  # the same twice
            assert data["CT_POD_SIGNING_SECRET"] == "signing"
    for _, pod in pods(manifests):
        mounted = [volume["secret"]["secretName"] for volume in pod["spec"].get("volumes", []) if "secret" in volume]
        assert "signing" not in mounted
        for container in pod["spec"]["containers"]:
            assert "signing" not in str(container.get("envFrom", []))


def test_no_value_names_a_model() -> None:
    text = "".join(path.read_text() for path in CHART.rglob("values*.yaml"))
    assert [name for name in model_names(Settings().models_dir) if name in text] == []


def test_more_settings_and_environment_reach_everything() -> None:
    values = merged(PRODUCTION, {"settings": {"CT_LOG_LEVEL": "DEBUG"}, "env": {"AWS_REGION": "eu-central-1"}})
    data = named(render(values), "ConfigMap", "perennial-settings")["data"]
    assert (data["CT_LOG_LEVEL"], data["AWS_REGION"]) == ("DEBUG", "eu-central-1")
    _load(_settings(render(values)))
