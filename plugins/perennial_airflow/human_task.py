"""The task that waits for a person. Imports Airflow's human-in-the-loop operators, which only its DAG needs."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.providers.standard.operators.hitl import HITLOperator
from airflow.sdk import Param
from airflow.sdk.configuration import conf
from airflow.sdk.definitions.param import ParamsDict
from airflow.sdk.exceptions import AirflowSkipException

APPROVE, REJECT = "Approve", "Reject"
#: Airflow (3.3) asks again when an answer comes before its scheduler knows that the process of the task has ended.
SETTLED = timedelta(seconds=10)


def _comment(required: bool) -> Param:
    """The field of the form. The REST API takes an answer without it; `record_approval` refuses what lacks one."""
    kept = "Recorded in the ledger."
    if required:
        why = f"{kept} The verdict is negative: to approve the version, say why it may serve nevertheless."
        return Param("", description=why, type="string", minLength=1, title="Comment")
    return Param(None, description=kept, type=["null", "string"], title="Comment")


class ApproveOperator(HITLOperator):
    """Asks the question of the step `request_approval` (`question`, its result), and returns the answer as an input of
    `record_approval`. Skipped when the request has ended.

    It waits without a worker slot, under Required Actions, until somebody approves or rejects. Without an answer in
    time the version is rejected. If the auth manager identifies users by their login names, Airflow's page shows the
    assignees and refuses others at once. In any case `record_approval` refuses them.
    """

    template_fields: Sequence[str] = ("question",)
    ui_color = "#fdf3d8"

    def __init__(self, *, question: Any, **kwargs: Any) -> None:
        super().__init__(
            subject="May a version serve?",
            options=[APPROVE, REJECT],
            defaults=REJECT,
            params={"comment": _comment(required=False)},
            **kwargs,
        )
        self.question = question

    def execute(self, context: Any) -> None:
        if not self.question["open"]:
            raise AirflowSkipException(self.question["why"])
        self.params = ParamsDict({"comment": _comment(self.question["comment_required"])})
        self.subject, self.body = self.question["subject"], self.question["body"]
        left = datetime.fromisoformat(self.question["until"]) - datetime.now(UTC)
        self.response_timeout = max(left, SETTLED)
        if "SimpleAuthManager" in conf.get("core", "auth_manager"):
            self.assigned_users = [{"id": user, "name": user} for user in self.question["assignees"]]
        super().execute(context)

    def execute_complete(self, context: Any, event: dict[str, Any]) -> dict[str, Any]:
        if "error" in event:
            self.process_trigger_event_error(event)
        user = event["responded_by_user"] or {}
        comment = (event["params_input"] or {}).get("comment")
        answer = {
            "approved": event["chosen_options"] == [APPROVE],
            "by": user.get("name") or user.get("id") or "",
            "at": event["responded_at"].isoformat(),
            "comment": str(comment or ""),
        }
        self.log.info("%s", answer)
        return answer
