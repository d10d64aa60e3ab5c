"""The report that every step leaves, whatever happens."""

from typing import Any, Literal

from pydantic import model_validator

from training.contract.base import Frozen, TableVersions


class Provenance(Frozen):
    """What made a result: enough to make it again."""

    git_sha: str | None = None
    image: str | None = None
    config_hash: str | None = None
    table_versions: TableVersions = {}


class Failure(Frozen):
    type: str
    message: str
    retryable: bool
    hint: str = ""


class StepReport(Frozen):
    """The result file. A missing one means unknown, never success."""

    schema_version: Literal[1] = 1
    step: str
    status: Literal["succeeded", "failed"]
    result: dict[str, Any] | None = None
    error: Failure | None = None
    provenance: Provenance = Provenance()

    @model_validator(mode="after")
    def _result_or_error(self) -> "StepReport":
        given = [name for name in ("result", "error") if getattr(self, name) is not None]
        if given != (["result"] if self.status == "succeeded" else ["error"]):
            raise ValueError("a succeeded step has a result and no error; a failed one has an error")
        return self
