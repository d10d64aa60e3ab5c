"""The docstrings of a class's fields: the text below each field in the source."""

import ast
import inspect
from functools import cache
from textwrap import dedent

from pydantic import BaseModel

_PYDANTIC = ("pydantic", "pydantic_settings")


@cache
def field_docstrings(cls: type) -> dict[str, str]:
    """Field → its docstring, for the fields of `cls` and of its base classes that have one.

    Reads the source only when it is called. Pydantic's `use_attribute_docstrings` reads it when a class is made: that
    takes 3 ms per class in a process with many modules, a quarter of a second in every step and every task.
    """
    found: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        if issubclass(base, BaseModel) and base.__module__.split(".")[0] not in _PYDANTIC:
            found |= _own(base)
    return found


def _own(cls: type) -> dict[str, str]:
    [definition] = ast.parse(dedent(inspect.getsource(cls))).body
    assert isinstance(definition, ast.ClassDef)
    found = {}
    for field, text in zip(definition.body, definition.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and _is_text(text):
            found[field.target.id] = inspect.cleandoc(text.value.value)  # type: ignore[attr-defined]
    return found


def _is_text(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
