"""The replicas of the prediction service, asked over HTTP which versions they serve and what they have counted."""

import logging
import time
import urllib.request
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.client import HTTPException
from urllib.error import HTTPError

from pydantic import SecretStr, ValidationError

from training.adapters.replica_urls import expand
from training.contract.errors import StepError, TransientError
from training.contract.replicas import LoadedVersion, Refusal, ReplicaModels
from training.contract.signals import Signals
from training.contract.traffic import FIRST

POLL_SECONDS = 0.25
#: Limit of one request to a replica, so that one that hangs does not delay the others.
REQUEST_SECONDS = 3.0
_START = "Start the service, or set CT_SERVING_URLS to the replicas that exist; then retry."

log = logging.getLogger("perennial")


@dataclass(frozen=True)
class ReplicaStatus:
    """One replica at one moment."""

    url: str
    replica: str = ""
    champion: LoadedVersion | None = None
    #: Version → why it was refused.
    refused: Mapping[int, Refusal] = field(default_factory=dict)
    #: The versions in its memory; None when an older replica does not say it.
    loaded: Collection[int] | None = None
    #: Why it does not do what the registry asks for, or gave no answer.
    problem: str | None = None
    #: What it has counted in its state of traffic, if that was asked for.
    signals: Signals | None = None
    #: Whether it has predictions that are not in the lake yet; None when it does not say it.
    unshipped: bool | None = None

    @property
    def version(self) -> int | None:
        """The version that answers; None when there is none."""
        return self.champion.version if self.champion else None

    @property
    def since(self) -> datetime | None:
        """Since when it answers."""
        return self.champion.since if self.champion else None

    @property
    def stage(self) -> str | None:
        """The stage of the rollout, empty without one; None when the signals are not known."""
        return self.signals.traffic.stage if self.signals else None

    def __str__(self) -> str:
        serves = "serves no version" if self.version is None else f"serves version {self.version}"
        stage = f", stage {self.stage or 'none'}" if self.signals else ""
        return f"{self.url} {serves}{stage}" + (f" ({self.problem})" if self.problem else "")


