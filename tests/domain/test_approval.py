"""When a person is asked, and that what they read has no markup of others in it."""

from datetime import UTC, datetime
from typing import Any

import pytest

from training.contract.approval_spec import ApprovalSpec
from training.contract.messages import ApprovalRequest, JudgedAgainst, Verdict
from training.contract.names import GateName
from training.contract.tasks import MetricRule
from training.domain.approval import Approvals, Ended, body, reasons_to_ask, subject

HIGHER, LOWER = MetricRule(True, 0, 1), MetricRule(False, 0, float("inf"))


def verdict(*failed: GateName, ours: float = 0.6, theirs: float | None = 0.5) -> Verdict:
    return Verdict(
        promote=not failed,
        failed=list(failed),
        reasons=["passed: it is better"],
        primary="roc_auc",
        challenger={"roc_auc": ours},
        champion=None if theirs is None else {"roc_auc": theirs},
        difference=None,
        confidence=0.9,
    )


def asks(when: Any, judged: Verdict, rule: MetricRule = HIGHER, *, first: bool = False, force: bool = False) -> bool:
    return bool(reasons_to_ask(ApprovalSpec.model_validate({"when": when}), judged, rule, first, force))


@pytest.mark.parametrize(
    ("when", "failed", "asked"),
    [
        ("always", (), True),
        # A version that may not serve needs no approval.
        ("always", ("limits",), False),
        ("never", (), False),
        ("never", ("leakage",), False),
        (["leakage"], (), False),
        (["leakage"], ("leakage",), True),
        # The other gate refuses, whatever a person would say.
        (["leakage"], ("leakage", "limits"), False),
        (["leakage", "limits"], ("leakage", "limits"), True),
        (["negative_verdict"], ("limits", "better"), True),
        (["negative_verdict"], (), False),
        (["positive_verdict"], (), True),
        (["positive_verdict"], ("better",), False),
    ],
)
def test_a_gate_that_is_named_asks_and_another_refuses(when: Any, failed: tuple[GateName, ...], asked: bool) -> None:
    assert asks(when, verdict(*failed)) == asked


def test_without_a_section_only_leakage_asks() -> None:
    spec = ApprovalSpec()
    assert spec == ApprovalSpec.model_validate({"when": ["leakage"]})
    assert reasons_to_ask(spec, verdict("leakage"), HIGHER, first=True) == ["the gate leakage failed"]
    assert reasons_to_ask(spec, verdict(), HIGHER, first=True) == []


def test_the_first_version_asks() -> None:
    assert asks(["first_version"], verdict(theirs=None), first=True)
    assert not asks(["first_version"], verdict())


@pytest.mark.parametrize(
    ("least", "ours", "theirs", "rule", "asked"),
    [
        (0.05, 0.54, 0.5, HIGHER, True),
        (0.05, 0.56, 0.5, HIGHER, False),
        ({"relative": 0.1}, 0.54, 0.5, HIGHER, True),
        ({"relative": 0.1}, 0.56, 0.5, HIGHER, False),
        (2.0, 29.0, 30.0, LOWER, True),
        (2.0, 27.0, 30.0, LOWER, False),
        (0.05, float("nan"), 0.5, HIGHER, True),
        (0.05, 0.6, None, HIGHER, False),
    ],
)
def test_a_small_gain_asks(least: Any, ours: float, theirs: float | None, rule: MetricRule, asked: bool) -> None:
    assert asks([{"small_gain": least}], verdict(ours=ours, theirs=theirs), rule) == asked


def test_force_replaces_the_verdict_and_not_the_approval() -> None:
    assert not asks(["leakage"], verdict("limits"), force=True)
    assert asks(["leakage"], verdict("limits", "leakage"), force=True)
    assert asks("always", verdict("limits"), force=True)


def test_a_negative_verdict_that_names_no_gates_is_negative() -> None:
    """A version of Perennial that did not name them has judged."""
    unnamed = verdict().model_copy(update={"promote": False})
    assert not asks(["leakage"], unnamed)
    assert asks(["negative_verdict"], unnamed)


def request(**fields: Any) -> ApprovalRequest:
    known = {
        "version": 7,
        "digest": "d",
        "why": ["the gate leakage failed"],
        "promote": False,
        "reasons": ["FAILED: amount alone explains it"],
        "primary": "roc_auc",
        "challenger": {"roc_auc": 0.9, "log_loss": 0.1},
        "champion": {"roc_auc": 0.8},
        "judged_against": JudgedAgainst(version=4),
        "mlflow_run": "r",
        "until": datetime(2026, 3, 2, 9, tzinfo=UTC),
    }
    return ApprovalRequest.model_validate(known | fields)


def test_a_person_reads_why_metrics_gates_and_where_the_evidence_is() -> None:
    text = body(request(reason="drift", requested_by="ana"), [], [("evidence page", "http://m/e"), ("`make`", "")])
    assert subject("Card fraud", request()) == "Card fraud: may version 7 serve against its verdict?"
    for expected in (
        "**Why you are asked:** the gate leakage failed.",
        "**Trained by ana because:** drift",
        "negative. To approve it, a comment must say why",
        "| metric | version 7 | version 4 |",
        "| roc_auc (decides) | 0.9000 | 0.8000 |",
        "| log_loss | 0.1000 | |",
        "- FAILED: amount alone explains it",
        "[evidence page](http://m/e) · `make`",
        "by 2026-03-02 09:00 UTC the version is rejected",
    ):
        assert expected in text, expected


def test_reasons_of_people_are_no_markup() -> None:
    refused = [Ended(version=7, outcome="refused", by="eve](x", why="no *right*")]
    text = body(request(reason="[a](javascript:b)\n# c <img src=x>"), refused, [])
    assert r"\[a\](javascript:b) # c \<img src=x\>" in text
    assert r"answer of eve\](x" in text
    assert r"no \*right\*" in text


def test_what_the_ledger_knows() -> None:
    bodies = [request().model_dump(mode="json"), request(version=8).model_dump(mode="json")]
    bodies.append(Ended(version=7, outcome="refused", attempt=1).model_dump(mode="json"))
    known = Approvals.of(bodies)
    assert known.waiting() == [7, 8]
    assert (known.attempt(7), known.attempt(8)) == (2, 1)
    known = Approvals.of([*bodies, Ended(version=7, outcome="superseded", superseded_by=8).model_dump(mode="json")])
    assert known.waiting() == [8]
    assert (known.superseded_by(8), known.superseded_by(9)) == ([7], [])
