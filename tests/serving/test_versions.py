"""Versions with other features than each other's and than the code on disk, on the real service: no request fails.

The tests run in order on one stack. Its feature repo and its model spec are copies, which the tests change while the
service runs.
"""

import shutil
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from testing.http_client import http
from testing.serving_artifacts import CUSTOMER, EVENT
from testing.serving_stack import Stack, changed, fill_online_store, running_stack
from testing.spec_files import Raw, spec_files
from testing.waiting import eventually
from tests.feature_repo.written_by_hand import BY_HAND
from tests.serving.prediction_rows import logged_rows
from training.adapters.features import Features
from training.adapters.lake import Lake
from training.adapters.registry import ModelVersion
from training.contract.messages import RollbackInputs, RolloutInputs
from training.contract.model_spec import load_model_spec
from training.contract.traffic import Desired
from training.steps import rollback, rollout

pytestmark = pytest.mark.long

SOURCE, MODEL = "card_payments", "card_fraud"
#: A request feature and a column more.
MORE = (
    (
        '        Field(name="night", dtype=Float32),',
        '        Field(name="large", dtype=Float32),\n        Field(name="night", dtype=Float32),',
    ),
    ('"night": hours % 24 <= 6,', '"night": hours % 24 <= 6,\n        "large": amount > 30,'),
    (
        '        Field(name="customer_mean_1d"',
        '        Field(name="customer_count_14d", dtype=Float32),\n        Field(name="customer_mean_1d"',
    ),
)
#: One less.
LESS = (
    ('        Field(name="weekend", dtype=Float32),  # 1 on Saturday and Sunday, UTC\n', ""),
    ('        "weekend": (hours // 24 + 3) % 7 >= 5,\n', ""),
)
#: The terminals' features in a view of another name.
RENAMED = (
    ('name="terminal_features"', 'name="terminal_risk"'),
    ('_source("terminal_features")', '_source("terminal_risk")'),
)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("versions")

    def nullable(model: Raw, source: Raw) -> None:
        source["feeds"]["events"]["columns"]["customer_id"]["nullable"] = True

    with running_stack(folder, **spec_files(folder, nullable, BY_HAND)) as running:
        fill_online_store(running.settings, running.spec)
        running.promote(running.register(bias=-1.0))
        yield running


def change(stack: Stack, *changes: tuple[str, str]) -> None:
    """Change the definitions on disk: old text → new text."""
    path = stack.settings.feature_repo / f"{SOURCE}.py"
    text = path.read_text()
    for old, new in changes:
        assert old in text, old
        text = text.replace(old, new)
    path.write_text(text)


def features(stack: Stack) -> Features:
    """As they are on disk now."""
    return Features(stack.settings, load_model_spec(MODEL, stack.settings.models_dir, stack.settings.feature_repo))


def answers(stack: Stack, version: int, payments: int = 20) -> list[dict[str, Any]]:
    """What `payments` of the known customer are told; all by `version`, none by defaults."""
    said = [stack.predict(amount=amount, transaction_id=amount) for amount in range(payments)]
    assert [each.status_code for each in said] == [200] * payments, said[-1].text
    assert {(each.json()["model_version"], each.json()["features_defaulted"]) for each in said} == {(version, False)}
    return [each.json() for each in said]


def promote(stack: Stack, version: ModelVersion) -> None:
    """Version 1 stays loaded: with the code that is on disk by now it could not be loaded again."""
    stack.registry.set_alias(MODEL, "previous", 1)
    stack.promote(version)


def refused(stack: Stack, version: ModelVersion) -> str:
    stack.registry.set_alias(MODEL, "challenger", version.version)
    found = eventually(lambda: stack.service.refused(version.version))
    stack.registry.remove_alias(MODEL, "challenger")
    return found.reason


def logged(stack: Stack, role: str, version: int) -> dict[str, float]:
    """The features of a logged row of the known customer."""

    def found() -> dict[str, float] | None:
        rows = logged_rows(Lake(stack.settings.lake, SOURCE, MODEL))
        wanted = (role, version, CUSTOMER)
        said = ((row["role"], row["model_version"], row["event"]["customer_id"], row["features"]) for row in rows)
        return next((dict(features) for *who, features in said if tuple(who) == wanted), None)

    return dict(eventually(found))


