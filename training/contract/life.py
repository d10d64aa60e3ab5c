"""What the pages about models show: an event per step that a task ran, and per model a summary of its events.

Airflow's tasks write both to the work folder, and the pages read them (docs/pages.md). They are a view: no decision
depends on them. The ledger is the record of decisions.
"""

import hashlib
import re
from datetime import date, datetime
from typing import Any, Literal

from pydantic import ConfigDict

from training.contract.base import Frozen

#: The path below Airflow's address at which its API server mounts the pages.
PAGES = "perennial"
#: The folder in the work folder. No source or model has such a name.
FOLDER = "_life"
#: Its folders: `events/models/<model>`, `events/sources/<source>`, `overviews`.
EVENTS, OVERVIEWS = f"{FOLDER}/events", f"{FOLDER}/overviews"
Owner = Literal["models", "sources"]
#: `20261127T091500.000000Z-drift-0a1b2c3d.json`. Names sort in the order of time.
FILE_NAME = re.compile(r"\d{8}T\d{6}\.\d{6}Z-[a-z_]+-[0-9a-f]{8}\.json")
#: The file of a ledger entry. Names sort in the order of the entries.
ENTRY_NAME = re.compile(r"\d{8,}\.json")


class _Shown(Frozen):
    # A page may be older than what wrote the file.
    model_config = ConfigDict(extra="ignore")


class Event(_Shown):
    """One try of a task ran a step to its end."""

    at: datetime
    """When it ended, in UTC."""
    step: str
    status: Literal["succeeded", "failed"]
    seconds: float | None = None
    dag_id: str
    run_id: str
    task_id: str
    map_index: int = -1
    attempt: int = 1
    facts: dict[str, Any] = {}
    """What is shown of the step's inputs and result."""
    error: str = ""

    @property
    def task(self) -> str:
        return self.task_id if self.map_index < 0 else f"{self.task_id}[{self.map_index}]"

    @property
    def file_name(self) -> str:
        identity = "\0".join((self.dag_id, self.run_id, self.task, str(self.attempt)))
        return f"{self.at:%Y%m%dT%H%M%S.%f}Z-{self.step}-{hashlib.sha256(identity.encode()).hexdigest()[:8]}.json"


class Served(_Shown):
    """The version in service."""

    at: datetime
    version: int


class Registered(Served):
    """The newest version."""

    asks: bool = False
    """Whether a person must decide about it."""
    ended: str = ""
    """How the request for its approval ended, when it was not approved."""


class Judged(_Shown):
    """The last verdict."""

    at: datetime
    promote: bool
    challenger: str
    reasons: list[str] = []


class Measured(_Shown):
    """The primary metric on late labels, as of one day."""

    at: datetime
    as_of: date
    value: float
    reference: float | None = None
    """On the champion's holdout."""
    degraded: bool = False
    version: int | None = None


class Drifted(_Shown):
    at: datetime
    as_of: date | None = None
    share: float
    drifted: bool


class Waiting(_Shown):
    """Granted requests that no run has taken."""

    at: datetime
    requests: list[str] = []


class Outcome(_Shown):
    """How the newest try of a task ended."""

    at: datetime
    status: Literal["succeeded", "failed"]
    mapped: bool = False
    error: str = ""
    dag_id: str = ""
    run_id: str = ""


class Overview(_Shown):
    """The summary of a model's events."""

    model: str
    title: str = ""
    owner: str = ""
    source: str = ""
    primary: str = ""
    """The metric that decides."""
    at: datetime | None = None
    """The newest event."""
    champion: Served | None = None
    registered: Registered | None = None
    verdict: Judged | None = None
    performance: list[Measured] = []
    """Oldest first."""
    drift: Drifted | None = None
    waiting: Waiting | None = None
    outcomes: dict[str, Outcome] = {}
    """Task → its newest outcome."""
    seen: list[str] = []
    """The files of the newest events that are in this summary."""
