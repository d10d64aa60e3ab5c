"""Run the stages of a rollout: set the traffic, wait until every replica has it, watch the guards until it is over."""

import logging
import time
from datetime import UTC, datetime, timedelta

from training.adapters.ledger import Ledger
from training.adapters.registry import CHALLENGER, CHAMPION, Registry
from training.adapters.replicas import Replicas, ReplicaStatus, SignalTotals
from training.contract.errors import RolloutAborted, StepError, TransientError
from training.contract.messages import StageResult
from training.contract.model_spec import ModelSpec
from training.contract.signals import Signals
from training.contract.traffic import FULL, FirstLoad
from training.contract.traffic import STAGE as STAGE_TAG
from training.domain.guards import Finding, examine
from training.domain.rollout import ROLLBACK, ROLLBACK_TAG, ROLLOUT, STAGE, Move, Stage, begun_rollback, last_move
from training.domain.task_kind import task_of
from training.settings import StateSettings
from training.steps.rollout.evidence import LateLabels, comparison

POLL_SECONDS = 0.5
#: Between two progress lines in the log.
PROGRESS_SECONDS = 15.0

log = logging.getLogger("perennial")


class Unreachable(TransientError):
    """MLflow or the replicas did not answer during a stage. The stage continues: run the step again."""


class Rollout:
    """The stages of one move; `passed` are those that have ended. Without a move there is nothing to do."""

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
        self._ordered = task_of(spec).ordered
        self.passed: list[Stage] = []

    def load_on_one_replica_first(self, before: list[ReplicaStatus]) -> None:
        """Of several replicas, have one load the version, so that a bad one cannot take down all of them at once.

        Raises as Replicas.wait_until_loaded; then the others keep serving without the version. `before`: the statuses
        from before the rollout.
        """
        model, version = self.model, self._version
        names = sorted(status.replica for status in before if status.loaded is not None)
        if self._spec.serving is None or len(before) < 2 or not names:
            return
        if any(version in (status.loaded or ()) for status in before):
            return
        named = FirstLoad.of(self._registry.state(model).tags)
        # The one that was named stays so: if the version has taken it down, it must not take down another.
        first = named.replica if named is not None and named.version == version else ""
        first = first or names[0]
        self._registry.load_first(model, FirstLoad(version=version, replica=first))
        log.info("Replica %s loads version %d before the others", first, version)
        self._replicas.wait_until_loaded(version, first, self._spec.rollout.timeout_seconds, before)

    def stages(self) -> None:
        """Run every stage before `full`. Raises RolloutAborted, StepError and TransientError as the step does.

        A model that no service serves has no traffic to split or to watch, so it has no stages.
        """
        if self._spec.serving is None:
            log.info("No service serves %s: the rollout has no stages", self.model)
            return
        for number, _ in enumerate(self._spec.rollout.stages[:-1], 1):
            self._run(number)

    def full(self) -> None:
        """Set the traffic of the last stage, after the aliases have been moved. This ends the traffic split."""
        stage = self._full_stage()
        self._registry.set_traffic(self.model, stage.desired if stage else FULL)

    def watch_full(self) -> None:
        """Watch the guards in the plan's `full` stage, if it has one, with the version as champion."""
        if stage := self._full_stage():
            self._watch(stage)

    def results(self) -> list[StageResult]:
        return [
            StageResult(stage=s.id, requests=s.requests, findings=list(s.findings), comparison=list(s.comparison))
            for s in self.passed
        ]

    def check_not_cancelled(self) -> None:
        """Raises RolloutAborted when another move has begun, or someone has ended this one."""
        if self._move is None:
            return
        moves = [e for e in self._ledger.entries(self.model) if e.kind in (ROLLOUT, ROLLBACK)]
        last = last_move([entry.body for entry in moves])
        if last is not None and (last.number, last.phase) != (self._move.number, "started"):
            raise self._cancelled(last)

    def _cancelled(self, move: Move) -> RolloutAborted:
        by = f"a {move.kind} to version {move.version}" + (f": {move.reason}" if move.reason else "")
        problem = f"The rollout of version {self._version} was cancelled by {by}"
        return RolloutAborted(problem, "There is nothing left to do.")

    def _full_stage(self) -> Stage | None:
        """The plan's `full` stage, if it lasts for a time or a number of requests; it has then begun."""
        plan = self._spec.rollout.stages
        if self._move is None or self._spec.serving is None or not (plan[-1].minutes or plan[-1].requests):
            return None
        return self._begun(len(plan))

    def _begun(self, number: int) -> Stage:
        """Stage `number` of this move, in the ledger. A stage that has begun before keeps its time."""
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
            log.info("Stage %s has passed before", stage.id)
            self.passed.append(done)
            return
        before = self._replicas.statuses()
        self._registry.set_alias(self.model, CHALLENGER, self._version)
        self._registry.load_everywhere(self.model, self._version)
        self._registry.set_traffic(self.model, stage.desired)
        log.info("Stage %s: %s", stage.id, describe(stage))
        try:
            self._replicas.wait_until_in_stage(stage.id, self._version, self._spec.rollout.timeout_seconds, before)
        except StepError:
            self.check_not_cancelled()  # Replicas that have followed a rollback do not come into the stage.
            raise
        self._watch(stage)

    def _watch(self, stage: Stage) -> None:
        """Watch until the stage is over or a guard trips."""
        totals, labels = SignalTotals(stage.id), LateLabels(stage, self._move, self._spec, self._settings)
        last_complete = last_logged = watched = time.monotonic()
        # The clock may be set meanwhile, forwards or back, also to before the stage began.
        resumed = max(datetime.now(UTC), stage.began)
        while True:
            self.check_not_cancelled()
            statuses = self._replicas.statuses(signals=True)
            signals = totals.add(statuses)
            requests = signals.of(self._version).rows
            # Before the registry is asked, which may take a while.
            self._examine(stage, signals, labels)
            missing = self._missing(stage, statuses)
            if missing is None:
                last_complete = time.monotonic()
            elif time.monotonic() - last_complete > self._spec.rollout.timeout_seconds:
                raise Unreachable(f"Stage {stage.id} of version {self._version} is unwatched: {missing}", "Retry.")
            now = resumed + timedelta(seconds=time.monotonic() - watched)
            over = stage.over(requests, now) if missing is None else "no"
            if over != "no":
                silent = over == "silent" and stage.spec.on_silence == "promote"
                findings = self._examine(stage, signals, labels, final=over == "yes" or silent, silent=silent)
                if over == "yes" or self._passes_in_silence(stage, requests):
                    self._pass(stage, signals, findings, labels)
                    return
            if time.monotonic() - last_logged > PROGRESS_SECONDS:
                last_logged = time.monotonic()
                log.info("Stage %s: %d requests%s", stage.id, requests, f"; {missing}" if missing else "")
            time.sleep(POLL_SECONDS)

    def _examine(
        self, stage: Stage, signals: Signals, labels: LateLabels, final: bool = False, silent: bool = False
    ) -> list[Finding]:
        """The findings of the guards. Raises RolloutAborted when a guard trips."""
        guards, alert_rate = self._spec.rollout.guards, self._spec.task.alert_rate
        found = examine(signals, guards, alert_rate, final, silent, self._ordered)
        found += labels.findings(final)
        if any(finding.tripped for finding in found):
            self._trip(stage, signals.of(self._version).rows, found)
        return found

    def _missing(self, stage: Stage, statuses: list[ReplicaStatus]) -> str | None:
        """Which replicas are not in the stage now, or that MLflow does not answer; None when all is well.

        Raises RolloutAborted when someone has changed the champion or the stage in the registry.
        """
        elsewhere = [str(status) for status in statuses if status.stage != stage.id]
        try:
            state = self._registry.state(self.model)
        except TransientError as error:
            return error.message
        champion = self._version if stage.spec.mode == "full" else self._move.champion if self._move else None
        if (state.aliases.get(CHAMPION), state.tags.get(STAGE_TAG)) != (champion, stage.id):
            self.check_not_cancelled()
            if by := begun_rollback(state.tags.get(ROLLBACK_TAG)):
                raise self._cancelled(by)  # It moves the aliases first, and writes to the ledger then.
            now = f"champion is version {state.aliases.get(CHAMPION)}, stage {state.tags.get(STAGE_TAG)}"
            raise RolloutAborted(f"The registry was changed during stage {stage.id}: {now}", "Start the rollout again.")
        return "; ".join(elsewhere) or None

    def _trip(self, stage: Stage, requests: int, findings: list[Finding]) -> None:
        ended = stage.model_copy(
            update={"phase": "tripped", "requests": requests, "findings": tuple(map(str, findings))}
        )
        self._ledger.claim(STAGE, self.model, ended.model_dump(mode="json"), ended.key)
        self.passed.append(ended)
        reasons = "; ".join(finding.sentence for finding in findings if finding.tripped)
        names = ", ".join(dict.fromkeys(finding.guard for finding in findings if finding.tripped))
        raise RolloutAborted(
            f"Guard {names} tripped in stage {stage.id} after {requests} requests, version {self._version} is rolled "
            f"back: {reasons}",
            hint="The numbers are in the ledger and in the version's MLflow run. Correct the model and train again.",
        )

    def _passes_in_silence(self, stage: Stage, requests: int) -> bool:
        """Apply the plan's `on_silence`: True to promote, RolloutAborted to fail, Unreachable to hold."""
        traffic = f"only {requests} of {stage.spec.requests} requests in {stage.spec.maximum_minutes:g} minutes"
        if stage.spec.on_silence == "promote":
            log.warning("Stage %s: %s; the plan continues", stage.id, traffic)
            return True
        if stage.spec.on_silence == "fail":
            hint = "Check that requests reach the service. Then train again."
            raise RolloutAborted(f"Stage {stage.id} failed: {traffic}", hint)
        hint = "The stage continues. Clear this task to check again, or run the rollback DAG to end it."
        raise Unreachable(f"Stage {stage.id} is held: {traffic}", hint)

    def _pass(self, stage: Stage, signals: Signals, findings: list[Finding], labels: LateLabels) -> None:
        compared = comparison(stage, signals, labels, self._spec) if stage.spec.mode == "ab" else []
        ended = stage.model_copy(
            update={
                "phase": "passed",
                "requests": signals.of(self._version).rows,
                "findings": tuple(map(str, findings)),
                "comparison": tuple(compared),
            }
        )
        self._ledger.claim(STAGE, self.model, ended.model_dump(mode="json"), ended.key)
        self.passed.append(ended)
        log.info("Stage %s passed after %d requests:", stage.id, ended.requests)
        for line in (*ended.findings, *ended.comparison):
            log.info("  %s", line)


def describe(stage: Stage) -> str:
    """The stage in a sentence."""
    spec = stage.spec
    traffic = {
        "shadow": f"version {stage.version} scores every request and answers none",
        "canary": f"version {stage.version} answers {spec.weight or 0:g} % of the keys",
        "ab": f"experiment {spec.experiment}: version {stage.version} answers {spec.weight or 0:g} % of the keys",
        "full": f"version {stage.version} answers everything",
    }[spec.mode]
    length = [f"{spec.requests} requests"] if spec.requests else []
    length += [f"{spec.minutes:g} minutes"] if spec.minutes else []
    return f"{traffic}, for {' and '.join(length)}; after {spec.maximum_minutes:g} minutes: {spec.on_silence}"
