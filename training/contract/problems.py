"""The mistakes in the files of a source or model, one `Problem` each."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from training.contract.base import Frozen
from training.contract.names import PATTERNS, did_you_mean

#: The fix when the reference has the answer.
SEE_REFERENCE = "docs/reference.md lists the fields and what they take."
_QUOTE = " (YAML reads unquoted yes, no, on, off, true and false as true or false: quote text)"


#: What pydantic calls a value → what one writes in a file.
_WRITTEN = {
    "dict_type": "Input should be fields, `name: value`",
    "model_type": "Input should be fields, `name: value`",
    "model_attributes_type": "Input should be fields, `name: value`",
    "list_type": "Input should be a list, `[a, b]`",
    "tuple_type": "Input should be a list, `[a, b]`",
}
_SHOULD_BE = "Input should be "
#: Longer values are not repeated in a message.
_SHORT = 40
#: YAML 1.1 wants a point and a sign in such a number.
_EXPONENT = re.compile(r"[-+]?[0-9.]+[eE][-+]?[0-9]+")
#: Names in quotes, such as those of an enumeration.
_QUOTED = re.compile(r"'([^']*)'")


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


def exponent_hint(value: Any) -> str:
    """What to write instead of a text such as 1e6; empty for all other values."""
    is_number = isinstance(value, str) and _EXPONENT.fullmatch(value)
    return " YAML reads 1e6 as text: write 1.0e+6." if is_number else ""


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


def problems_of(error: ValidationError, file: str, spec: type[BaseModel], fields: Mapping[str, Any]) -> list[Problem]:
    """The mistakes that pydantic found in `file`, which holds a `spec` with `fields`, in its order."""
    found = [_Found(detail, *_place(detail, spec, fields)) for detail in error.errors()]
    if any(each.place == ["task", "kind"] for each in found):
        # Defaults that depend on the kind were not filled in.
        found = [each for each in found if not each.is_default or each.detail["type"] == "missing"]
    return [problem for group in _by_union(found) for problem in _group_problems(group, file, spec)]


def fixes_of(problems: Sequence[Problem]) -> list[str]:
    """What to do about each of the `problems`, each thing once, without the pointer to the reference."""
    fixes = [problem.fix.removesuffix(SEE_REFERENCE).strip() for problem in problems]
    return [fix for fix in dict.fromkeys(fixes) if fix]


class _Found(NamedTuple):
    """One of pydantic's errors."""

    detail: ErrorDetails
    place: list[str]
    """The field in the file."""
    union: int | None
    """How many parts of `place` lead to the union, if the error is about one of a union's types."""
    is_default: bool
    """The file does not have the field."""


def _place(detail: ErrorDetails, spec: type[BaseModel], fields: Any) -> tuple[list[str], int | None, bool]:
    """`place`, `union` and `is_default` of an error. pydantic puts the names of a union's types between the fields."""
    place: list[str] = []
    union, here, is_default = None, fields, False
    for part in detail["loc"]:
        is_key = isinstance(here, Mapping) and part in here
        if is_key or (isinstance(here, Sequence) and not isinstance(here, str) and part in range(len(here))):
            here = here[part]
        elif part == "[key]" or part in _known_fields(spec, place):
            here, is_default = None, part != "[key]"
        else:
            union = len(place) if union is None else union
            continue
        place.append(str(part))
    return place, union, is_default


def _by_union(found: Sequence[_Found]) -> list[list[_Found]]:
    """Errors about the types of one union together, every other error alone.

    Of a union, the type that the value is most like counts: one that has errors in its fields, if there is any.
    """
    groups: dict[Any, list[_Found]] = {}
    for at, each in enumerate(found):
        groups.setdefault(at if each.union is None else tuple(each.place[: each.union]), []).append(each)
    return [
        [each for each in group if each.union is None or len(each.place) > each.union] or group
        for group in groups.values()
    ]


