"""One stage after another: ask for it, wait until every replica reports it, watch the guards, until it is over."""

import logging
import time
from datetime import UTC, datetime

from training.adapters.ledger import Ledger
from training.adapters.registry import CHALLENGER, CHAMPION, Registry
from training.adapters.replicas import Replicas, ReplicaStatus, SignalTotals
from training.contract.errors import RolloutAborted, TransientError
from training.contract.messages import StageResult
from training.contract.model_spec import ModelSpec
from training.contract.signals import Signals
from training.contract.traffic import FULL
from training.contract.traffic import STAGE as STAGE_TAG
from training.domain.guards import Finding, examine
from training.domain.rollout import ROLLBACK, ROLLOUT, STAGE, Move, Stage, last_move
from training.settings import StateSettings
from training.steps.rollout.evidence import Labels, comparison

POLL_SECONDS = 0.5
#: Between two lines of progress in the log.
PROGRESS_SECONDS = 15.0

log = logging.getLogger("perennial")


class Unreachable(TransientError):
    """MLflow or the replicas did not answer during a stage, which goes on: run the step again."""


class Rollout:
    """The stages of one move. `passed` are those that are over. Without a move there is nothing to do."""

    def __init__(
        self,
        move: Move | None,
        version: int,
        spec: ModelSpec,
        registry: Registry,
        ledger: Ledger,
        replicas: Replicas,
        settings: StateSettings,
    ) -> None:
        self.model, self._spec, self._move, self._version = spec.name, spec, move, version
        self._registry, self._ledger, self._replicas, self._settings = registry, ledger, replicas, settings
        self.passed: list[Stage] = []

    def stages(self) -> None:
        """Every stage before `full`. Raises RolloutAborted, StepError or TransientError as the step does."""
        for number, _ in enumerate(self._spec.rollout.stages[:-1], 1):
            self._run(number)

    def full(self) -> None:
        """Ask for the last stage. The aliases have been moved; its tags end the split of traffic."""
        watched = self._watched()
        self._registry.set_traffic(self.model, watched.desired if watched else FULL)

    def watch_full(self) -> None:
        """Watch the guards for as long as the plan's `full` stage says, with the version as champion."""
        if stage := self._watched():
            self._watch(stage)

    def results(self) -> list[StageResult]:
        return [
            StageResult(stage=s.id, requests=s.requests, findings=list(s.findings), comparison=list(s.comparison))
            for s in self.passed
        ]

    def check_not_cancelled(self) -> None:
        """Raises RolloutAborted when another move has begun, or this one was ended, since."""
        if self._move is None:
            return
        moves = [e for e in self._ledger.entries(self.model) if e.kind in (ROLLOUT, ROLLBACK)]
        last = last_move([entry.body for entry in moves])
        if last is not None and (last.number, last.phase) != (self._move.number, "started"):
            by = f"a {last.kind} to version {last.version}" + (f": {last.reason}" if last.reason else "")
            raise RolloutAborted(
                f"The rollout of version {self._version} was cancelled by {by}", "Nothing is left to do."
            )

    def _watched(self) -> Stage | None:
        """The plan's `full` stage, begun, if it is one to watch."""
        plan = self._spec.rollout.stages
        if self._move is None or not (plan[-1].minutes or plan[-1].requests):
            return None
        return self._begun(len(plan))

    def _begun(self, number: int) -> Stage:
        """Stage `number` of this move, written down; one that began before keeps its time."""
        assert self._move is not None
        spec, now = self._spec.rollout.stages[number - 1], datetime.now(UTC)
        stage = Stage(move=self._move.number, number=number, spec=spec, version=self._version, began=now)
        entry = self._ledger.claim(STAGE, self.model, stage.model_dump(mode="json"), stage.key)
        return Stage.model_validate(entry.body)

    def _ended(self, stage: Stage) -> Stage | None:
        found = [e for e in self._ledger.entries(self.model, STAGE) if e.key == f"{stage.id}:passed"]
        return Stage.model_validate(found[0].body) if found else None

    def _run(self, number: int) -> None:
        self.check_not_cancelled()
        stage = self._begun(number)
        if done := self._ended(stage):
            log.info("Stage %s was passed before", stage.id)
            self.passed.append(done)
            return
        before = self._replicas.look()
        self._registry.set_alias(self.model, CHALLENGER, self._version)
        self._registry.set_traffic(self.model, stage.desired)
        log.info("Stage %s: %s", stage.id, describe(stage))
        self._replicas.wait_until_in_stage(stage.id, self._version, self._spec.rollout.timeout_seconds, before)
        self._watch(stage)

    def _watch(self, stage: Stage) -> None:
        """Until the stage is over or a guard trips."""
        tally, labels = SignalTotals(stage.id), Labels(stage, self._move, self._spec, self._settings)
        heard = told = time.monotonic()
        while True:
            self.check_not_cancelled()
            looks = self._replicas.look(signals=True)
            signals = tally.add(looks)
            requests = signals.of(self._version).rows
            # Before anything else is asked, which may take its time.
            self._guarded(stage, signals, labels)
            away = self._away(stage, looks)
            if away is None:
                heard = time.monotonic()
            elif time.monotonic() - heard > self._spec.rollout.timeout_seconds:
                raise Unreachable(f"Stage {stage.id} of version {self._version} goes on unwatched: {away}", "Retry.")
            over = stage.over(requests, datetime.now(UTC)) if away is None else "no"
            if over != "no":
                silent = over == "silent" and stage.spec.on_silence == "promote"
                findings = self._guarded(stage, signals, labels, final=over == "yes" or silent, silent=silent)
                if over == "yes" or self._goes_on(stage, requests):
                    self._pass(stage, signals, findings, labels)
                    return
            if time.monotonic() - told > PROGRESS_SECONDS:
                told = time.monotonic()
                log.info("Stage %s: %d requests%s", stage.id, requests, f"; {away}" if away else "")
            time.sleep(POLL_SECONDS)

    def _guarded(
        self, stage: Stage, signals: Signals, labels: Labels, final: bool = False, silent: bool = False
    ) -> list[Finding]:
        """What the guards find. Raises RolloutAborted when one trips."""
        found = examine(signals, self._spec.rollout.guards, self._spec.decision.alert_rate, final, silent)
        found += labels.look(final)
        if any(finding.tripped for finding in found):
            self._trip(stage, signals.of(self._version).rows, found)
        return found

    def _away(self, stage: Stage, looks: list[ReplicaStatus]) -> str | None:
        """Which replicas are not in the stage now, or why that cannot be known. Raises RolloutAborted when a person has
        moved what the stage rests on."""
        lost = [str(look) for look in looks if look.signals is None or look.signals.traffic.stage != stage.id]
        try:
            state = self._registry.state(self.model)
        except TransientError as error:
            return error.message
        champion = self._version if stage.spec.mode == "full" else self._move.champion if self._move else None
        if (state.aliases.get(CHAMPION), state.tags.get(STAGE_TAG)) != (champion, stage.id):
            self.check_not_cancelled()
            now = f"champion is version {state.aliases.get(CHAMPION)}, stage {state.tags.get(STAGE_TAG)}"
            raise RolloutAborted(f"The registry was changed during stage {stage.id}: {now}", "Start the rollout again.")
        return "; ".join(lost) or None

    def _trip(self, stage: Stage, requests: int, findings: list[Finding]) -> None:
        ended = stage.model_copy(
            update={"phase": "tripped", "requests": requests, "findings": tuple(map(str, findings))}
        )
        self._ledger.claim(STAGE, self.model, ended.model_dump(mode="json"), ended.key)
        self.passed.append(ended)
        why = "; ".join(finding.sentence for finding in findings if finding.tripped)
        names = ", ".join(dict.fromkeys(finding.guard for finding in findings if finding.tripped))
        raise RolloutAborted(
            f"Guard {names} tripped in stage {stage.id} after {requests} requests, version {self._version} is rolled "
            f"back: {why}",
            hint="The ledger and the version's MLflow run keep the numbers; mend the model and train again.",
        )

    def _goes_on(self, stage: Stage, requests: int) -> bool:
        """What the plan says when there is too little traffic."""
        said = f"only {requests} of {stage.spec.requests} requests in {stage.spec.maximum_minutes:g} minutes"
        if stage.spec.on_silence == "promote":
            log.warning("Stage %s: %s; the plan goes on", stage.id, said)
            return True
        if stage.spec.on_silence == "fail":
            raise RolloutAborted(f"Stage {stage.id} failed: {said}", hint="Is the service asked? Then train again.")
        hint = "The stage goes on; clear this task to look again, or run the rollback DAG to end it."
        raise Unreachable(f"Stage {stage.id} is held: {said}", hint)

    def _pass(self, stage: Stage, signals: Signals, findings: list[Finding], labels: Labels) -> None:
        said = comparison(stage, signals, labels, self._spec) if stage.spec.mode == "ab" else []
        ended = stage.model_copy(
            update={
                "phase": "passed",
                "requests": signals.of(self._version).rows,
                "findings": tuple(map(str, findings)),
                "comparison": tuple(said),
            }
        )
        self._ledger.claim(STAGE, self.model, ended.model_dump(mode="json"), ended.key)
        self.passed.append(ended)
        log.info("Stage %s is passed after %d requests:", stage.id, ended.requests)
        for line in (*ended.findings, *ended.comparison):
            log.info("  %s", line)


def describe(stage: Stage) -> str:
    """What happens in the stage, in a sentence."""
    spec = stage.spec
    who = {
        "shadow": f"version {stage.version} scores every request and answers none",
        "canary": f"version {stage.version} answers {spec.weight or 0:g} % of the keys",
        "ab": f"experiment {spec.experiment}: version {stage.version} answers {spec.weight or 0:g} % of the keys",
        "full": f"version {stage.version} answers everything",
    }[spec.mode]
    wanted = [f"{spec.requests} requests"] if spec.requests else []
    wanted += [f"{spec.minutes:g} minutes"] if spec.minutes else []
    return f"{who}, for {' and '.join(wanted)}; after {spec.maximum_minutes:g} minutes: {spec.on_silence}"
