"""The mistakes in the files of a source or model, one `Problem` each."""

from collections.abc import Sequence
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from training.contract.base import Frozen
from training.contract.names import did_you_mean

#: The fix when the reference has the answer.
SEE_REFERENCE = "docs/reference.md lists the fields and what they take."
_QUOTE = " (YAML reads unquoted yes, no, on, off, true and false as true or false: quote text)"


#: A mistake in a section of a spec: (field, rest of the sentence, what to do).
Mistake = tuple[str, str, str]


class Problem(Frozen):
    """One mistake in the files of a source or model."""

    file: str
    place: str
    """A field of the spec, a table of the SQL, or a Feast object. Empty: the whole file."""
    what: str
    fix: str
    sure: bool = True
    """False: it may be intended. It is reported but does not fail the check."""

    def __str__(self) -> str:
        """Place and mistake as one sentence. `what` continues the sentence, unless it begins with a capital letter."""
        return f"{self.place}{': ' if self.what[:1].isupper() else ' '}{self.what}" if self.place else self.what


class Contradictions(ValueError):
    """Fields that contradict each other."""

    def __init__(self, found: Sequence[Mistake]) -> None:
        super().__init__("; ".join(f"{field} {what}" for field, what, _ in found))
        self.found = tuple(found)


def without_path(message: str, file: str) -> str:
    """An error message without the path of the file, for output that already shows the path."""
    return message.replace(f" of {file}", "").removeprefix(file).lstrip(": ")


def raise_contradictions(found: Sequence[Mistake]) -> None:
    """Raise Contradictions unless `found` is empty."""
    if found:
        raise Contradictions(found)


def problems_of(error: ValidationError, file: str, spec: type[BaseModel]) -> list[Problem]:
    """The mistakes that pydantic found in `file`, which holds a `spec`, in its order."""
    return [problem for detail in error.errors() for problem in _problems(detail, file, spec)]


def _known_fields(spec: type[BaseModel], path: Sequence[str | int]) -> list[str]:
    """The fields that `spec` can have at `path`; none where its type does not say which section stands there."""
    sections = [spec]
    for part in path:
        having = [each.model_fields[part].annotation for each in sections if part in each.model_fields]
        # Keys of a mapping, positions in a list and kinds of a union are no fields: the section is the same.
        sections = [found for annotation in having for found in _sections(annotation)] if having else sections
    return [name for each in sections for name in each.model_fields]


def _sections(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [found for each in get_args(annotation) for found in _sections(each)]


def _place(detail: ErrorDetails) -> list[str]:
    """The path of the field. pydantic puts the kind of a task between `task` and its fields."""
    path = [str(part) for part in detail["loc"]]
    return [path[0], *path[2:]] if path[:1] == ["task"] and len(path) > 1 else path


def _problems(detail: ErrorDetails, file: str, spec: type[BaseModel]) -> list[Problem]:
    section = _place(detail)
    cause = detail.get("ctx", {}).get("error")
    if isinstance(cause, Contradictions):
        return [
            Problem(file=file, place=".".join([*section, field]), what=what, fix=fix)
            for field, what, fix in cause.found
        ]
    if detail["type"] == "extra_forbidden":
        fix = did_you_mean(section[-1], _known_fields(spec, detail["loc"][:-1])) + SEE_REFERENCE
        return [Problem(file=file, place=".".join(section), what="There is no such field", fix=fix)]
    if detail["type"] == "missing":
        return [Problem(file=file, place=".".join(section), what="is missing", fix=f"Add it. {SEE_REFERENCE}")]
    if section[-1:] == ["[key]"]:
        section, what = section[:-1], detail["msg"].replace("Input should be", "There is no such name. It should be")
        return [Problem(file=file, place=".".join(section), what=what, fix="Correct the name.")]
    quote = _QUOTE if isinstance(detail["input"], bool) and "bool" not in detail["type"] else ""
    what = detail["msg"].removeprefix("Value error, ") + quote
    return [Problem(file=file, place=".".join(section) or "spec", what=what, fix=SEE_REFERENCE)]
