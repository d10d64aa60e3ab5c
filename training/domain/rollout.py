"""Moves of the alias champion as the ledger records them. A step that was killed finds its move there and resumes it.

A move is written to the ledger when it starts, before any alias changes, and again when it has ended. The first entry
holds the aliases from before, so a step that resumes the move can finish it or undo it exactly. In between, a rollout
passes the stages of its plan. Each stage has an entry when it begins and another when it ends.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Literal

from pydantic import ValidationError

from training.contract.base import Frozen
from training.contract.rollout_spec import StageSpec
from training.contract.traffic import Desired

Kind = Literal["rollout", "rollback"]
ROLLOUT: Kind = "rollout"
ROLLBACK: Kind = "rollback"
#: Ledger entries of a rollout's stages.
STAGE = "stage"
#: The tag of a registered model that keeps a rollback until it has ended.
ROLLBACK_TAG = "rollback"
#: Longest reason, in characters, in that tag. A tag takes 5,000.
_TAGGED_REASON = 500
Phase = Literal["started", "finished", "failed"]
#: Alias → version, in the order in which to set them; None removes the alias.
Aliases = tuple[tuple[str, int | None], ...]


class Move(Frozen):
    """Body of a ledger entry of kind `rollout` or `rollback`."""

    #: The number of the move among the model's moves. Together with the phase it is the key of the entry.
    number: int
    kind: Kind
    phase: Phase = "started"
    #: The version to serve.
    version: int
    #: The versions with the aliases champion and previous when the move started.
    champion: int | None
    previous: int | None
    #: From the inputs of the step.
    reason: str = ""
    #: The orchestrator's run that requested the move; empty when there was none.
    run: str = ""
    #: The user who started that run; empty when none did.
    requested_by: str = ""
    #: Why it failed.
    failure: str = ""

    @property
    def key(self) -> str:
        return f"{self.number}:{self.phase}"

    @property
    def previous_after(self) -> int | None:
        """The version with the alias `previous` after the move: the champion from before."""
        return self.previous if self.champion == self.version else self.champion

    @property
    def forwards(self) -> Aliases:
        """The aliases to set. At every moment the versions in service have an alias, so replicas keep them loaded."""
        previous, champion = ("previous", self.previous_after), ("champion", self.version)
        return (previous, champion) if self.kind == ROLLOUT else (champion, previous)

    @property
    def backwards(self) -> Aliases:
        """The aliases from before."""
        return ("champion", self.champion), ("previous", self.previous)

    def ended(self, failure: str = "") -> "Move":
        return self.model_copy(update={"phase": "failed" if failure else "finished", "failure": failure})


def tagged(move: Move) -> str:
    """The value of the tag ROLLBACK_TAG. It begins a rollback, so the number of its move is not known yet."""
    kept = {"number": 0, "phase": "started", "reason": move.reason[:_TAGGED_REASON]}
    return move.model_copy(update=kept).model_dump_json()


def begun_rollback(tag: str | None) -> Move | None:
    """The rollback that the tag ROLLBACK_TAG keeps; None without one, or when a person wrote something else there."""
    try:
        return None if tag is None else Move.model_validate_json(tag)
    except ValidationError:
        return None


def resumed(
    tag: str | None, last: Move | None, champion: int | None, version: int | None, reason: str, run: str
) -> Move | None:
    """The rollback that the tag keeps, if this request is the same, and nobody has moved the alias since.

    None when the ledger's last move is this one and has finished: then only the tag was left.
    """
    begun = begun_rollback(tag)
    if begun is None or champion not in (begun.champion, begun.version):
        return None
    if last is not None and last.phase == "finished" and tagged(last) == tag:
        return None
    same = (reason[:_TAGGED_REASON], run) == (begun.reason, begun.run) if version is None else version == begun.version
    return begun if same else None


class Stage(Frozen):
    """Body of a ledger entry of kind `stage`: one stage of a move."""

    move: int
    #: Its position in the plan, from 1.
    number: int
    spec: StageSpec
    version: int
    phase: Literal["begun", "passed", "tripped"] = "begun"
    #: When it began, in UTC. A step that resumes it does not change this.
    began: datetime
    #: Requests that the version scored.
    requests: int = 0
    #: What the guards found when it ended, one sentence each.
    findings: tuple[str, ...] = ()
    #: The final comparison of an A/B stage.
    comparison: tuple[str, ...] = ()

    @property
    def id(self) -> str:
        """The value of the tag `rollout.stage`. It is unique among all stages of the model."""
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
        """Whether the stage is over. `silent`: its time is up, but it got too few requests."""
        lasted = now - self.began
        if requests >= self.spec.requests and lasted >= timedelta(minutes=self.spec.minutes):
            return "yes"
        return "silent" if lasted >= timedelta(minutes=self.spec.maximum_minutes) else "no"


def last_move(bodies: Sequence[Mapping[str, Any]]) -> Move | None:
    """The newest state of the model's newest move. `bodies`: its ledger entries of moves, oldest first."""
    moves = [Move.model_validate(body) for body in bodies]
    # A rollback that cancels a rollout begins before that one ends.
    return max(reversed(moves), key=lambda move: move.number, default=None)


def open_rollout(bodies: Sequence[Mapping[str, Any]]) -> Move | None:
    """The rollout that has started and not ended, if any. A rollback cancels it."""
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
    requested_by: str = "",
) -> Move:
    """The move that makes `version` champion: the last move if it was interrupted, else a new one."""
    interrupted = last is not None and (last.kind, last.phase, last.version) == (kind, "started", version)
    if last is not None and interrupted and champion in (last.champion, last.version):
        return last  # With another champion, somebody has moved the alias since.
    number = 1 if last is None else last.number + 1
    return Move(
        number=number,
        kind=kind,
        version=version,
        champion=champion,
        previous=previous,
        reason=reason,
        run=run,
        requested_by=requested_by,
    )


def same_rollback(last: Move | None, champion: int | None, reason: str, run: str) -> Move | None:
    """The last move, if it is a rollback with the same run and reason, and the champion has not changed since.

    A rollback without a version goes back to `previous`, and afterwards `previous` is the version that it replaced. A
    retry must not switch back to that version. So a retry is recognised by its run, or by its reason when there is no
    orchestrator. To roll back twice, give another reason or name the version.
    """
    if last is None or (last.kind, last.reason, last.run) != (ROLLBACK, reason, run):
        return None
    expected = last.version if last.phase == "finished" else None
    return last if expected in (None, champion) else None
