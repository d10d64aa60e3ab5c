"""Writes docs/reference.md from the step contracts, the settings and the specs (`make docs`).

A test compares the page with the code.
"""

from pathlib import Path
from typing import Any, get_origin

from pydantic import BaseModel

from training.contract.docstrings import field_docstrings
from training.contract.errors import ExitCode
from training.contract.model_spec import ModelSpec
from training.contract.source_spec import SourceSpec
from training.contract.steps import STEPS
from training.settings import ROLES, StateSettings, own_fields, variable

HEAD = """# Steps, settings, specs

Made by `make docs` from `training/contract` and `training/settings.py`; do not edit.

## Steps

`python -m training <step> --inputs '<json>' --result <path>`, or `make step STEP=<step> INPUTS='<json>'`.
`--schema` prints the JSON Schemas of inputs and result.

"""


def reference() -> str:
    """The whole page, as Markdown."""
    parts = [HEAD, _table(("step", "what it does", "inputs", "result"), _step_rows())]
    parts += ["\n### Exit codes\n\n", _table(("code", "name"), [(str(int(c)), c.name) for c in ExitCode])]
    parts += ["\n## Settings\n\nEnvironment variables. An unknown `CT_*` is an error.\n\n"]
    for title, role in ROLES.items():
        parts += [f"### {title}\n\n", _table(("variable", "default", "meaning"), _setting_rows(role)), "\n"]
    for title, file, spec in (
        ("Source spec", "feature_repo/<source>.yaml", SourceSpec),
        ("Model spec", "training/models/<model>.yaml", ModelSpec),
    ):
        parts += [f"## {title}\n\n`{file}`. An unknown field is an error.\n\n"]
        parts += [_table(("field", "default", "meaning"), _spec_rows(spec, "")), "\n"]
    return "".join(parts).rstrip("\n") + "\n"


def _step_rows() -> list[tuple[str, ...]]:
    return [(f"`{s.name}`", s.summary, _inputs(s.inputs), _fields(list(s.result.model_fields))) for s in STEPS.values()]


def _inputs(model: type[BaseModel]) -> str:
    required = [name for name, field in model.model_fields.items() if field.is_required()]
    optional = [name for name in model.model_fields if name not in required]
    return "; optional ".join(_fields(names) for names in (required, optional) if names)


def _fields(names: list[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _setting_rows(role: type[StateSettings]) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for name, field in own_fields(role).items():
        # A default path is this machine's.
        default = "" if isinstance(field.default, Path) else _default(field.default)
        rows.append((f"`{variable(name)}`", default, _prose(field_docstrings(role).get(name))))
    return rows


def _spec_rows(model: type[BaseModel], prefix: str) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for name, field in model.model_fields.items():
        # A model spec holds the name of its source.
        nested = None if prefix == "" and name == "source" else _nested(field.annotation)
        path = f"{prefix}{name}"
        if nested is None:
            default = "required" if field.is_required() else _default(field.get_default(call_default_factory=True))
            rows.append((f"`{path}`", default, _prose(field_docstrings(model).get(name))))
        else:
            inner, suffix = nested
            rows += _spec_rows(inner, f"{path}{suffix}.")
    return rows


def _nested(annotation: Any) -> tuple[type[BaseModel], str] | None:
    """The spec section that a field holds, directly, as the values of a mapping or in a list."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation, ""
    if get_origin(annotation) not in (dict, tuple):
        return None
    for argument in getattr(annotation, "__args__", ()):
        if isinstance(argument, type) and issubclass(argument, BaseModel):
            return argument, "[]" if get_origin(annotation) is tuple else ".<name>"
    return None


def _prose(description: str | None) -> str:
    return (description or "").replace("<", "&lt;")


def _default(value: Any) -> str:
    return "" if value in (None, "", {}, ()) else f"`{value}`"


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "".join("| " + " | ".join(" ".join(cell.split()) for cell in line) + " |\n" for line in lines)


if __name__ == "__main__":
    print(reference(), end="")