def take_through_a_rollout(stack: Stack, version: int, champion: int) -> None:
    """Shadow, canary, full, and back: everybody is answered all the time."""
    stack.registry.set_alias(MODEL, "challenger", version)
    for mode in ("shadow", "canary"):
        stack.registry.set_traffic(MODEL, Desired(mode=mode, weight=50 if mode == "canary" else 0, stage=mode))
        eventually(lambda mode=mode: stack.service.mode() == mode)
        both = [EVENT | {"customer_id": customer, "transaction_id": customer} for customer in range(30)]
        said = http.post(f"{stack.service.url}/predict_batch", json=both, timeout=30)
        assert said.status_code == 200, said.text
        versions = {each["model_version"] for each in said.json()["predictions"]}
        assert versions == ({champion} if mode == "shadow" else {champion, version})
        assert {stack.predict(customer_id=customer).status_code for customer in range(20)} == {200}
    signals = stack.service.signals()
    assert {counts.errors for counts in signals.versions.values()} == {0}
    assert all(signals.of(each).scored > 0 for each in (champion, version))
    stack.registry.set_traffic(MODEL, Desired())
    stack.registry.remove_alias(MODEL, "challenger")
    rollout.run(RolloutInputs(model=MODEL, version=version), stack.planned([{"mode": "full"}]))
    answers(stack, version)
    rollback.run(RollbackInputs(model=MODEL), stack.planned([{"mode": "full"}]))
    answers(stack, champion)
    assert http.get(f"{stack.service.url}/readyz").status_code == 200


def test_a_version_with_more_features(stack: Stack) -> None:
    before = answers(stack, 1)
    change(stack, *MORE)
    fill_online_store(stack.settings, stack.spec)
    version = stack.register(bias=-0.9, features=features(stack)).version
    take_through_a_rollout(stack, version, champion=1)
    assert [each["score"] for each in answers(stack, 1)] == [each["score"] for each in before]
    assert {"large", "customer_count_14d"} <= set(logged(stack, "shadow", version))
    assert logged(stack, "shadow", version)["customer_count_14d"] == 0.5
    assert "large" not in logged(stack, "champion", 1)


def test_a_version_with_less_features(stack: Stack) -> None:
    change(stack, *LESS)
    version = stack.register(bias=-0.8, features=features(stack)).version
    take_through_a_rollout(stack, version, champion=1)
    assert "weekend" not in logged(stack, "champion", version)


def test_an_artifact_from_before_definitions_were_in_it_takes_those_on_disk(stack: Stack) -> None:
    names = features(stack).names()
    promote(stack, stack.register(bias=-0.5, names=names))
    answers(stack, stack.count)
    assert "lack weekend" in refused(stack, stack.register(bias=-0.5, names=[*names, "weekend"]))
    promote(stack, stack.registry.get(MODEL, 1))


def test_a_version_with_another_view(stack: Stack) -> None:
    change(stack, *RENAMED)
    # In a folder of its own: with a new spec the service would load version 1 again (`promote` says why it cannot).
    repo = shutil.copytree(stack.settings.feature_repo, stack.folder / "renamed")
    source = yaml.safe_load((repo / f"{SOURCE}.yaml").read_text())
    tables = source["features"]["tables"]
    tables["terminal_risk"] = tables.pop("terminal_features")
    (repo / f"{SOURCE}.yaml").write_text(yaml.safe_dump(source))
    settings = changed(stack.settings, feature_repo=repo)
    spec = load_model_spec(MODEL, settings.models_dir, repo)
    fill_online_store(settings, spec)
    version = stack.register(bias=-0.7, features=Features(settings, spec)).version
    take_through_a_rollout(stack, version, champion=1)
    change(stack, *((new, old) for old, new in RENAMED))


