"""The prediction service seen from outside: what each replica says that it serves, over HTTP."""

import json
import logging
import time
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from http.client import HTTPException
from typing import Any

from training.adapters.replica_urls import expand
from training.contract.errors import StepError, TransientError

POLL_SECONDS = 0.25
#: One replica that hangs must not eat the time of the others.
LOOK_SECONDS = 3.0

log = logging.getLogger("perennial")


@dataclass(frozen=True)
class Look:
    """One replica at one moment. `version` is None when it serves none, or did not answer: `problem` says why."""

    url: str
    replica: str = ""
    version: int | None = None
    digest: str = ""
    since: datetime | None = None
    #: Version → (reason, when it was refused).
    refused: Mapping[int, tuple[str, str]] = field(default_factory=dict)
    problem: str | None = None

    def __str__(self) -> str:
        serves = "serves no version" if self.version is None else f"serves version {self.version}"
        return f"{self.url} {serves}" + (f" ({self.problem})" if self.problem else "")


def look(url: str, model: str) -> Look:
    """What the replica at `url` serves of `model`. Never raises: who does not answer is reported as such."""
    try:
        with urllib.request.urlopen(f"{url}/models", timeout=LOOK_SECONDS) as answer:
            said: dict[str, Any] = json.load(answer)
        if said["model"] != model:
            return Look(url, said["replica"], problem=f"it is a service of model {said['model']}, not {model}")
        refused = {int(version): (each["reason"], each["at"]) for version, each in said["refused"].items()}
        champion = said["slots"].get("champion")
        found = Look(url, said["replica"], refused=refused, problem=said.get("problem"))
        if champion is None:
            return found
        since = datetime.fromisoformat(champion["since"])
        return Look(url, found.replica, champion["version"], champion["digest"], since, refused, found.problem)
    except (OSError, HTTPException) as error:
        return Look(url, problem=f"it did not answer: {error}")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        return Look(url, problem=f"its answer is not that of a prediction service: {error!r}")


def look_at(urls: Sequence[str], model: str) -> list[Look]:
    """A look at every replica behind `urls`, of which one may stand for many. Never raises."""
    looks: list[Look] = []
    for url in urls:
        try:
            looks += [look(each, model) for each in expand(url)]
        except (OSError, ValueError) as error:
            looks.append(Look(url, problem=f"it leads to no replica: {error}"))
    return looks


def wait_until_served(
    urls: Sequence[str], model: str, version: int, timeout: float, before: Sequence[Look] = ()
) -> list[Look]:
    """Wait until every replica serves `version`. `before` are looks from before it was asked for.

    Raises StepError as soon as a replica refuses the version anew, TransientError after `timeout` seconds; both name
    the replicas, what they serve and why.
    """
    known = {each.url: each.refused.get(version) for each in before}
    deadline, waiting_for = time.monotonic() + timeout, list(urls)
    while True:
        looks = look_at(urls, model)
        lagging = [each for each in looks if each.version != version]
        if not lagging:
            return looks
        for each in lagging:
            refusal = each.refused.get(version)
            if refusal is not None and refusal != known.get(each.url):
                hint = "The version stays in the registry; train again, or see the log of the service."
                raise StepError(f"{each.url} refuses {model} version {version}: {refusal[0]}. {each}", hint)
        if time.monotonic() > deadline:
            who = "; ".join(str(each) for each in lagging)
            hint = "Start the service, or set CT_SERVING_URLS to the replicas that there are; then retry."
            raise TransientError(f"After {timeout:g} s not every replica serves version {version}: {who}", hint)
        if waiting_for != (now := [each.url for each in lagging]):
            log.info("Waiting for %s", "; ".join(map(str, lagging)))
            waiting_for = now
        time.sleep(POLL_SECONDS)