class Replicas:
    """The replicas of `model` behind `urls`; one name may stand for several replicas. All are asked at the same time.

    `api_key`: for services that require one.
    """

    def __init__(self, urls: Sequence[str], model: str, api_key: SecretStr | None = None) -> None:
        self._urls, self._model = list(urls), model
        self._headers = {"Authorization": f"Bearer {api_key.get_secret_value()}"} if api_key else {}

    def statuses(self, signals: bool = False) -> list[ReplicaStatus]:
        """The status of every replica, with its signals if asked for. Never raises: `problem` says what went wrong."""
        urls, unresolved = list[str](), list[ReplicaStatus]()
        for url in self._urls:
            try:
                urls += expand(url)
            except (OSError, ValueError) as error:
                unresolved.append(ReplicaStatus(url, problem=f"it leads to no replica: {error}"))
        with ThreadPoolExecutor(min(len(urls), 16) or 1) as pool:
            return [*pool.map(lambda url: self._status(url, signals), urls), *unresolved]

    def wait_until_served(
        self, version: int, timeout: float, before: Sequence[ReplicaStatus] = ()
    ) -> list[ReplicaStatus]:
        """Wait until `version` answers all requests on every replica. Returns the last statuses.

        `before` are the statuses from before the version was asked for. A refusal in them does not count if the replica
        tries the version again in time: its cause may be gone. Raises StepError as soon as a replica refuses the
        version, TransientError after `timeout` seconds. Both name the replicas, what they serve and why.
        """

        def reached(status: ReplicaStatus) -> bool:
            return status.version == version and status.signals is not None and status.signals.traffic.mode == "full"

        return self._wait(reached, f"serves version {version}", version, timeout, before)

    def wait_until_in_stage(
        self, stage: str, version: int, timeout: float, before: Sequence[ReplicaStatus] = ()
    ) -> list[ReplicaStatus]:
        """Wait until every replica is in `stage` and has loaded `version`. Raises as `wait_until_served`."""

        def reached(status: ReplicaStatus) -> bool:
            return status.stage == stage and _takes_part(version, status.signals)

        return self._wait(reached, f"is in stage {stage}", version, timeout, before)

    def wait_until_loaded(
        self, version: int, replica: str, timeout: float, before: Sequence[ReplicaStatus] = ()
    ) -> list[ReplicaStatus]:
        """Wait until `replica` has `version` in memory. Raises as `wait_until_served`."""

        def reached(status: ReplicaStatus) -> bool:
            return version in (status.loaded or ())

        return self._wait(reached, f"has loaded version {version}", version, timeout, before, replica)

    def _wait(
        self,
        reached: Callable[[ReplicaStatus], bool],
        goal: str,
        version: int,
        timeout: float,
        before: Sequence[ReplicaStatus],
        only: str = "",
    ) -> list[ReplicaStatus]:
        """`only`: the name of the replica that is waited for; empty: all."""
        refused_before = {status.url: status.refused.get(version) for status in before}
        deadline, logged = time.monotonic() + timeout, self._urls
        ends = datetime.now(UTC) + timedelta(seconds=timeout)
        while True:
            statuses = self.statuses(signals=True)
            awaited = [status for status in statuses if not only or status.replica == only]
            lagging = [status for status in awaited or statuses if not reached(status)]
            if not lagging:
                return statuses
            for status in lagging:
                refusal = status.refused.get(version)
                if refusal is not None and (refusal != refused_before.get(status.url) or _stays(refusal, ends)):
                    hint = "The version stays in the registry. Train again, or read the log of the service."
                    refuses = f"{status.url} refuses {self._model} version {version}: {refusal.reason}. {status}"
                    raise StepError(refuses, hint)
            if time.monotonic() > deadline:
                names = "; ".join(map(str, lagging))
                if only:
                    hint = f"If it is gone for good, remove the tag {FIRST} of {self._model} in MLflow, then retry."
                    raise TransientError(f"After {timeout:g} s replica {only} is not one that {goal}: {names}", hint)
                raise TransientError(f"After {timeout:g} s not every replica {goal}: {names}", _START)
            if logged != (urls := [status.url for status in lagging]):
                log.info("Waiting for %s", "; ".join(map(str, lagging)))
                logged = urls
            time.sleep(POLL_SECONDS)

    def _status(self, url: str, signals: bool) -> ReplicaStatus:
        try:
            models = ReplicaModels.model_validate_json(self._get(f"{url}/models/{self._model}"))
            if models.model != self._model:
                problem = f"it is a service of model {models.model}, not {self._model}"
                return ReplicaStatus(url, models.replica, problem=problem)
            counted = Signals.model_validate_json(self._get(f"{url}/models/{self._model}/signals")) if signals else None
            return ReplicaStatus(
                url=url,
                replica=models.replica,
                champion=models.champion,
                refused=models.refused,
                loaded=models.loaded_versions,
                problem=models.problem,
                signals=counted,
                unshipped=models.unshipped,
            )
        except HTTPError as error:
            if error.code == 404:
                return ReplicaStatus(url, problem=f"it does not serve {self._model}")
            return ReplicaStatus(url, problem=f"it did not answer: {error}")
        except (OSError, HTTPException) as error:
            return ReplicaStatus(url, problem=f"it did not answer: {error}")
        except ValidationError as error:
            return ReplicaStatus(url, problem=f"its answer is not that of a prediction service: {_one_line(error)}")

    def _get(self, url: str) -> bytes:
        request = urllib.request.Request(url, headers=self._headers)
        with urllib.request.urlopen(request, timeout=REQUEST_SECONDS) as answer:
            content: bytes = answer.read()
            return content


def _stays(refusal: Refusal, ends: datetime) -> bool:
    """Whether the replica tries the version again only after `ends`. An older replica does not say when."""
    return refusal.again is not None and refusal.again > ends


def _one_line(error: ValidationError) -> str:
    first = error.errors(include_url=False)[0]
    return f"{'.'.join(map(str, first['loc'])) or 'body'}: {first['msg']}"


def _takes_part(version: int, signals: Signals | None) -> bool:
    return signals is not None and version in (signals.champion, signals.challenger)


class SignalTotals:
    """The signals of one stage, summed over replicas. What replicas counted that have ended since is included."""

    def __init__(self, stage: str) -> None:
        self._stage = stage
        #: The newest signals of each replica and process: a restarted one counts from zero, at another `since`.
        self._newest: dict[tuple[str, datetime | None], Signals] = {}

    def add(self, statuses: Sequence[ReplicaStatus]) -> Signals:
        """The sum with these newest statuses. Replicas in another stage are left out."""
        for status in statuses:
            if status.signals is not None and status.stage == self._stage:
                self._newest[status.url, status.signals.since] = status.signals
        return Signals.merged(list(self._newest.values()))
