"""Moves of the champion, as the ledger records them, and how a step that was killed finds its own move again.

A move is written to the ledger when it starts, before any alias changes, and once more when it has ended. The first
entry holds the aliases from before, so whoever takes the move up again can finish it or undo it exactly. In between a
rollout passes the stages of its plan, each with an entry of its own when it begins and when it is over.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Literal

from training.contract.base import Frozen
from training.contract.rollout_spec import StageSpec
from training.contract.traffic import Desired

Kind = Literal["rollout", "rollback"]
ROLLOUT: Kind = "rollout"
ROLLBACK: Kind = "rollback"
#: Ledger entries of a rollout's stages.
STAGE = "stage"
Phase = Literal["started", "finished", "failed"]
#: Alias → version, in the order in which to set them; None removes the alias.
Aliases = tuple[tuple[str, int | None], ...]


class Move(Frozen):
    """Body of a ledger entry of kind `rollout` or `rollback`."""

    #: Counts the model's moves; with the phase it is the entry's key.
    number: int
    kind: Kind
    phase: Phase = "started"
    #: The version that shall serve.
    version: int
    #: Champion and `previous` when the move started.
    champion: int | None
    previous: int | None
    #: As given by whoever asked for the move.
    reason: str = ""
    #: The run that asked, if an orchestrator did.
    run: str = ""
    #: Why it failed.
    failure: str = ""

    @property
    def key(self) -> str:
        return f"{self.number}:{self.phase}"

    @property
    def previous_after(self) -> int | None:
        """What `previous` names once the move is done: the champion from before."""
        return self.previous if self.champion == self.version else self.champion

    @property
    def forwards(self) -> Aliases:
        """The aliases that make the move. What serves stays named by one of them, so replicas keep it loaded."""
        previous, champion = ("previous", self.previous_after), ("champion", self.version)
        return (previous, champion) if self.kind == ROLLOUT else (champion, previous)

    @property
    def backwards(self) -> Aliases:
        """The aliases from before."""
        return ("champion", self.champion), ("previous", self.previous)

    def ended(self, failure: str = "") -> "Move":
        return self.model_copy(update={"phase": "failed" if failure else "finished", "failure": failure})


class Stage(Frozen):
    """Body of a ledger entry of kind `stage`: one stage of a move."""

    move: int
    #: Its place in the plan, from 1.
    number: int
    spec: StageSpec
    version: int
    phase: Literal["begun", "passed", "tripped"] = "begun"
    #: When it began, in UTC; kept by whoever takes it up again.
    began: datetime
    #: Requests that the version scored.
    requests: int = 0
    #: What the guards found, a sentence each, when it was over.
    findings: tuple[str, ...] = ()
    #: Of an A/B stage: the final comparison.
    comparison: tuple[str, ...] = ()

    @property
    def id(self) -> str:
        """The value of the tag `rollout.stage`: no other stage ever has it."""
        weight = "" if self.spec.weight is None else f"-{self.spec.weight:g}"
        return f"{self.move}.{self.number}-{self.spec.mode}{weight}"

    @property
    def key(self) -> str:
        return f"{self.id}:{self.phase}"

    @property
    def desired(self) -> Desired:
        spec = self.spec
        return Desired(mode=spec.mode, weight=spec.weight or 0.0, stage=self.id, experiment=spec.experiment)

    def over(self, requests: int, now: datetime) -> Literal["no", "yes", "silent"]:
        """Whether it is over; `silent`: its time is, but there were too few requests."""
        lasted = now - self.began
        if requests >= self.spec.requests and lasted >= timedelta(minutes=self.spec.minutes):
            return "yes"
        return "silent" if lasted >= timedelta(minutes=self.spec.maximum_minutes) else "no"


def last_move(bodies: Sequence[Mapping[str, Any]]) -> Move | None:
    """The newest state of the model's newest move. `bodies` are those of its rollouts and rollbacks, oldest first."""
    moves = [Move.model_validate(body) for body in bodies]
    # A rollback that cancels a rollout begins before that one ends.
    return max(reversed(moves), key=lambda move: move.number, default=None)


def open_rollout(bodies: Sequence[Mapping[str, Any]]) -> Move | None:
    """The rollout that has started and not ended, if there is one: a rollback cancels it."""
    states = {body["number"]: Move.model_validate(body) for body in bodies}
    running = [move for move in states.values() if (move.kind, move.phase) == (ROLLOUT, "started")]
    return running[-1] if running else None


def begin(
    last: Move | None,
    kind: Kind,
    version: int,
    champion: int | None,
    previous: int | None,
    reason: str,
    run: str = "",
) -> Move:
    """The move that makes `version` champion: the last one when that was interrupted, else a new one."""
    interrupted = last is not None and (last.kind, last.phase, last.version) == (kind, "started", version)
    if last is not None and interrupted and champion in (last.champion, last.version):
        return last  # with another champion, somebody moved the alias since
    number = 1 if last is None else last.number + 1
    return Move(number=number, kind=kind, version=version, champion=champion, previous=previous, reason=reason, run=run)


def same_rollback(last: Move | None, champion: int | None, reason: str, run: str) -> Move | None:
    """The rollback that this request asked for before, if it did: the same run and reason, and no other move since.

    A rollback without a version returns to `previous`, and afterwards `previous` names the version that it came from.
    Run again, it must not flip back. So such a request is known by its run, or by its reason when no orchestrator asks;
    a second rollback has another or names its version.
    """
    if last is None or (last.kind, last.reason, last.run) != (ROLLBACK, reason, run):
        return None
    unmoved = last.version if last.phase == "finished" else None
    return last if unmoved in (None, champion) else None
