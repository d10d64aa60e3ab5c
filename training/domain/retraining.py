"""Requests to train, what became of them, and what is known of them: the broker's words.

A policy advises to train (retraining_policy.py), the broker decides on the request (retraining_decision.py). Days are
days of data (a request's `seen`), never the clock: a replay decides as the original did.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from functools import cached_property
from typing import Any, Literal

from training.contract.base import Frozen
from training.contract.messages import Degradation, Snapshot
from training.contract.model_spec import ModelSpec, Trigger
from training.domain.monitoring import Look

#: Runs that may take one request, each after the one before has failed: a lasting cause would fail them all.
MAXIMUM_RUNS = 3


class Request(Frozen):
    """A request to train: the body of a ledger entry of kind `request`."""

    id: str
    trigger: Trigger
    seen: date
    """The day of data on which the reason was seen; the policy counts in these."""
    as_of: date
    """The knowledge horizon to train with."""
    reason: str
    champion_version: int | None = None
    change: date | None = None
    """The day since which the data has changed: the training learns from what came after (domain/windows.py)."""
    learnable_from: date | None = None
    """The first knowledge horizon at which enough days since the change have their labels."""
    force: bool = False
    requested_by: str = ""
    """The user who started the run by hand. Empty: a run by itself, or an entry of Perennial 0.1."""
    also: tuple[Trigger, ...] = ()
    """Other triggers of the same look."""
    test: Degradation | None = None
    """The test of performance that asks, if it is one."""
    evidence: dict[str, Any] = {}

    @property
    def triggers(self) -> tuple[Trigger, ...]:
        """All that asks, the strongest first."""
        return (self.trigger, *self.also)


class Decision(Frozen):
    """What became of a request: the body of a ledger entry of kind `decision`.

    A run takes a granted request. When the run fails it releases the request, and another run may take it.
    """

    request_id: str
    outcome: Literal["granted", "refused", "joined", "taken", "released", "given back"]
    """`joined`: a granted request of the same kind waits, and its training serves this one. Perennial 0.1 wrote `given
    back` for `released`."""
    why: str = ""
    """With the numbers that it rests on, and what would have changed it."""
    numbers: dict[str, float | str] = {}
    """The numbers that a grant or refusal rests on."""
    cost: float | None = None
    """Of `granted`: the price of the training, where the spec says it."""
    run: str = ""
    """Of `taken` and `released`: the training run."""
    snapshot: Snapshot | None = None
    """Of `taken`: what the run reads. Perennial 0.1 did not write it."""


@dataclass(frozen=True)
class History:
    """What the ledger knows of one model's requests, oldest first."""

    requests: dict[str, Request]
    #: By request: granted, refused or joined.
    decisions: dict[str, Decision]
    #: By request: the run that has it.
    taken: dict[str, str]
    #: By request that a run has: what the run reads, where the ledger says it.
    snapshots: dict[str, Snapshot] = field(default_factory=dict)
    #: By request: how many runs released it.
    released: dict[str, int] = field(default_factory=dict)
    #: What monitoring found before.
    looks: Sequence[Look] = ()

    @classmethod
    def of(
        cls, requests: Iterable[Mapping[str, Any]], decisions: Iterable[Mapping[str, Any]], looks: Sequence[Look] = ()
    ) -> "History":
        """From the bodies of the ledger's entries."""
        known = [Request.model_validate(body) for body in requests]
        made = [Decision.model_validate(body) for body in decisions]
        taken: dict[str, str] = {}
        snapshots: dict[str, Snapshot] = {}
        released: dict[str, int] = {}
        for decision in made:
            id_ = decision.request_id
            if decision.outcome == "taken":
                taken[id_] = decision.run
                if decision.snapshot is not None:
                    snapshots[id_] = decision.snapshot
            elif decision.outcome in ("released", "given back"):
                taken.pop(id_, None)
                snapshots.pop(id_, None)
                released[id_] = released.get(id_, 0) + 1
        return cls(
            requests={request.id: request for request in known},
            decisions={d.request_id: d for d in made if d.outcome in ("granted", "refused", "joined")},
            taken=taken,
            snapshots=snapshots,
            released=released,
            looks=looks,
        )

    @cached_property
    def granted(self) -> frozenset[str]:
        return frozenset(id_ for id_, decision in self.decisions.items() if decision.outcome == "granted")

    @property
    def waiting(self) -> list[str]:
        """Granted requests that no run has taken yet, oldest first."""
        return [id_ for id_ in self.requests if id_ in self.granted and id_ not in self.taken]


def history_needed(spec: ModelSpec) -> int:
    """Days of events before the knowledge horizon that a first training needs: see domain/windows.py."""
    return spec.training.window_days + spec.training.holdout_days + 2 * spec.label_spec.delay_days
