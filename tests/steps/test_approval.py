"""Register, ask, record, roll out: what ledger, registry and aliases say, also when a step is killed and run again."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.cases import others_in_ci, others_long
from tests.steps.approval_place import ApprovalPlace as Place
from training.adapters.ledger import Ledger
from training.adapters.registry import Registry
from training.contract import messages as m
from training.contract.errors import InputError
from training.contract.traffic import FIRST, MODE
from training.domain.approval import APPROVAL
from training.steps import register

MODEL = "card_fraud"


@pytest.fixture
def place(tmp_path: Path, mlflow_database: Path) -> Place:
    shutil.copy(mlflow_database, tmp_path)
    return Place(tmp_path)


def test_an_approved_version_serves_and_ledger_and_registry_say_who_when_and_why(place: Place) -> None:
    done = place.register()
    assert (done.ask, done.roll_out) == (True, False)
    # It waits without traffic: no replica loads it.
    assert place.aliases() == {"challenger": 1}
    assert place.registry.state(MODEL).tags[FIRST] == "1"
    asked = place.ask(1)
    assert asked.open
    (entry,) = place.ledger.entries(MODEL, APPROVAL)
    assert asked.waiting == m.OpenRequests(count=1, since=entry.at)
    assert "a person approves every version of this model" in asked.body
    assert f"`make evidence MODEL={MODEL} VERSION=1`" in asked.body
    assert "It waits for a person." in place.evidence(1)
    recorded = place.record(1, comment=" looks right ")
    assert recorded.approved
    assert recorded.waiting == m.OpenRequests()
    assert "Approved by ana, saying: looks right. At 2026-03-02 09:00 UTC." in place.evidence(1)
    assert place.tags(1) == {
        "approval": "approved",
        "approval.by": "ana",
        "approval.at": "2026-03-02T09:00:00+00:00",
        "approval.comment": "looks right",
    }
    assert place.roll_out(recorded) == 1
    assert place.aliases() == {"champion": 1}
    # All of it again: nothing is doubled, and nobody is asked again.
    assert not place.ask(1).open
    assert place.record(1, approved=None) == place.record(1, approved=False, by="eve") == recorded
    assert place.roll_out(recorded) == 1
    assert place.entries() == [(1, "asked"), (1, "approved")]


@pytest.mark.parametrize(
    ("answer", "outcome"),
    others_in_ci([({"by": "ana", "comment": "no"}, "rejected"), ({"by": ""}, "expired")]),
)
def test_a_version_that_is_not_approved_is_no_challenger(place: Place, answer: dict[str, str], outcome: str) -> None:
    inputs = place.inputs()
    register.run(inputs, place.settings)
    recorded = place.record(1, approved=False, **answer)
    assert (recorded.approved, recorded.outcome, recorded.ask_again) == (False, outcome, None)
    assert place.aliases() == {}
    assert FIRST not in place.registry.state(MODEL).tags
    assert place.tags(1)["approval"] == outcome
    # The training run's task is cleared: the version stays as it is, and is neither asked about nor rolled out.
    again = register.run(inputs, place.settings)
    assert (again.version, again.ask, again.roll_out) == (1, False, False)
    assert place.aliases() == {}


def test_a_newer_version_supersedes_what_waits_and_an_approval_comes_too_late(place: Place) -> None:
    place.register()
    newer = place.register()
    assert newer.superseded == [m.AskedRun(version=1, attempt=1)]
    assert place.aliases() == {"challenger": 2}
    asked = place.ask(1)
    assert (asked.open, "version 2 was registered" in asked.why) == (False, True)
    late = place.record(1)
    assert (late.approved, late.outcome) == (False, "superseded")
    assert place.tags(1)["approval"] == "superseded"
    assert "Superseded (version 2 was registered before anybody had decided)." in place.evidence(1)
    assert place.record(2).approved
    assert place.entries() == [(1, "asked"), (2, "asked"), (1, "superseded"), (2, "approved")]


@pytest.mark.ci
def test_a_newer_version_that_asks_nobody_supersedes_as_well(place: Place) -> None:
    place.register()
    place.spec(when="never")
    newer = place.register()
    assert (newer.ask, newer.roll_out, newer.superseded) == (False, True, [m.AskedRun(version=1)])
    # Killed after the ledger knew: the next try still names whom to tell.
    assert place.entries()[-1] == (1, "superseded")


@pytest.mark.ci
def test_approved_before_it_was_superseded_stays_approved(place: Place) -> None:
    place.register()
    assert place.record(1).approved
    assert place.register().superseded == []
    assert place.record(1).approved


@pytest.mark.ci
def test_an_approval_after_another_champion_came_changes_nothing(place: Place) -> None:
    place.register()
    place.roll_out(place.record(1))
    waiting = place.register(champion=1)
    # Somebody rolls out another version meanwhile, as a rollback would.
    place.registry.set_alias(MODEL, "champion", waiting.version)
    place.registry.set_alias(MODEL, "champion", 1)
    assert place.record(2).approved
    third = place.register(champion=1)
    place.roll_out(waiting)
    outdated = place.record(third.version)
    assert (outdated.approved, outdated.outcome) == (False, "outdated")
    assert "judged against version 1 of card_fraud, version 2 serves now" in outdated.why
    assert place.aliases() == {"champion": 2, "previous": 1}
    with pytest.raises(InputError, match="version 2 serves now"):
        place.roll_out(third)


@pytest.mark.parametrize(
    ("spec", "releasers", "answer", "why"),
    others_in_ci(
        [
            ({}, "ben, cem", {}, "ana may not decide about card_fraud. CT_RELEASERS names who may: ben, cem"),
            ({"when": ["negative_verdict"]}, "", {"comment": "  "}, "a comment must say why"),
            ({}, "ben", {"approved": False}, "ana may not decide"),
            ({"assignees": ["ben"]}, "", {}, "names who decides: ben"),
            ({"not_by_requester": True}, "", {}, "ana started the training run"),
        ],
        first=2,
    ),
)
def test_an_answer_that_does_not_count_is_kept_and_a_person_is_asked_again(
    place: Place, spec: dict[str, Any], releasers: str, answer: dict[str, Any], why: str
) -> None:
    place.spec(**{"when": ["positive_verdict"], **spec})
    failed = ["better"] if spec.get("when") else []
    place.register(None, *failed, requested_by="ana")
    place.releasers(releasers)
    refused = place.record(1, **answer)
    assert (refused.approved, refused.outcome, refused.ask_again) == (False, "refused", 2)
    assert why in refused.why
    assert place.record(1, **answer) == refused  # A retry.
    assert place.entries() == [(1, "asked"), (1, "refused")]
    asked = place.ask(1)
    assert asked.open
    assert asked.body.startswith("**The answer of ana was refused:**")
    assert place.aliases() == {"challenger": 1}
    assert place.record(1, by="ben", comment="checked by hand", attempt=2).approved


def test_a_gate_that_asks_registers_a_negative_verdict_and_another_does_not(place: Place) -> None:
    place.spec(when=["leakage"])
    done = place.register(None, "leakage")
    assert (done.ask, done.roll_out) == (True, False)
    with pytest.raises(InputError, match="The verdict on the challenger is negative"):
        place.register(None, "leakage", "limits")
    forced = place.register(None, "limits", force=True)
    assert (forced.ask, forced.roll_out, forced.judged_against) == (False, True, None)


@pytest.mark.long
def test_during_the_rollout_of_another_version_a_new_one_does_not_get_its_traffic(place: Place) -> None:
    place.register()
    place.roll_out(place.record(1))
    place.register(champion=1)
    place.record(2)
    place.registry.tag_model(MODEL, MODE, "canary")
    place.register(champion=1)
    assert place.aliases()["challenger"] == 2


def test_a_version_that_nobody_was_asked_about_is_bad_input(place: Place) -> None:
    place.register()
    for step in (place.ask, place.record):
        with pytest.raises(InputError, match=r"No approval of card_fraud version 9 was requested"):
            step(9)


def test_a_restored_registry_with_another_artifact_is_bad_input(place: Place) -> None:
    place.register()
    place.registry.tag(MODEL, 1, "digest", "f" * 64)
    with pytest.raises(InputError, match=r"version 1 has digest ffff.*, but the request names"):
        place.record(1)


class Killed(BaseException):
    """The process is gone."""


@pytest.mark.parametrize("dies_after", others_long(["tag", "ledger", "remove_alias"]))
def test_killed_anywhere_and_run_again_it_ends_the_same(
    place: Place, monkeypatch: pytest.MonkeyPatch, dies_after: str
) -> None:
    place.register()

    def dying(call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            call(*args, **kwargs)
            raise Killed

        return wrapped

    owner, name = (Ledger, "append") if dies_after == "ledger" else (Registry, dies_after)
    with monkeypatch.context() as patched:
        patched.setattr(owner, name, dying(getattr(owner, name)))
        with pytest.raises(Killed):
            place.record(1, approved=False, comment="no")
    assert place.record(1, approved=False, comment="no").outcome == "rejected"
    assert place.entries() == [(1, "asked"), (1, "rejected")]
    assert place.aliases() == {}
    assert FIRST not in place.registry.state(MODEL).tags
    assert place.tags(1)["approval.comment"] == "no"
