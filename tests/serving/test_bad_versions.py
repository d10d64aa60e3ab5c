"""A version that takes all memory, never ends or kills who loads it is refused, and the others answer meanwhile.

The tests run in order on one real service of two models.
"""

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path

import pytest

from testing.http_client import http
from testing.many_models import ManyModels, running_models
from testing.onnx_attacks import endless_loop, giant_fill, giant_initializer, hidden_fill
from testing.serving_artifacts import EVENT
from testing.waiting import eventually
from training.adapters.registry import Registry
from training.contract.replicas import LoadRecord, LoadRecords, Refusal, ReplicaModels

pytestmark = pytest.mark.long

VICTIM, OTHER = "victim", "other"
#: A version has so long when it is tried out.
SECONDS = 5.0
ADMIN = {"Authorization": "Bearer key-of-an-admin"}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ManyModels]:
    kinds = dict.fromkeys((VICTIM, OTHER), "binary")
    with running_models(tmp_path_factory.mktemp("bad"), kinds, serving_load_seconds=SECONDS) as made:
        yield made


def set_challenger(models: ManyModels, version: int) -> None:
    Registry(models.settings.tracking_uri).set_alias(VICTIM, "challenger", version)


def trial_process(models: ManyModels) -> int | None:
    """The process in which the service tries out a version."""
    worker = models.service.worker()
    for child in Path(f"/proc/{worker}/task").glob("*/children"):
        for pid in child.read_text().split():
            if b"serving.trial_process" in Path(f"/proc/{pid}/cmdline").read_bytes():
                return int(pid)
    return None


@pytest.mark.parametrize(
    ("attack", "said"),
    [
        (giant_fill, "its constants take 22,888 MiB"),
        (giant_initializer, "the initializer declared"),
        (hidden_fill, "Failed to allocate memory"),
        (endless_loop, "took longer than 5 s"),
    ],
)
def test_a_bad_version_is_refused_and_nobody_notices(
    models: ManyModels, attack: Callable[[int], bytes], said: str
) -> None:
    worker, version = models.service.worker(), models.register(VICTIM, attack=attack)
    with models.calls(OTHER) as others, models.calls(VICTIM) as own:
        set_challenger(models, version)
        refusal = eventually(lambda: models.of(VICTIM).refused.get(version))
    assert said in refusal.reason
    assert set(others) == set(own) == {200}
    assert (models.service.worker(), models.champion(VICTIM)) == (worker, 1)
    metrics = http.get(f"{models.service.url}/metrics", timeout=30).text
    assert f'perennial_refused_versions_total{{model="{VICTIM}"}}' in metrics


def being_loaded(models: ManyModels, version: int) -> bool:
    """Whether the service's disk says so."""
    records = LoadRecords.model_validate_json(Path(models.settings.serving, "loads.json").read_text())
    return any(record.loading and record.version == version for record in records.versions.values())


def test_the_process_that_tries_it_out_is_killed(models: ManyModels) -> None:
    eventually(lambda: trial_process(models) is None)
    version = models.register(VICTIM, attack=endless_loop)
    with models.calls(OTHER) as others:
        set_challenger(models, version)
        eventually(lambda: being_loaded(models, version))
        pid = trial_process(models)
        assert pid is not None
        environment = Path(f"/proc/{pid}/environ").read_text()
        os.kill(pid, signal.SIGKILL)
        refusal = eventually(lambda: models.of(VICTIM).refused.get(version))
    assert "ended (SIGKILL)" in refusal.reason
    assert "CT_" not in environment
    assert set(others) == {200}


def test_a_service_that_was_killed_in_mid_load_starts_without_that_version(models: ManyModels) -> None:
    version = models.register(VICTIM, attack=endless_loop)
    set_challenger(models, version)
    eventually(lambda: being_loaded(models, version))
    models.service.kill()
    keys = models.folder / "keys"
    keys.write_text(f"admin someone {sha256(b'key-of-an-admin').hexdigest()}\n")
    models.service.env["CT_SERVING_KEYS_FILE"] = str(keys)
    models.service.start()
    eventually(models.service.ready)
    url = f"{models.service.url}/models/{VICTIM}"

    def refusal() -> Refusal | None:
        found = ReplicaModels.model_validate_json(http.get(url, headers=ADMIN, timeout=30).content)
        return found.refused.get(version)

    reason = eventually(refusal).reason
    assert "The service ended while it was loading the version" in reason
    assert f"POST /admin/models/{VICTIM}/retry" in reason
    assert f"{VICTIM} version {version} is refused" in models.service.log.read_text()
    for model in (VICTIM, OTHER):
        answer = http.post(f"{models.service.url}/models/{model}/predict", json=EVENT, headers=ADMIN, timeout=60)
        assert answer.status_code == 200
    again = http.post(f"{models.service.url}/admin/models/{VICTIM}/retry", headers=ADMIN, timeout=30)
    assert again.status_code == 200
    eventually(lambda: (found := refusal()) and "took longer than 5 s" in found.reason)


def test_a_new_replica_that_was_killed_while_it_first_loaded_the_champion_loads_it_again(models: ManyModels) -> None:
    """As after `kill -9`, or when the memory of its node was full."""
    models.service.stop()
    champion = Registry(models.settings.tracking_uri).by_alias(VICTIM, "champion")
    folder = Path(models.settings.serving)
    shutil.rmtree(folder)
    folder.mkdir(parents=True)
    killed = LoadRecord(model=VICTIM, version=champion.version, loading=True)
    (folder / "loads.json").write_text(LoadRecords(versions={champion.digest: killed}).model_dump_json())
    models.service.start()
    eventually(models.service.ready)
    url = f"{models.service.url}/models/{VICTIM}/predict"
    eventually(lambda: http.post(url, json=EVENT, headers=ADMIN, timeout=60).status_code == 200)
    assert "The service ended while it was loading" in models.service.log.read_text()
    records = LoadRecords.model_validate_json((folder / "loads.json").read_text()).versions
    assert (records[champion.digest].deaths, records[champion.digest].loading) == (0, False)
