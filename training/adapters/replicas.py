"""The prediction service seen from outside: what each replica says that it serves and has seen, over HTTP."""

import json
import logging
import time
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from http.client import HTTPException
from typing import Any

from pydantic import SecretStr

from training.adapters.replica_urls import expand
from training.contract.errors import StepError, TransientError
from training.contract.signals import Signals

POLL_SECONDS = 0.25
#: One replica that hangs must not eat the time of the others.
LOOK_SECONDS = 3.0
_START = "Start the service, or set CT_SERVING_URLS to the replicas that there are; then retry."

log = logging.getLogger("perennial")


@dataclass(frozen=True)
class ReplicaStatus:
    """One replica at one moment. `version` is None when it serves none, or did not answer: `problem` says why."""

    url: str
    replica: str = ""
    version: int | None = None
    digest: str = ""
    since: datetime | None = None
    #: Version → (reason, when it was refused).
    refused: Mapping[int, tuple[str, str]] = field(default_factory=dict)
    problem: str | None = None
    #: What it has seen in its state of traffic, where that was asked for.
    signals: Signals | None = None

    def __str__(self) -> str:
        serves = "serves no version" if self.version is None else f"serves version {self.version}"
        stage = f", stage {self.signals.traffic.stage or 'none'}" if self.signals else ""
        return f"{self.url} {serves}{stage}" + (f" ({self.problem})" if self.problem else "")


class Replicas:
    """The replicas of `model` behind `urls`, which are asked at the same time; one name may stand for many replicas.

    `api_key`: for services that want one.
    """

    def __init__(self, urls: Sequence[str], model: str, api_key: SecretStr | None = None) -> None:
        self._urls, self._model = list(urls), model
        self._headers = {"Authorization": f"Bearer {api_key.get_secret_value()}"} if api_key else {}

    def look(self, signals: bool = False) -> list[ReplicaStatus]:
        """What each serves. Never raises: who does not answer is reported as such."""
        replicas, lost = list[str](), list[ReplicaStatus]()
        for url in self._urls:
            try:
                replicas += expand(url)
            except (OSError, ValueError) as error:
                lost.append(ReplicaStatus(url, problem=f"it leads to no replica: {error}"))
        with ThreadPoolExecutor(min(len(replicas), 16) or 1) as pool:
            return [*pool.map(lambda url: self._look(url, signals), replicas), *lost]

    def wait_until_served(
        self, version: int, timeout: float, before: Sequence[ReplicaStatus] = ()
    ) -> list[ReplicaStatus]:
        """Wait until every replica serves `version` to everyone. `before` are looks from before it was asked for.

        Raises StepError as soon as a replica refuses the version anew, TransientError after `timeout` seconds; both
        name the replicas, what they serve and why.
        """

        def there(look: ReplicaStatus) -> bool:
            return look.version == version and look.signals is not None and look.signals.traffic.mode == "full"

        return self._wait(there, f"serves version {version}", version, timeout, before)

    def wait_until_in_stage(
        self, stage: str, version: int, timeout: float, before: Sequence[ReplicaStatus] = ()
    ) -> list[ReplicaStatus]:
        """Wait until every replica reports the stage `stage`, with `version` loaded. Raises as `wait_until_served`."""

        def there(look: ReplicaStatus) -> bool:
            return look.signals is not None and look.signals.traffic.stage == stage and not _lacks(look, version)

        return self._wait(there, f"is in stage {stage}", version, timeout, before)

    def _wait(
        self,
        there: Callable[[ReplicaStatus], bool],
        what: str,
        version: int,
        timeout: float,
        before: Sequence[ReplicaStatus],
    ) -> list[ReplicaStatus]:
        known = {each.url: each.refused.get(version) for each in before}
        deadline, waiting_for = time.monotonic() + timeout, self._urls
        while True:
            looks = self.look(signals=True)
            lagging = [each for each in looks if not there(each)]
            if not lagging:
                return looks
            for each in lagging:
                refusal = each.refused.get(version)
                if refusal is not None and refusal != known.get(each.url):
                    hint = "The version stays in the registry; train again, or see the log of the service."
                    raise StepError(f"{each.url} refuses {self._model} version {version}: {refusal[0]}. {each}", hint)
            if time.monotonic() > deadline:
                who = "; ".join(str(each) for each in lagging)
                raise TransientError(f"After {timeout:g} s not every replica {what}: {who}", _START)
            if waiting_for != (now := [each.url for each in lagging]):
                log.info("Waiting for %s", "; ".join(map(str, lagging)))
                waiting_for = now
            time.sleep(POLL_SECONDS)

    def _look(self, url: str, signals: bool) -> ReplicaStatus:
        try:
            said = self._get(f"{url}/models")
            if said["model"] != self._model:
                return ReplicaStatus(
                    url, said["replica"], problem=f"it is a service of model {said['model']}, not {self._model}"
                )
            refused = {int(version): (each["reason"], each["at"]) for version, each in said["refused"].items()}
            champion = said["slots"].get("champion") or {}
            return ReplicaStatus(
                url,
                said["replica"],
                champion.get("version"),
                champion.get("digest", ""),
                datetime.fromisoformat(champion["since"]) if champion else None,
                refused,
                said.get("problem"),
                Signals.model_validate(self._get(f"{url}/signals")) if signals else None,
            )
        except (OSError, HTTPException) as error:
            return ReplicaStatus(url, problem=f"it did not answer: {error}")
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            return ReplicaStatus(url, problem=f"its answer is not that of a prediction service: {error!r}")

    def _get(self, url: str) -> Any:
        request = urllib.request.Request(url, headers=self._headers)
        with urllib.request.urlopen(request, timeout=LOOK_SECONDS) as answer:
            return json.load(answer)


def _lacks(look: ReplicaStatus, version: int) -> bool:
    signals = look.signals
    return signals is None or version not in (signals.champion, signals.challenger)


class SignalTotals:
    """Signals of one stage summed over replicas; those of a process that is gone still count."""

    def __init__(self, stage: str) -> None:
        self._stage = stage
        self._seen: dict[tuple[str, datetime | None], Signals] = {}

    def add(self, looks: Sequence[ReplicaStatus]) -> Signals:
        """The sum, with these newest looks; replicas in another stage are left out."""
        for each in looks:
            if each.signals is not None and each.signals.traffic.stage == self._stage:
                self._seen[each.url, each.signals.since] = each.signals
        return Signals.merged(list(self._seen.values()))
