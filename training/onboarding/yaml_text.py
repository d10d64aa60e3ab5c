"""Writes YAML as a person would: values in one line where they fit, and comments."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

WIDTH = 120
_PLAIN = re.compile(r"[A-Za-z0-9_][\w ./=-]*")


def scalar(value: Any) -> str:
    """`value` in YAML, with quotes where they are needed: YAML reads a plain `no` as false."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        number = json.dumps(value)
        # YAML 1.1 reads 1e-05 as text.
        return number if "e" not in number or "." in number else number.replace("e", ".0e")
    text = str(value)
    if _PLAIN.fullmatch(text) and not text.endswith(" ") and yaml.safe_load(text) == text and text.lower() not in "yn":
        return text
    return json.dumps(text, ensure_ascii=False)


def flow(value: Any) -> str:
    """`value` in one line: `{type: int64, values: [0, 1]}`."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{scalar(key)}: {flow(each)}" for key, each in value.items()) + "}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "[" + ", ".join(flow(each) for each in value) + "]"
    return scalar(value)


def line(indent: int, key: str, value: Any, comment: str = "") -> list[str]:
    """`key: value  # comment`; the comment stands above where all together is too wide."""
    margin, comment = " " * indent, " ".join(_words(comment))
    text = f"{margin}{scalar(key)}: {flow(value)}"
    if comment and len(text) + len(comment) + 4 <= WIDTH:
        return [f"{text}  # {comment}"]
    return [*comments(indent, comment), *_wrapped(text, indent)]


def comments(indent: int, text: str) -> list[str]:
    """`text` as lines of comments that are not too wide."""
    lines, margin = [""], " " * indent
    for word in _words(text):
        if len(margin) + 2 + len(lines[-1]) + 1 + len(word) > WIDTH and lines[-1]:
            lines.append("")
        lines[-1] += f" {word}" if lines[-1] else word
    return [f"{margin}# {each}" for each in lines if each]


def _words(comment: str) -> list[str]:
    """The words of a comment, without the control characters that a column's name may have: YAML allows none."""
    return "".join(each if each.isprintable() else " " for each in comment).split()


def _wrapped(text: str, indent: int) -> list[str]:
    """A flow value may go on in the next line, after a comma."""
    lines = [text]
    while len(lines[-1]) > WIDTH and (cut := lines[-1].rfind(", ", indent + 6, WIDTH)) > 0:
        lines[-1:] = [lines[-1][: cut + 1], " " * (indent + 4) + lines[-1][cut + 2 :]]
    return lines