def _group_problems(group: Sequence[_Found], file: str, spec: type[BaseModel]) -> list[Problem]:
    if len(group) > 1 and all(each.union == len(each.place) for each in group):
        wanted = [_said(each.detail) for each in group]
        what = " or ".join(dict.fromkeys(text.removeprefix(_SHOULD_BE) for text in wanted))
        last = group[-1]
        fix = _meant(what, last.detail["input"]) + SEE_REFERENCE
        what = _SHOULD_BE + what + _given(last.detail)
        return [Problem(file=file, place=".".join(last.place), what=what, fix=fix)]
    return [problem for each in group for problem in _problems(each.detail, each.place, file, spec)]


def _said(detail: ErrorDetails) -> str:
    """What pydantic says about a value, in the words of a file."""
    if words := PATTERNS.get(detail.get("ctx", {}).get("pattern", "")):
        return _SHOULD_BE + words
    return _WRITTEN.get(detail["type"], detail["msg"].removeprefix("Value error, "))


def _given(detail: ErrorDetails) -> str:
    """The value that is wrong, if it is short."""
    value = detail["input"]
    if isinstance(value, bool):
        return "" if "bool" in detail["type"] else _QUOTE
    if value is None:
        return ", but nothing is written"
    short = isinstance(value, str | int | float) and len(repr(value)) <= _SHORT
    return f", not {value!r}" if short and detail["type"] != "value_error" else ""


def _meant(message: str, value: Any) -> str:
    """`Did you mean 'x'? ` with one of the names that a message lists."""
    names = [name for name in _QUOTED.findall(message) if name != value]
    return did_you_mean(value, names) if isinstance(value, str) else ""


def _known_fields(spec: type[BaseModel], path: Sequence[str | int]) -> list[str]:
    """The fields that `spec` can have at `path`; none where its type does not say which section stands there."""
    sections = [spec]
    for part in path:
        having = [each.model_fields[part].annotation for each in sections if part in each.model_fields]
        # Keys of a mapping, positions in a list and kinds of a union are not fields: the section is the same.
        sections = [found for annotation in having for found in _sections(annotation)] if having else sections
    return [name for each in sections for name in each.model_fields]


def _sections(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [found for each in get_args(annotation) for found in _sections(each)]


def _problems(detail: ErrorDetails, section: list[str], file: str, spec: type[BaseModel]) -> list[Problem]:
    place, message = ".".join(section), detail["msg"]
    cause = detail.get("ctx", {}).get("error")
    if isinstance(cause, Contradictions):
        return [
            Problem(file=file, place=".".join([*section, field]), what=what, fix=fix)
            for field, what, fix in cause.found
        ]
    if detail["type"] == "extra_forbidden":
        fix = _other_field(section[-1], _known_fields(spec, section[:-1])) + SEE_REFERENCE
        return [Problem(file=file, place=place, what="There is no such field", fix=fix)]
    if detail["type"] == "missing":
        return [Problem(file=file, place=place, what="is missing", fix=f"Add it. {SEE_REFERENCE}")]
    if section[-1:] == ["[key]"]:
        what = message.replace("Input should be", "There is no such name. It should be")
        fix = f"{_meant(message, detail['input'])}Correct the name."
        return [Problem(file=file, place=".".join(section[:-1]), what=what, fix=fix)]
    what, fix = _said(detail) + _given(detail), _meant(message, detail["input"]) + SEE_REFERENCE
    if hint := exponent_hint(detail["input"]).strip():
        fix = f"{hint} {fix}"
    return [Problem(file=file, place=place, what=what, fix=fix)]


def _other_field(name: str, known: Sequence[str]) -> str:
    """Which of the `known` fields was meant. One that is known belongs to another kind of the section."""
    if name in known:
        return "It belongs to another kind of this section: remove it, or change the kind. "
    if name.endswith(")"):
        return 'Quote a type with a comma, such as "decimal(10, 2)". '
    return did_you_mean(name, known) or (f"Fields here: {', '.join(known)}. " if known else "")
