"""The section `approval` of a model spec: when a person decides whether a version may serve."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from training.contract.base import Spec
from training.contract.names import GateName
from training.contract.tasks import Margin

#: Conditions that are no gates.
OtherCondition = Literal["first_version", "positive_verdict", "negative_verdict"]


class SmallGain(Spec):
    """The primary metric is better than the champion's by less than this."""

    small_gain: Margin
    """Absolute, or `{relative: 0.02}` of the champion's value."""


Condition = GateName | OtherCondition | SmallGain


class ApprovalSpec(Spec):
    """A version that a person must approve is registered and gets no traffic before. `approval: always` and
    `approval: never` are short for `approval: {when: always}` and `{when: never}`. Docs: docs/approval.md."""

    when: Literal["always", "never"] | Annotated[tuple[Condition, ...], Field(strict=False)] = ("leakage",)
    """`always`: every version before it serves. `never`: no version. Or a list; any of them asks: the name of a gate
    (when it fails, a person decides, and the verdict does not), `first_version`, `small_gain: 0.01`,
    `positive_verdict` (the same as `always`), `negative_verdict` (whatever gate fails, a person decides)."""
    assignees: Annotated[tuple[str, ...], Field(strict=False)] = ()
    """The users who may decide. Empty: all whom Airflow allows to. CT_RELEASERS holds besides."""
    timeout_hours: float = Field(72, gt=0)
    """Without an answer in this time the version is rejected."""
    not_by_requester: bool = False
    """A person who started the training by hand may not approve its version."""

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, fields: Any) -> Any:
        return {"when": fields} if isinstance(fields, str) else fields

    @property
    def conditions(self) -> tuple[Condition, ...]:
        """`when` as a list."""
        if isinstance(self.when, tuple):
            return self.when
        return ("positive_verdict",) if self.when == "always" else ()
