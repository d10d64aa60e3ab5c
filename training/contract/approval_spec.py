"""The section `approval` of a model spec: when a person decides whether a version may serve."""

from typing import Annotated, Any, Literal, get_args

from pydantic import Discriminator, Field, Tag, model_validator

from training.contract.base import LONGEST_MINUTES, Spec
from training.contract.names import GateName, did_you_mean
from training.contract.problems import raise_contradictions
from training.contract.tasks import Margin

#: Conditions that are not gates.
OtherCondition = Literal["first_version", "positive_verdict", "negative_verdict"]
_NAMES = (*get_args(GateName), *get_args(OtherCondition))
_FIX = f"Write `always`, `never` or a list of {', '.join(_NAMES)}, `small_gain: 0.01`."
_SHORT = {"always": ("positive_verdict",), "never": ()}


class SmallGain(Spec):
    """The primary metric is better than the champion's by less than this."""

    small_gain: Margin
    """Absolute, or `{relative: 0.02}` of the champion's value."""


def _kind(condition: Any) -> str:
    return "gain" if isinstance(condition, dict | SmallGain) else "name"


Condition = Annotated[
    Annotated[GateName | OtherCondition, Tag("name")] | Annotated[SmallGain, Tag("gain")], Discriminator(_kind)
]


class ApprovalSpec(Spec):
    """A version that a person must approve is registered and gets no traffic before. `approval: always` and
    `approval: never` are short for `approval: {when: always}` and `{when: never}`. Docs: docs/approval.md."""

    when: Annotated[tuple[Condition, ...], Field(strict=False)] = ("leakage",)
    """`always`: before every version serves. `never`: no person is asked. Or a list, any of which asks: the name of a
    gate (when it fails, a person decides, and the verdict does not), `first_version`, `small_gain: 0.01`,
    `positive_verdict` (the same as `always`), `negative_verdict` (whatever gate fails, a person decides)."""
    assignees: Annotated[tuple[str, ...], Field(strict=False)] = ()
    """The users who may decide. Empty: all whom Airflow allows. CT_RELEASERS restricts them further."""
    timeout_hours: float = Field(72, gt=0, le=LONGEST_MINUTES / 60)
    """Without an answer in this time the version is rejected."""
    not_by_requester: bool = False
    """A person who started the training by hand may not approve its version."""

    @model_validator(mode="before")
    @classmethod
    def _short_forms(cls, fields: Any) -> Any:
        fields = {"when": fields} if isinstance(fields, str) else fields
        when = fields.get("when") if isinstance(fields, dict) else None
        if isinstance(when, str) and when in _SHORT:
            return {**fields, "when": _SHORT[when]}
        if isinstance(when, str):
            meant = did_you_mean(when, (*_SHORT, *_NAMES))
            raise_contradictions([("when", f"is {when!r}, neither always, never nor a list", f"{meant}{_FIX}")])
        names = [each for each in when if isinstance(each, str)] if isinstance(when, list | tuple) else []
        if unknown := [name for name in names if name not in _NAMES]:
            what = f"names {unknown[0]!r}, which is not a condition"
            raise_contradictions([("when", what, f"{did_you_mean(unknown[0], _NAMES)}{_FIX}")])
        return fields