def test_a_version_whose_features_fail_costs_no_answer_and_counts_as_its_failure(stack: Stack) -> None:
    change(stack, ('"night": hours % 24 <= 6,', '"night": hours % 24 <= 6 + 0 * (1 // int((amount != 66).all())),'))
    version = stack.register(bias=-0.6, features=features(stack)).version
    stack.registry.set_alias(MODEL, "challenger", version)
    for mode, weight in (("shadow", 0), ("canary", 100)):
        stack.registry.set_traffic(MODEL, Desired(mode=mode, weight=weight, stage=mode))
        eventually(lambda mode=mode: stack.service.mode() == mode)
        said = [stack.predict(amount=amount) for amount in (65, 66, 67)]
        assert {each.status_code for each in said} == {200}
        versions = [each.json()["model_version"] for each in said]
        assert versions == ([1, 1, 1] if mode == "shadow" else [version, 1, version])
        signals = eventually(lambda: (found := stack.service.signals()).of(version).errors and found)
        assert (signals.of(version).errors, signals.of(1).errors) == (1, 0)
    stack.registry.set_traffic(MODEL, Desired())
    stack.registry.remove_alias(MODEL, "challenger")


def test_it_is_not_ready_while_the_champion_cannot_answer(stack: Stack) -> None:
    broken = stack.folder / "broken"
    change(
        stack,
        (
            '"large": amount > 30,',
            f'"large": amount > (open("{broken}") and 30 if os.path.exists("{broken}/") else 30),',
        ),
    )
    promote(stack, stack.register(bias=-0.6, features=features(stack)))
    ready = f"{stack.service.url}/readyz"
    eventually(lambda: http.get(ready).status_code == 200)
    broken.mkdir()
    said = eventually(lambda: (now := http.get(ready)).status_code == 503 and now)
    assert "IsADirectoryError" in said.text
    assert stack.predict().status_code == 503
    broken.rmdir()
    eventually(lambda: http.get(ready).status_code == 200)
    promote(stack, stack.registry.get(MODEL, 1))


def test_code_that_makes_other_values_is_refused_and_the_old_version_goes_on(stack: Stack) -> None:
    version = stack.register(bias=-0.6, features=features(stack))
    change(stack, ("hours % 24 <= 6", "hours % 24 <= 5"))
    why = refused(stack, version)
    assert "other values of night (request_features)" in why
    assert "golden event" in why
    assert "Build the image from the commit" in why
    answers(stack, 1)
    change(stack, ("hours % 24 <= 5", "hours % 24 <= 6"))


def test_a_missing_function_is_refused(stack: Stack) -> None:
    version = stack.register(bias=-0.6, features=features(stack))
    change(stack, ('name="request_features"', 'name="others"'))
    assert "no request view request_features" in refused(stack, version)
    answers(stack, 1)
    change(stack, ('name="others"', 'name="request_features"'))


def test_a_column_that_the_online_store_lacks_is_a_default_and_said(stack: Stack) -> None:
    change(stack, ('Field(name="customer_count_14d"', 'Field(name="customer_count_60d"'))
    version = stack.register(bias=-0.4, features=features(stack))
    promote(stack, version)
    said = stack.predict()
    assert (said.status_code, said.json()["features_defaulted"], said.json()["feature_timestamp"]) == (200, True, None)
    stack.predict()
    labels = f'feature="customer_count_60d",model="card_fraud",version="{version.version}"'
    counted = f"perennial_features_lacking_total{{{labels}}} 2"
    eventually(lambda: counted in http.get(f"{stack.service.url}/metrics").text)
    assert stack.service.log.read_text().count("rows without customer_count_60d, which version") == 1
    assert http.get(f"{stack.service.url}/readyz").status_code == 200
    promote(stack, stack.registry.get(MODEL, 1))


def test_requests_without_an_entity_have_defaults_and_do_no_harm(stack: Stack) -> None:
    for _ in range(20):
        said = stack.predict(customer_id=None)
        assert (said.status_code, said.json()["features_defaulted"]) == (200, True)
    payments = [EVENT | {"customer_id": customer} for customer in (EVENT["customer_id"], None)] * 5
    said = http.post(f"{stack.service.url}/predict_batch", json=payments).json()["predictions"]
    assert [each["features_defaulted"] for each in said] == [False, True] * 5
    answers(stack, 1)
    assert http.get(f"{stack.service.url}/readyz").status_code == 200


def test_it_starts_again_with_the_versions_that_it_had(stack: Stack) -> None:
    version = stack.registry.state(MODEL).aliases["champion"]
    stack.service.stop()
    stack.service.start()
    # The code on disk makes no `weekend` any more: an image of the commit that trained version 1 would.
    found = eventually(lambda: stack.service.refused(version))
    assert "KeyError: 'weekend'" in found.reason
    assert http.get(f"{stack.service.url}/readyz").status_code == 503
