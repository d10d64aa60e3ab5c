"""Starts the runs of `<model>_approval`, in which a person decides about a version.

These runs wait for days. Training runs go one at a time, so a person who has not answered yet would block them.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowException, AirflowSkipException

from perennial_airflow.runs import start_run

#: Requests of one model that can be open. A newer one ends the older ones at once.
MAXIMUM_RUNS = 16


class AskForApprovalOperator(BaseOperator):
    """Starts the approval run of a version, which asks a person. `about` is the result of the step `register`, or of
    `record_approval` when the answer was refused. Skipped when nobody has to be asked.

    It first clears the runs of the requests that the version has ended: they start anew, find that their request has
    ended, and say so in Airflow, where nobody is asked any more. It can be killed and run again: the id of a run is
    made of version and attempt.
    """

    template_fields: Sequence[str] = ("about",)
    ui_color = "#e8f4ea"

    def __init__(self, *, model: str, about: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.model = model
        self.about = about

    def execute(self, context: Any) -> str:
        version, attempt = self.about["version"], self.about.get("ask_again") or int(self.about.get("ask", False))
        for each in self.about.get("superseded", ()):
            self._end(each, version)
        if not attempt:
            raise AirflowSkipException("Nobody has to be asked.")
        run_id = self._start(version, attempt, f"May version {version} serve?")
        self.log.info("A person is asked in run %s of %s_approval, under Required Actions", run_id, self.model)
        return run_id

    def _end(self, asked: Mapping[str, int], newer: int) -> None:
        note = f"Version {newer} is newer: nobody is asked about version {asked['version']} any more"
        try:
            self._start(asked["version"], asked["attempt"], note, again=True)
        except AirflowException as error:
            # The ledger has ended the request. Only Airflow's page still asks, and its answer will not count.
            self.log.warning("The approval of version %d stays open in Airflow: %s", asked["version"], error)
        else:
            self.log.info("%s", note)

    def _start(self, version: int, attempt: int, note: str, again: bool = False) -> str:
        run_id = f"version-{version}" + (f"-attempt-{attempt}" if attempt > 1 else "")
        conf = {"version": version, "attempt": attempt}
        start_run(f"{self.model}_approval", run_id, conf, note, again=again)
        return run_id
