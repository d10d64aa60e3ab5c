"""The models of the service: one host for each. They share the replica; each has its own troubles."""

import logging
from collections.abc import Callable, Mapping

from serving.endpoint import PREDICT, PREDICT_BATCH, Endpoint, PredictEndpoint
from serving.frontend import Frontend
from serving.model_host import ModelHost
from serving.readiness import Probe, Probes
from serving.replica import Replica
from training.contract.replicas import ReplicaState, ServedModels

log = logging.getLogger("perennial")


class ModelHosts:
    """Fills `frontend.endpoints`. Belongs to the event loop in which it is started.

    `on_change` is called in the event loop whenever other models are served.
    """

    def __init__(self, replica: Replica, frontend: Frontend, on_change: Callable[[], None]) -> None:
        self.replica = replica
        self._frontend, self._on_change = frontend, on_change
        self._hosts = {name: ModelHost(replica, spec) for name, spec in frontend.specs.good.items()}
        self._probes = Probes(self._all_probes)

    @property
    def not_served(self) -> dict[str, str]:
        """Model → why it is not served although it should be."""
        return {name: why for name, why in self._frontend.specs.broken.items() if name not in self._hosts}

    @property
    def all(self) -> Mapping[str, ModelHost]:
        """Name → host."""
        return self._hosts

    def start(self) -> None:
        self.replica.open()
        for host in self._hosts.values():
            host.start()
        self._probes.start()
        self._changed()

    def stop(self) -> None:
        """Finish the requests under way, write the prediction logs to disk, and ship what can be shipped."""
        self._probes.close()
        self.replica.close()
        for host in self._hosts.values():
            host.stop()

    def why_not_ready(self) -> str | None:
        """None when the replica can answer for at least one model. At the start it waits for all.

        A model that has no champion must not take the others out of the rotation. But a replica that has just started
        must not get the requests to a model whose versions it is still loading.
        """
        if self.replica.limits.draining:
            return "The service is being taken out of the rotation"
        if not self._hosts:
            return "No model is served"
        loading = [name for name, host in self._hosts.items() if not host.watcher.settled]
        if loading:
            return f"The service is loading {', '.join(loading)}"
        reasons = {name: host.why_not_ready() for name, host in self._hosts.items()}
        if any(reason is None for reason in reasons.values()):
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

    def _changed(self) -> None:
        """Have requests answered by the hosts that there are now."""
        self.replica.limits.models = len(self._hosts)
        endpoints = dict[str, Endpoint]()
        for name, host in self._hosts.items():
            for path in (PREDICT, PREDICT_BATCH):
                endpoint = PredictEndpoint(host, self._frontend.auth, self.replica.settings, path)
                endpoints[f"/models/{name}{path}"] = endpoint
                if len(self._hosts) == 1:
                    endpoints[path] = endpoint
        self._frontend.endpoints.clear()
        self._frontend.endpoints.update(endpoints)
        self._on_change()

    def _all_probes(self) -> list[Probe]:
        return [host.probe for host in self._hosts.values()]
