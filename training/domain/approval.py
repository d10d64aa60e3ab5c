"""The approval of a version by a person: when one is asked, what is asked, and what the ledger knows of it.

A request is an entry of kind `approval` in the ledger, and so is each refused answer and the end of the request. The
ledger keeps the first end of a request, so of two ends at the same moment one holds: a version that a newer one has
superseded cannot be approved.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from training.contract.approval_spec import ApprovalSpec, SmallGain
from training.contract.base import Frozen
from training.contract.messages import ApprovalRequest, Ending, Verdict
from training.contract.tasks import MetricRule, allowed

#: The kind of the ledger's entries.
APPROVAL = "approval"


def reasons_to_ask(
    spec: ApprovalSpec, verdict: Verdict, primary: MetricRule, first: bool, force: bool = False
) -> list[str]:
    """Why a person must decide about the challenger, a sentence each; none when nobody is asked.

    A verdict that is negative because of a gate that asks nobody refuses the challenger, and nobody is asked either.
    `first`: there is no champion. `force`: a person has the version registered in spite of the verdict; that replaces
    the verdict, and not the approval.
    """
    named = [condition for condition in spec.when if not isinstance(condition, SmallGain)]
    asking = [gate for gate in verdict.failed if gate in named]
    # A verdict of an earlier version names no gates.
    refused = not verdict.promote and (not verdict.failed or len(asking) < len(verdict.failed))
    if refused and not force and "negative_verdict" not in named:
        return []
    found = [f"the gate {gate} failed" for gate in asking]
    if refused and "negative_verdict" in named:
        found.append("the verdict is negative")
    if "positive_verdict" in named:
        found.append("a person approves every version of this model")
    if first and "first_version" in named:
        found.append("it would be the first version in service")
    for condition in spec.when:
        if isinstance(condition, SmallGain):
            found += _small_gain(condition, verdict, primary)
    return found


def _small_gain(condition: SmallGain, verdict: Verdict, primary: MetricRule) -> Iterator[str]:
    if verdict.champion is None:
        return
    name, missing = verdict.primary, float("nan")
    ours, theirs = verdict.challenger.get(name, missing), verdict.champion.get(name, missing)
    gain, least = primary.sign * (ours - theirs), allowed(condition.small_gain, theirs)
    # A comparison with NaN is false, so a missing metric asks.
    if not gain >= least:
        yield f"the gain in {name} is {gain:.4f}, less than {least:.4f}"


class Ended(Frozen):
    """The end of a request, or a refused answer: the body of a ledger entry."""

    version: int
    outcome: Ending | Literal["refused"]
    by: str = ""
    """Who answered; empty when nobody did."""
    at: datetime | None = None
    """When they answered."""
    comment: str = ""
    why: str = ""
    superseded_by: int | None = None
    attempt: int = 1
    """How often a person had been asked."""

    @property
    def key(self) -> str:
        """A request ends once; each of its attempts may be refused once."""
        return f"{self.version}:refused:{self.attempt}" if self.outcome == "refused" else f"{self.version}:ended"

    def __str__(self) -> str:
        who = f" by {self.by}" if self.by else ""
        comment = f", saying: {self.comment}" if self.comment else ""
        return f"{self.outcome}{who}{f' ({self.why})' if self.why else ''}{comment}"


def request_key(version: int) -> str:
    """The key of the entry of a request."""
    return f"{version}:asked"


@dataclass(frozen=True)
class Approvals:
    """What the ledger knows of the approvals of one model, by version."""

    requests: dict[int, ApprovalRequest]
    ended: dict[int, Ended]
    #: Refused answers, oldest first.
    refused: dict[int, list[Ended]]

    @classmethod
    def of(cls, bodies: Sequence[Mapping[str, Any]]) -> "Approvals":
        """From the bodies of the ledger's entries of kind APPROVAL, oldest first."""
        asked = [ApprovalRequest.model_validate(body) for body in bodies if "outcome" not in body]
        answers = [Ended.model_validate(body) for body in bodies if "outcome" in body]
        refused: dict[int, list[Ended]] = {}
        for each in answers:
            if each.outcome == "refused":
                refused.setdefault(each.version, []).append(each)
        ended = {each.version: each for each in answers if each.outcome != "refused"}
        return cls({request.version: request for request in asked}, ended, refused)

    def waiting(self) -> list[int]:
        """Versions whose request has not ended, ascending."""
        return sorted(self.requests.keys() - self.ended.keys())

    def superseded_by(self, version: int) -> list[int]:
        """Versions whose request `version` has ended, ascending."""
        return sorted(old for old, end in self.ended.items() if end.superseded_by == version)

    def attempt(self, version: int) -> int:
        """The number of this request to a person: 1 when nobody has been asked about the version before."""
        return len(self.refused.get(version, ())) + 1


def subject(title: str, request: ApprovalRequest) -> str:
    """The headline of what a person is asked."""
    against = "" if request.promote else " against its verdict"
    return f"{title}: may version {request.version} serve{against}?"


def body(request: ApprovalRequest, refused: Sequence[Ended], links: Sequence[tuple[str, str]]) -> str:
    """What a person is asked, as Markdown. `links`: (text, address) of where the evidence is; without an address, the
    text says it."""
    verdict = "positive" if request.promote else "negative. To approve it, a comment must say why"
    asked = f" by {request.requested_by}" if request.requested_by else ""
    parts = [
        f"**Why you are asked:** {_escaped('; '.join(request.why))}.",
        f"**Trained{asked} because:** {_escaped(request.reason or 'no reason was given')}",
        f"**Verdict:** {verdict}.",
        "\n".join(_metrics(request)),
        "\n".join(f"- {_escaped(reason)}" for reason in request.reasons),
        "**Evidence:** " + " · ".join(f"[{text}]({address})" if address else text for text, address in links),
        f"Without an answer by {request.until:%Y-%m-%d %H:%M} UTC the version is rejected.",
    ]
    if refused:
        last = refused[-1]
        parts.insert(0, f"**The answer of {_escaped(last.by or 'somebody')} was refused:** {_escaped(last.why)}.")
    return "\n\n".join(part for part in parts if part)


def _metrics(request: ApprovalRequest) -> Iterator[str]:
    champion = request.champion
    serving = request.judged_against.version if request.judged_against else None
    yield f"| metric | version {request.version} |" + (f" version {serving or 'in service'} |" if champion else "")
    yield "|---|---|" + ("---|" if champion else "")
    for name, value in sorted(request.challenger.items()):
        decides = " (decides)" if name == request.primary else ""
        theirs = champion.get(name) if champion else None
        row = f"| {name}{decides} | {value:.4f} |"
        yield row + ((f" {theirs:.4f} |" if theirs is not None else " |") if champion else "")


def _escaped(text: str) -> str:
    """`text` without a meaning in Markdown or HTML: reasons come from people and from data."""
    return "".join(f"\\{sign}" if sign in "\\`*_[]<>|" else " " if sign in "\r\n" else sign for sign in text)
