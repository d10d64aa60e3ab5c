"""The models of the service: one host for each. They share the replica. A failure of one does not affect the others.

The spec files are read again when they change. A new model gets a host, and that of a removed one is closed. When a
spec has changed, a second host loads the versions with the new spec, and takes over once it can answer. While a file is
broken, or no version can serve with the new spec, the host of the last good spec stays.
"""

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from serving.endpoint import PREDICT
from serving.model_host import ModelHost
from serving.model_unloader import ModelUnloader
from serving.readiness import Probes
from serving.replica import Replica
from serving.schema import BadRequest, Problem
from serving.served_specs import ServedSpecs
from training.adapters.registry import CHAMPION
from training.contract.errors import ConfigError
from training.contract.model_spec import ModelSpec
from training.contract.replicas import ReplicaState, ServedModels

#: Between two looks at the spec files. A model is removed when its file is missing in two looks: who replaces files may
#: remove them first.
SPEC_SECONDS = 1.0
#: How long a replica that starts waits for the versions of all models, if those of one can answer already.
START_SECONDS = 60.0
#: The parts of a spec that serving uses. A change of another part changes nothing here.
SERVED_PARTS = {"name", "title", "description", "source", "features", "task", "rollout"}

log = logging.getLogger("perennial")


class ModelHosts:
    """Belongs to the event loop in which it is started.

    `on_change` is called in the event loop whenever other models are served, or with other specs.
    """

    def __init__(self, replica: Replica, specs: ServedSpecs, on_change: Callable[[], None]) -> None:
        self.replica = replica
        self._specs, self._on_change = specs, on_change
        #: Changed in the event loop only.
        self._hosts: dict[str, ModelHost] = {}
        #: The host that answers requests which name no model.
        self._answers_alone: ModelHost | None = None
        # The rest belongs to the thread that watches the specs.
        #: Hosts with a new spec, which do not answer yet.
        self._successors: dict[str, ModelHost] = {}
        #: Model → why it has no host.
        self._failed: dict[str, str] = {}
        #: Models whose files were missing at the last look.
        self._missing: set[str] = set()
        #: Models whose specs have a series in the metrics.
        self._counted: set[str] = set()
        self._was_ready = False
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch_specs, name="spec-watcher", daemon=True)
        self._probes = Probes(lambda: self._hosts.values())
        self._unloader = ModelUnloader(replica, lambda: self._hosts.values())

    @property
    def all(self) -> Mapping[str, ModelHost]:
        """Name → host."""
        return self._hosts

    @property
    def not_served(self) -> dict[str, str]:
        """Model → why it is not served although it should be."""
        reasons = {**self._specs.broken, **self._failed}
        return {name: why for name, why in reasons.items() if name not in self._hosts}

    def of(self, model: str) -> ModelHost:
        """The host of `model`. Raises BadRequest: 503 for a model that should be served, 404 for any other."""
        host = self._hosts.get(model)
        if host is None:
            raise self.refusal(model)
        return host

    def refusal(self, model: str) -> BadRequest:
        """For a request to `model`, which has no host, or to none ("") although the service does not have exactly one.

        404 says that a model does not exist, so callers do not ask again: a model that should be served gets 503.
        """
        not_served = self.not_served
        if not model and not self._hosts and len(not_served) == 1:
            [model] = not_served
        if (why := not_served.get(model)) is not None:
            return BadRequest(503, Problem(error=f"{model} cannot be served now: {why}"), retry_after=1)
        names = ", ".join(sorted(self._hosts)) or "none"
        if model:
            return BadRequest(404, Problem(error=f"{model} is not served here. Models: {names}"))
        return BadRequest(404, Problem(error=f"Name the model: /models/<model>{PREDICT}. Models: {names}"))

    @property
    def only(self) -> ModelHost | None:
        """The host of the only model; None when the service has several, or should have."""
        names = {*self._specs.good, *self._hosts}
        return self._hosts.get(names.pop()) if len(names) == 1 else None

    def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.replica.open()
        self._began = time.monotonic()
        specs = self._specs.good
        loaded = self._unloader.loaded_at_start(specs)
        hosts = [self._started(spec, unloaded=name not in loaded) for name, spec in specs.items()]
        self._serve({host.spec.name: host for host in hosts if host})
        self.replica.spools.ship_leftovers()
        self._count_spec_problems()
        self._probes.start()
        self._unloader.start()
        self._thread.start()

    def stop(self) -> None:
        """Finish the requests under way, write the prediction logs to disk, and ship what can be shipped."""
        self._stop.set()
        self._thread.join(1)
        self._probes.close()
        self._unloader.stop()
        self.replica.close()
        closing = [threading.Thread(target=host.stop, daemon=True) for host in self._hosts.values()]
        for thread in closing:
            thread.start()
        for thread in closing:
            thread.join()
        self.replica.spools.close()

    def why_not_ready(self) -> str | None:
        """None when the replica can answer for at least one model.

        A model that has no champion must not take the others out of the rotation. But a replica that has just started
        must not get requests to a model whose versions it is still loading. It waits for START_SECONDS at most.
        """
        if self.replica.limits.draining:
            return "The service is being taken out of the rotation"
        hosts = dict(self._hosts)
        if not hosts:
            return "No model is served"
        loading = [name for name, host in hosts.items() if not host.watcher.settled]
        if loading and not self._was_ready and time.monotonic() - self._began < START_SECONDS:
            return f"The service is loading {', '.join(loading)}"
        reasons = {name: host.why_not_ready() for name, host in hosts.items()}
        if any(reason is None for reason in reasons.values()):
            self._was_ready = True
            return None
        return "; ".join(f"{name}: {reason}" for name, reason in reasons.items())

    def models(self) -> ServedModels:
        """`GET /models`."""
        return ServedModels(
            replica=self.replica.name,
            service=self.replica.settings.serving_name,
            models={name: host.models() for name, host in self._hosts.items()},
            not_served=self.not_served,
        )

    def state(self) -> ReplicaState:
        """`GET /admin/state`."""
        limits = self.replica.limits
        return ReplicaState(
            replica=self.replica.name,
            ready=self.why_not_ready() or "yes",
            draining=limits.draining,
            in_flight=limits.in_flight,
            lag_seconds=limits.lag,
            models={name: host.state() for name, host in self._hosts.items()},
            not_served=self.not_served,
        )

    def _serve(self, hosts: dict[str, ModelHost]) -> None:
        """Have requests answered by `hosts`. Called in the event loop."""
        self._hosts = hosts
        self._answers_alone = self.only
        self.replica.limits.models = len(self._hosts)
        self._on_change()

    def _started(self, spec: ModelSpec, before: ModelHost | None = None, unloaded: bool = False) -> ModelHost | None:
        """A started host; None when it cannot be made: then `not_served` says why, and the next look tries again.

        `before`: the host of an earlier spec. `unloaded`: the first request loads its versions.
        """
        try:
            host = ModelHost(self.replica, spec, before)
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            if self._failed.get(spec.name) != reason:
                log.exception("%s cannot be served", spec.name)
            self._failed[spec.name] = reason
            return None
        self._failed.pop(spec.name, None)
        if before is None:
            host.last_request = self._unloader.last_request(spec.name)
        host.start(unloaded)
        return host

    # --- the thread that watches the specs ---

    def _watch_specs(self) -> None:
        while not self._stop.wait(SPEC_SECONDS):
            try:
                if self._specs.read():
                    self._count_spec_problems()
                self._follow_specs()
            except ConfigError as error:
                log.error("The spec files cannot be read, and the models are served as before: %s", error)
            except Exception:
                log.exception("The spec files could not be followed")

    def _follow_specs(self) -> None:
        """Make the hosts those of the specs as they are now."""
        good, broken = self._specs.good, self._specs.broken
        for name, spec in good.items():
            host = self._hosts.get(name)
            if host is None:
                if made := self._started(spec):
                    made.metrics.champion.set(0)
                    made.metrics.wanted_champion.set(0)
                    self._put(made)
                    log.info("%s is served now", name)
            else:
                self._follow_spec(host, spec)
                host.spec_problem = broken.get(name) or self._waiting_for(name)
        gone = self._hosts.keys() - good.keys()
        for name in gone & self._missing:
            log.info("%s is not served any more", name)
            self._remove(name)
        self._missing = gone - self._missing
        if self.only is not self._answers_alone:
            self._serve_in_loop(self._hosts)

    def _follow_spec(self, host: ModelHost, spec: ModelSpec) -> None:
        """Let a successor take over from `host` when `spec` is another one, and the successor can answer."""
        name, successor = spec.name, self._successors.get(spec.name)
        if successor is not None and _differs(successor.spec, spec):
            self._discard_successor(name)
            successor = None
        if not _differs(host.spec, spec):
            self._discard_successor(name)
            return
        if successor is None:
            log.info("The spec of %s has changed: loading its versions with the new one", name)
            if (successor := self._started(spec, before=host)) is None:
                return
            self._successors[name] = successor
        if self._may_take_over(successor, host):
            del self._successors[name]
            self._put(successor)
            successor.take_over()
            host.retire()
            log.info("%s is served with its new spec", name)

    def _may_take_over(self, successor: ModelHost, host: ModelHost) -> bool:
        """Whether `successor` serves what `host` does, or what the registry asks for, and can answer with it."""
        if not successor.watcher.settled:
            return False
        if not host.watcher.traffic.can_answer:
            return True
        if not _serves_what(host, successor):
            return False
        # Probes check the hosts that answer already.
        self._in_loop(successor.check)
        return successor.why_not_ready() is None or host.why_not_ready() is not None

    def _remove(self, name: str) -> None:
        self._discard_successor(name)
        host = self._hosts[name]
        self._serve_in_loop({each: kept for each, kept in self._hosts.items() if each != name})
        host.retire()
        host.metrics.removed()

    def _put(self, host: ModelHost) -> None:
        """Have `host` answer for its model."""
        self._serve_in_loop({**self._hosts, host.spec.name: host})

    def _discard_successor(self, name: str) -> None:
        if (successor := self._successors.pop(name, None)) is not None:
            successor.retire()

    def _waiting_for(self, name: str) -> str | None:
        """Why the new spec of a model is not used yet; None when it is used."""
        successor = self._successors.get(name)
        if successor is None:
            return self._failed.get(name)
        why = successor.watcher.problem or successor.why_not_ready()
        return f"The spec has changed, and the one before is used: {why}"

    def _count_spec_problems(self) -> None:
        specs = self._specs
        # A file that was broken and is gone, or names another service now, is no problem any more.
        self._counted |= {*specs.good, *specs.broken}
        for name in self._counted:
            self.replica.metrics.spec_problem.labels(name).set(int(name in specs.broken))
        for name, why in specs.broken.items():
            log.error("The spec of %s cannot be used: %s", name, why)

    def _serve_in_loop(self, hosts: dict[str, ModelHost]) -> None:
        async def serve() -> None:
            self._serve(hosts)

        self._in_loop(serve)

    def _in_loop(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Do `work` in the event loop, and wait for it."""
        asyncio.run_coroutine_threadsafe(work(), self._loop).result()


def _serves_what(host: ModelHost, successor: ModelHost) -> bool:
    """Whether `successor` has the champion of `host`, or one that the registry asks for and `host` does not have.

    Both follow the registry. While one of them still loads the new champion, they differ although each had at some
    moment what the registry asked for.
    """
    theirs, ours = (each.watcher.traffic.versions.get(CHAMPION) for each in (host, successor))
    if theirs is None or ours is None:
        return False
    if (theirs.version, theirs.digest) == (ours.version, ours.digest):
        return True
    return successor.watcher.champion_problem is None and host.watcher.champion_problem is not None


def _differs(one: ModelSpec, other: ModelSpec) -> bool:
    """Whether two specs differ in what serving uses."""
    if one is other:
        return False
    return one.model_dump(include=SERVED_PARTS) != other.model_dump(include=SERVED_PARTS)
