"""Reads a YAML file of fields. Unlike a YAML parser, it rejects repeated keys and keys that are not text."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from training.contract.errors import ConfigError

_TEXT = "tag:yaml.org,2002:str"
_MERGE = "tag:yaml.org,2002:merge"
_INT, _FLOAT = "tag:yaml.org,2002:int", "tag:yaml.org,2002:float"
#: A decimal has at most 38. Larger numbers than a float can be would fail far from here.
_MOST_DIGITS = 40
#: The parser calls itself for each level. Thousands of them would end the process.
_DEEPEST = 100
#: Aliases can make a small file a spec that does not fit into the memory.
_MOST_VALUES = 1_000_000


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
        text = path.read_bytes().decode("utf-8-sig")
        if _is_too_deep(text):
            raise ConfigError(f"{path} has more than {_DEEPEST} levels", hint="Write it with fewer brackets.")
        loader = _Loader(text)
        root = loader.get_single_node()
        mistakes = list(_mistakes(root, set(), set())) if root else []
        if root and not mistakes and _values(root, {}) > _MOST_VALUES:
            mistakes = [f"its anchors and aliases make more than {_MOST_VALUES:,} values"]
        found = None if mistakes or root is None else loader.construct_document(root)
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 text: {error}", hint="Save the file as UTF-8.") from error
    except (yaml.YAMLError, RecursionError) as error:
        hint = "Correct the file at that line. Indent with spaces, and quote text with special characters."
        what = str(error).replace(' in "<unicode string>",', " at")
        raise ConfigError(f"{path} is not valid YAML: {what}", hint=hint) from error
    except (ValueError, LookupError, AttributeError) as error:
        # YAML's own constructors raise them.
        hint = "Remove tags such as !!bool, and write the value as it is."
        raise ConfigError(f"{path} has a value that does not suit its tag: {error}", hint) from error
    if mistakes:
        raise ConfigError(f"{path}: {'; '.join(mistakes)}", hint="Correct these places.")
    if not isinstance(found, dict):
        what = "is empty" if found is None else f"holds {_described(found)} instead of fields"
        hint = "Write `field: value` lines; feature_repo/ and training/models/ have examples."
        raise ConfigError(f"{path} {what}", hint)
    return found


def _is_too_deep(text: str) -> bool:
    # Few files have so many of these. Levels by lines of their own need a megabyte, and Python's limit ends them.
    if len(re.findall(r"[\[{]|[-?](?=[ \t]+[-?][ \t])", text)) < _DEEPEST / 2:
        return False
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > _DEEPEST:
            return True
    return False


def _mistakes(node: yaml.Node, seen: set[int], above: set[int]) -> Iterator[str]:
    """A message for each invalid key and number under `node`, and for each value that contains itself. A node that is
    repeated by an alias is checked once. `above`: the nodes that contain `node`."""
    line = node.start_mark.line + 1
    if id(node) in above:
        yield f"line {line}: the value contains itself; remove the alias"
    if id(node) in seen:
        return
    if isinstance(node, yaml.ScalarNode):
        if mistake := _number_mistake(node):
            yield f"line {line}: {mistake}"
        return
    seen.add(id(node))
    above.add(id(node))
    if isinstance(node, yaml.SequenceNode):
        for item in node.value:
            yield from _mistakes(item, seen, above)
    elif isinstance(node, yaml.MappingNode):
        yield from _bad_keys(node)
        for _, value in node.value:
            yield from _mistakes(value, seen, above)
    above.remove(id(node))


def _number_mistake(node: yaml.ScalarNode) -> str:
    """What is wrong with a number; empty when nothing is. YAML 1.1 reads 010 as 8 and 1:30 as 90."""
    digits = node.value.replace("_", "").lstrip("+-")
    if node.tag == _INT and len(digits) > _MOST_DIGITS:
        return f"the number {digits[:10]}… has {len(digits)} digits; write at most {_MOST_DIGITS}, or quote it"
    plain = digits.isdecimal() and (digits == "0" or not digits.startswith("0"))
    if (node.tag == _INT and not plain) or (node.tag == _FLOAT and ":" in digits):
        return f"{node.value} would be read as another number; quote it if it is text, or write a decimal number"
    return ""


def _values(node: yaml.Node, known: dict[int, int]) -> int:
    """How many values `node` has when every alias is written out. It does not contain itself."""
    if isinstance(node, yaml.ScalarNode):
        return 1
    if id(node) not in known:
        children = node.value if isinstance(node, yaml.SequenceNode) else [value for _, value in node.value]
        known[id(node)] = 1 + sum(_values(child, known) for child in children)
    return known[id(node)]


def _bad_keys(node: yaml.MappingNode) -> Iterator[str]:
    """A message for each invalid key of `node` itself."""
    lines: dict[str, int] = {}
    for key, _ in node.value:
        line = key.start_mark.line + 1
        if key.tag == _MERGE:
            pass
        elif key.tag != _TEXT:
            yield f"line {line}: the key {_written(key)} is not text; quote it"
        elif key.value in lines:
            yield f"line {line}: the key {key.value!r} is already on line {lines[key.value]}; remove one of them"
        else:
            lines[key.value] = line


def _written(key: yaml.Node) -> str:
    if not isinstance(key, yaml.ScalarNode):
        return "in brackets"
    read_as = " (read as true or false)" if key.tag.endswith(":bool") else ""
    return f"{key.value or 'that is empty'}{read_as}"


def _described(value: Any) -> str:
    return "a list" if isinstance(value, list) else f"only {value!r}"
