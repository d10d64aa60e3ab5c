"""Rollout and rollback: aliases, ledger and replicas agree, whatever is killed and run again.

MLflow is real (SQLite); the replicas are HTTP servers that answer as the prediction service does and follow the
aliases, or do not. The same steps against the real service are in tests/serving.
"""

import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from testing.waiting import eventually
from tests.cases import others_in_ci
from tests.steps.replica_server import MODEL, Replica
from tests.steps.rollout_helpers import Killed, after_rollouts, aliases, back, killing, ledger, roll, take_over
from training.adapters.ledger import Ledger
from training.adapters.registry import Registry
from training.contract.errors import DataContractError, InputError, StepError, TransientError
from training.contract.messages import RolloutInputs
from training.contract.replicas import Refusal
from training.contract.traffic import FIRST, FirstLoad
from training.settings import Settings
from training.steps import rollout


@pytest.fixture
def settings(quick: Settings) -> Settings:
    return quick


@pytest.fixture(scope="module")
def one(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return after_rollouts(tmp_path_factory.mktemp("one"), template, 1)


@pytest.fixture(scope="module")
def two(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return after_rollouts(tmp_path_factory.mktemp("two"), template, 1, 2)


@pytest.fixture
def first(settings: Settings, one: Settings) -> Settings:
    """Settings of a stack where version 1 is the first champion."""
    take_over(one, settings)
    return settings


@pytest.fixture
def rolled_out(settings: Settings, two: Settings) -> Settings:
    """Settings of a stack where version 2 has followed version 1."""
    take_over(two, settings)
    return settings


def test_versions_follow_each_other(settings: Settings, registry: Registry) -> None:
    assert roll(settings, 1) == (1, None)
    registry.set_alias(MODEL, "challenger", 2)
    assert roll(settings, 2) == (2, 1)
    assert aliases(registry) == {"champion": 2, "previous": 1}
    kinds = [("rollout", phase, version) for version in (1, 2) for phase in ("started", "finished")]
    assert ledger(settings) == kinds


@pytest.mark.ci
def test_run_again_it_changes_nothing(settings: Settings, registry: Registry) -> None:
    roll(settings, 1)
    roll(settings, 2)
    before = ledger(settings)
    assert roll(settings, 2) == (2, 1)
    assert aliases(registry) == {"champion": 2, "previous": 1}
    assert ledger(settings) == before


@pytest.mark.ci
def test_a_later_challenger_stays(settings: Settings, registry: Registry) -> None:
    registry.set_alias(MODEL, "challenger", 3)
    roll(settings, 1)
    assert aliases(registry) == {"champion": 1, "challenger": 3}


def test_an_unknown_version_is_bad_input(settings: Settings, registry: Registry) -> None:
    with pytest.raises(InputError, match="no version 99"):
        roll(settings, 99)
    assert (aliases(registry), ledger(settings)) == ({}, [])


def test_a_run_that_is_repeated_does_not_undo_what_followed(settings: Settings, registry: Registry) -> None:
    """A database of Airflow that was restored from an older copy repeats the tasks of runs that had ended."""

    def ask(version: int, run: str) -> int:
        return rollout.run(RolloutInputs(model=MODEL, version=version, run=run), settings).version

    ask(1, "first")
    ask(2, "second")
    before = ledger(settings)
    with pytest.raises(InputError, match="Run first has rolled out version 1 before, and version 2 followed") as error:
        ask(1, "first")
    assert f"{MODEL}_rollback" in error.value.hint
    assert (aliases(registry), ledger(settings)) == ({"champion": 2, "previous": 1}, before)
    assert ask(2, "second") == 2
    assert ask(1, "third") == 1  # Another run may.


def test_a_version_with_another_artifact_is_not_rolled_out(settings: Settings, registry: Registry) -> None:
    """A registry that was restored from an older copy gave the number to another one."""
    with pytest.raises(InputError, match=r"version 1 has digest .*, to roll out was ffff"):
        rollout.run(RolloutInputs(model=MODEL, version=1, digest="f" * 64), settings)
    assert (aliases(registry), ledger(settings)) == ({}, [])
    digest = registry.get(MODEL, 1).digest
    assert rollout.run(RolloutInputs(model=MODEL, version=1, digest=digest), settings).version == 1


def test_every_replica_is_waited_for(settings: Settings, fleet: list[Replica]) -> None:
    fleet[1].stuck_at = 3
    threading.Timer(0.4, lambda: setattr(fleet[1], "stuck_at", None)).start()
    result = rollout.run(RolloutInputs(model=MODEL, version=1), settings)
    assert [(replica.url, replica.version) for replica in result.replicas] == [(each.url, 1) for each in fleet]
    assert result.seconds > 0.3


def test_a_replica_that_lags_undoes_the_rollout(rolled_out: Settings, registry: Registry, fleet: list[Replica]) -> None:
    fleet[1].stuck_at = 2
    with pytest.raises(TransientError, match=rf"{fleet[1].url} serves version 2") as failed:
        roll(rolled_out, 3)
    assert fleet[0].url not in failed.value.message
    assert aliases(registry) == {"champion": 2, "previous": 1}
    assert ledger(rolled_out)[-1] == ("rollout", "failed", 3)
    fleet[1].stuck_at = None
    assert roll(rolled_out, 3) == (3, 2)


def test_the_first_rollout_that_fails_leaves_no_champion(
    settings: Settings, registry: Registry, fleet: list[Replica]
) -> None:
    fleet[0].server.shutdown()
    fleet[0].server.server_close()
    with pytest.raises(TransientError, match="did not answer"):
        roll(settings, 1)
    assert aliases(registry) == {}


def test_a_refusal_fails_at_once_with_its_reason(first: Settings, registry: Registry, fleet: list[Replica]) -> None:
    fleet[0].refuses = 2
    with pytest.raises(StepError, match=rf"{fleet[0].url} refuses .* version 2: Golden rows differ.*serves version 1"):
        roll(first, 2)
    assert aliases(registry) == {"champion": 1}


def _refused_before(again: timedelta | None) -> dict[int, Refusal]:
    """A refusal of version 2; `again`: from now, until the replica tries it again. An older replica does not say it."""
    now = datetime.now(UTC)
    return {2: Refusal(reason="It ended a trial", at=now, again=None if again is None else now + again)}


def test_a_refusal_from_before_fails_at_once_when_the_replica_does_not_try_again_in_time(
    first: Settings, registry: Registry, fleet: list[Replica]
) -> None:
    for replica in fleet:
        replica.remembers = _refused_before(timedelta(days=1))
    # And not a TransientError, which says that the time is over.
    with pytest.raises(StepError, match=r"refuses .* version 2: It ended a trial"):
        roll(first, 2)
    assert aliases(registry) == {"champion": 1}


@pytest.mark.parametrize("again", others_in_ci([timedelta(0), None]), ids=["soon", "older replica"])
def test_a_refusal_from_before_does_not_count_when_its_cause_may_be_gone(
    again: timedelta | None, first: Settings, registry: Registry, fleet: list[Replica]
) -> None:
    path = Path(first.models_dir, f"{MODEL}.yaml")
    path.write_text(path.read_text().replace("timeout_seconds: 1", "timeout_seconds: 60"))
    fleet[0].remembers, fleet[0].mends = _refused_before(again), True
    assert roll(first, 2) == (2, 1)


def test_one_replica_loads_a_version_first(first: Settings, registry: Registry, fleet: list[Replica]) -> None:
    registry.load_first(MODEL, FirstLoad(version=2))
    registry.set_alias(MODEL, "challenger", 2)
    fleet[0].refuses = 2
    with pytest.raises(StepError, match=rf"{fleet[0].url} refuses"):
        roll(first, 2)
    assert (fleet[1].has_loaded, aliases(registry)["champion"]) == ([1], 1)
    assert registry.state(MODEL).tags[FIRST] == "2 r0"
    fleet[0].refuses = None
    assert roll(first, 2) == (2, 1)
    assert fleet[1].has_loaded == [1, 2]
    assert FIRST not in registry.state(MODEL).tags


def test_a_replica_that_is_gone_is_not_replaced_by_another(
    first: Settings, registry: Registry, fleet: list[Replica]
) -> None:
    """The version may have taken it down."""
    registry.load_first(MODEL, FirstLoad(version=2, replica="r9"))
    with pytest.raises(TransientError, match="After 1 s replica r9 is not one that has loaded version 2"):
        roll(first, 2)
    assert [replica.has_loaded for replica in fleet] == [[1], [1]]


def test_a_service_of_another_model_is_named(settings: Settings, fleet: list[Replica]) -> None:
    fleet[0].model = "churn"
    with pytest.raises(TransientError, match="a service of model churn, not card_fraud"):
        roll(settings, 1)


def test_a_champion_moved_meanwhile_is_left(first: Settings, registry: Registry, fleet: list[Replica]) -> None:
    fleet[0].stuck_at = 1

    def move() -> None:
        eventually(lambda: registry.state(MODEL).aliases["champion"] == 2)
        registry.set_alias(MODEL, "champion", 4)

    mover = threading.Thread(target=move)
    mover.start()
    with pytest.raises(TransientError):
        roll(first, 2)
    mover.join()
    assert aliases(registry)["champion"] == 4


@pytest.mark.ci
@pytest.mark.parametrize(
    ("owner", "method", "use"),
    [(Ledger, "append", 1), (Registry, "set_alias", 1), (Registry, "set_alias", 2), (Ledger, "append", 2)],
)
def test_killed_anywhere_a_rerun_ends_the_same(
    rolled_out: Settings, registry: Registry, monkeypatch: pytest.MonkeyPatch, owner: type, method: str, use: int
) -> None:
    for step, wanted in ((lambda: roll(rolled_out, 3), (3, 2)), (lambda: back(rolled_out, reason="bad"), (2, 3))):
        with monkeypatch.context() as patch:
            patch.setattr(owner, method, killing(getattr(owner, method), use))
            with pytest.raises(Killed):
                step()
        assert step() == wanted
        assert step() == wanted
        assert aliases(registry) == dict(zip(("champion", "previous"), wanted, strict=True))
    started = [(kind, version) for kind, phase, version in ledger(rolled_out) if phase == "started"]
    finished = [(kind, version) for kind, phase, version in ledger(rolled_out) if phase == "finished"]
    assert started == finished == [("rollout", 1), ("rollout", 2), ("rollout", 3), ("rollback", 2)]
    assert Ledger(rolled_out.ledger).problems(MODEL) == []


# --- rollback ---


def test_it_returns_to_previous_and_a_second_one_returns_again(rolled_out: Settings, registry: Registry) -> None:
    assert back(rolled_out, reason="false alarms") == (1, 2)
    assert aliases(registry) == {"champion": 1, "previous": 2}
    assert back(rolled_out, reason="it was not the model") == (2, 1)
    assert ledger(rolled_out)[-2:] == [("rollback", "started", 2), ("rollback", "finished", 2)]


def test_the_same_request_again_does_not_flip_back(rolled_out: Settings, registry: Registry) -> None:
    for _ in range(3):
        assert back(rolled_out, reason="false alarms") == (1, 2)
    assert aliases(registry) == {"champion": 1, "previous": 2}


def test_two_runs_with_the_same_reason_are_two_requests_and_a_retry_is_none(rolled_out: Settings) -> None:
    for run, versions in (("manual-1", (1, 2)), ("manual-1", (1, 2)), ("manual-2", (2, 1)), ("manual-2", (2, 1))):
        assert back(rolled_out, reason="By hand", run=run) == versions


def test_the_same_reason_after_another_rollout_is_a_new_request(rolled_out: Settings) -> None:
    back(rolled_out, reason="false alarms")
    roll(rolled_out, 3)
    assert back(rolled_out, reason="false alarms") == (1, 3)


def test_a_named_version(rolled_out: Settings) -> None:
    roll(rolled_out, 3)
    assert back(rolled_out, version=1) == (1, 3)
    assert back(rolled_out, version=1) == (1, 3)
    with pytest.raises(InputError, match="no version 99"):
        back(rolled_out, version=99)


def test_the_ledger_keeps_who_rolled_back_and_others_may_not(rolled_out: Settings, registry: Registry) -> None:
    allowed = rolled_out.model_copy(update={"releasers": "ada, grace"})
    for user, who in (("bob", "bob may not roll"), ("", "A run that no user started may not roll")):
        with pytest.raises(InputError, match=who) as refused:
            back(allowed, requested_by=user)
        assert "ada, grace" in str(refused.value.hint)
    assert aliases(registry) == {"champion": 2, "previous": 1}
    assert back(allowed, requested_by="grace") == (1, 2)
    moves = [entry.body for entry in Ledger(allowed.ledger).entries(MODEL) if entry.kind == "rollback"]
    assert {move["requested_by"] for move in moves} == {"grace"}


def test_without_a_previous_it_says_what_can_be_named(rolled_out: Settings, registry: Registry) -> None:
    registry.remove_alias(MODEL, "previous")
    with pytest.raises(InputError, match="no alias 'previous'") as failed:
        back(rolled_out)
    assert "1, 2, 3, 4" in failed.value.hint


def test_a_lagging_replica_fails_the_step_but_not_the_rollback(
    rolled_out: Settings,
    registry: Registry,
    fleet: list[Replica],
) -> None:
    fleet[0].stuck_at = 2
    with pytest.raises(TransientError, match="serves version 2"):
        back(rolled_out, reason="false alarms")
    assert aliases(registry) == {"champion": 1, "previous": 2}
    fleet[0].stuck_at = None
    assert back(rolled_out, reason="false alarms") == (1, 2)
    assert ledger(rolled_out)[-1] == ("rollback", "finished", 1)


def test_killed_after_the_alias_has_moved_a_rerun_does_not_flip_back(
    rolled_out: Settings, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ledger knows nothing of the rollback by then; without a named version the request is told by its run."""

    def killed(*args: object, **kwargs: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "append", killed)
        with pytest.raises(Killed):
            back(rolled_out, reason="false alarms", run="r1")
    assert aliases(registry) == {"champion": 1, "previous": 2}
    assert ledger(rolled_out)[-1] == ("rollout", "finished", 2)
    for _ in range(2):
        assert back(rolled_out, reason="false alarms", run="r1") == (1, 2)
    assert ledger(rolled_out)[-2:] == [("rollback", "started", 1), ("rollback", "finished", 1)]
    assert registry.state(MODEL).tags == {}
    assert back(rolled_out, reason="false alarms", run="r2") == (2, 1)


def test_a_broken_ledger_does_not_keep_a_bad_version_in_service(rolled_out: Settings, registry: Registry) -> None:
    entry = Path(rolled_out.ledger) / MODEL / "00000001.json"
    content = entry.read_text()
    entry.unlink()
    for _ in range(2):
        with pytest.raises(DataContractError, match=r"Version 1 .* is the champion again, .*00000001.json") as failed:
            back(rolled_out, reason="false alarms", run="r1")
        assert aliases(registry) == {"champion": 1, "previous": 2}
    assert "Then clear this task." in failed.value.hint
    entry.write_text(content)
    assert back(rolled_out, reason="false alarms", run="r1") == (1, 2)
    assert aliases(registry) == {"champion": 1, "previous": 2}
    assert ledger(rolled_out)[-2:] == [("rollback", "started", 1), ("rollback", "finished", 1)]
    assert registry.state(MODEL).tags == {}
