"""A start without the registry restores the last state of traffic from the replica's disk."""

import shutil
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from serving.load_guard import LoadGuard
from serving.metrics import Metrics
from serving.registry_poll import RegistryPoll
from serving.signals import RolloutSignals
from serving.watcher import Watcher
from testing.serving_artifacts import artifact
from testing.serving_stack import fill_online_store
from training.adapters.features import Features
from training.adapters.onnx_model import OnnxModel
from training.adapters.registry import Registry
from training.contract.model_spec import ModelSpec, load_model_spec
from training.contract.replicas import LastTraffic
from training.settings import Settings

#: What replicas wrote before `models` had this name.
OLDER = """{"slots": {"champion": {"version": 1, "digest": "%s"}, "challenger": {"version": 2, "digest": "%s"}},
"traffic": {"mode": "canary", "weight": 10.0, "stage": "1.2-canary", "experiment": ""}}"""


@pytest.fixture(scope="module")
def replica(tmp_path_factory: pytest.TempPathFactory) -> tuple[Settings, list[str]]:
    """A replica's disk with the copies of versions 1 and 2, without a registry; and the versions' digests."""
    folder, spec = tmp_path_factory.mktemp("cold"), load_model_spec("card_fraud")
    settings = Settings(home=folder / "home", tracking_uri="http://127.0.0.1:9")
    fill_online_store(settings, spec)
    names, digests = Features(settings, spec).names(), []
    for version in (1, 2):
        copy = Path(settings.serving) / "models" / spec.name / str(version)
        shutil.copytree(artifact(folder / str(version), names, -float(version)), copy)
        digests.append(OnnxModel.load(copy).metadata.digest)
    return settings, digests


def polled(settings: Settings, spec: ModelSpec) -> Watcher:
    """A watcher that has tried to read the registry once."""
    watcher = Watcher(
        settings, spec, Metrics(CollectorRegistry()).of(spec.name), RolloutSignals(spec), LoadGuard(settings)
    )
    poll = RegistryPoll(Registry(settings.tracking_uri), 1.0)
    poll.add(watcher)
    poll.poll()
    return watcher


@pytest.mark.parametrize("key", ["slots", "models"])
def test_the_last_traffic_is_restored(replica: tuple[Settings, list[str]], spec: ModelSpec, key: str) -> None:
    settings, digests = replica
    path = Path(settings.serving) / "models" / spec.name / "traffic.json"
    path.write_text((OLDER % tuple(digests)).replace("slots", key))
    watcher = polled(settings, spec)
    assert "serving the last good copy, version 1" in (watcher.problem or "")
    assert {alias: loaded.version for alias, loaded in watcher.traffic.by_alias.items()} == {
        "champion": 1,
        "challenger": 2,
    }
    assert (watcher.traffic.state.mode, watcher.traffic.state.weight) == ("canary", 10.0)
    assert '"models"' in path.read_text()
    assert LastTraffic.model_validate_json(path.read_text()).models["challenger"].digest == digests[1]


def test_another_artifact_than_the_one_that_served_is_not_loaded(
    replica: tuple[Settings, list[str]], spec: ModelSpec
) -> None:
    settings, digests = replica
    path = Path(settings.serving) / "models" / spec.name / "traffic.json"
    path.write_text(OLDER % (digests[1], digests[1]))
    watcher = polled(settings, spec)
    assert "is not the one that served" in (watcher.problem or "")
    assert watcher.traffic.champion is None
