"""Reads a YAML file of fields. Unlike a YAML parser, it rejects repeated keys and keys that are not text."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from training.contract.errors import ConfigError

_TEXT = "tag:yaml.org,2002:str"
_MERGE = "tag:yaml.org,2002:merge"


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """YAML's safe loader, but unquoted dates stay text, because no field takes a date."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith(":timestamp")]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def read_fields(path: Path) -> dict[str, Any]:
    """The fields in the YAML file at `path`.

    Raises ConfigError when it is not UTF-8, not YAML, holds no fields, or has a key twice in one place. The message has
    the line if it is known.
    """
    try:
        loader = _Loader(path.read_bytes().decode("utf-8-sig"))
        root = loader.get_single_node()
        mistakes = list(_bad_keys(root, set())) if root else []
        found = None if mistakes or root is None else loader.construct_document(root)
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 text: {error}", hint="Save the file as UTF-8.") from error
    except (yaml.YAMLError, RecursionError) as error:
        hint = "Correct the file at that line. Indent with spaces, and quote text with special characters."
        what = str(error).replace(' in "<unicode string>",', " at")
        raise ConfigError(f"{path} is not valid YAML: {what}", hint=hint) from error
    if mistakes:
        raise ConfigError(f"{path}: {'; '.join(mistakes)}", hint="Correct these keys.")
    if not isinstance(found, dict):
        what = "is empty" if found is None else f"holds {_described(found)} instead of fields"
        hint = "Write `field: value` lines; feature_repo/ and training/models/ have examples."
        raise ConfigError(f"{path} {what}", hint)
    return found


def _bad_keys(node: yaml.Node, seen: set[int]) -> Iterator[str]:
    """A message for each invalid key under `node`. A node that is repeated by an alias is checked once."""
    if id(node) in seen or isinstance(node, yaml.ScalarNode):
        return
    seen.add(id(node))
    if isinstance(node, yaml.SequenceNode):
        for item in node.value:
            yield from _bad_keys(item, seen)
        return
    lines: dict[str, int] = {}
    for key, value in node.value:
        line = key.start_mark.line + 1
        if key.tag == _MERGE:
            pass
        elif key.tag != _TEXT:
            yield f"line {line}: the key {_written(key)} is not text; quote it"
        elif key.value in lines:
            yield f"line {line}: the key {key.value!r} is already on line {lines[key.value]}; remove one of them"
        else:
            lines[key.value] = line
        yield from _bad_keys(value, seen)


def _written(key: yaml.Node) -> str:
    if not isinstance(key, yaml.ScalarNode):
        return "in brackets"
    read_as = " (read as true or false)" if key.tag.endswith(":bool") else ""
    return f"{key.value or 'that is empty'}{read_as}"


def _described(value: Any) -> str:
    return "a list" if isinstance(value, list) else f"only {value!r}"
