"""Splits a spec of the layout before, one file for a model and its data, into a source spec and a model spec.

Sections that stay as they are keep their text and comments.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from training.contract.yaml_file import read_fields

Fields = dict[str, Any]

_SHARED = ("name", "title", "description", "owner")
#: The steps whose resources the source has.
_OF_SOURCE = ("check", "ingest", "features", "materialize")
#: Text of the model's sections: old → new.
_RENAMED = (
    (r"^drift:", "monitoring:"),
    (r"\bcard_precision_at_k\b", "precision_at_k"),
    (r"\bfloors:", "limits:"),
    (r"\bminimum_positives:", "minimum_class_rows:"),
)


class Split(NamedTuple):
    source: str
    model: str


def split_spec(path: Path) -> Split:
    """The texts of the two files. The source gets the name of the model. Raises ConfigError when `path` is not YAML."""
    fields, parts = read_fields(path), _sections(path.read_text("utf-8-sig"))
    return Split(_text(_source(fields), parts, _source_text(fields)), _text(_model(fields), parts, _model_text))


def _source(fields: Fields) -> Fields:
    label = fields["label"]
    table = {"history_days": fields["features"]["history_days"]}
    rest = {name: label[name] for name in ("unlabelled_after_delay",) if name in label}
    return {
        **{name: fields[name] for name in _SHARED if name in fields},
        "feeds": {name: {**feed, "id_column": label["id_column"]} for name, feed in fields["feeds"].items()},
        "labels": {label["column"]: {"feed": "labels", "delay_days": label.get("delay_days", 7), **rest}},
        "features": {
            "tables": {name: {"entity": entity, **table} for name, entity in fields["features"]["tables"].items()}
        },
        **_resources(fields, of_source=True),
    }


def _model(fields: Fields) -> Fields:
    rest = {name: each for name, each in fields.items() if name not in (*_SHARED, "feeds", "label", "features")}
    schedule = {("monitor" if name == "drift" else name): cron for name, cron in rest.pop("schedule", {}).items()}
    rest |= _resources(fields, of_source=False)
    decision = rest.pop("decision", None)
    found = {
        **{name: fields[name] for name in _SHARED if name in fields},
        "source": fields["name"],
        "label": fields["label"]["column"],
        # The Feast file of the source defines it.
        "features": {"service": fields["features"]["service"]},
        "task": {"kind": "binary", **({"decision": decision} if decision else {})},
        **{("monitoring" if name == "drift" else name): _renamed(each) for name, each in rest.items()},
    }
    return {**found, "schedule": schedule} if schedule else found


def _resources(fields: Fields, of_source: bool) -> Fields:
    """The section `resources` of one of the two, with its steps; nothing when there is none."""
    if "resources" not in fields:
        return {}
    found = {name: each for name, each in fields["resources"].items() if name == "default" or not of_source}
    steps = fields["resources"].get("steps", {})
    found["steps"] = {name: each for name, each in steps.items() if (name in _OF_SOURCE) == of_source}
    return {"resources": {name: each for name, each in found.items() if name != "steps" or each}}


def _renamed(value: Any) -> Any:
    """`value` with the names of fields and metrics of this version."""
    names = {"card_precision_at_k": "precision_at_k", "floors": "limits", "minimum_positives": "minimum_class_rows"}
    if isinstance(value, dict):
        return {names.get(key, key): _renamed(each) for key, each in value.items()}
    return names.get(value, value) if isinstance(value, str) else value


def _sections(text: str) -> dict[str, str]:
    """Top-level field → its text, with the comments before it."""
    found: dict[str, str] = {}
    name, before = "", list[str]()
    for line in text.splitlines(keepends=True):
        if key := re.match(r"([A-Za-z_]\w*):", line):
            name = key[1]
            found[name] = "".join([*before, line])
            before = []
        elif line.startswith("#") or not line.strip():
            before.append(line)
        else:
            found[name] = found.get(name, "") + "".join([*before, line])
            before = []
    return found


def _source_text(fields: Fields) -> Callable[[str, str], str]:
    def changed(name: str, text: str) -> str:
        identity = fields["label"]["id_column"]
        return re.sub(r"^( +)(time_column:.*)$", rf"\1\2\n\1id_column: {identity}", text, flags=re.MULTILINE)

    return changed


def _model_text(name: str, text: str) -> str:
    if name == "schedule":
        return re.sub(r"\bdrift:", "monitor:", text)
    for old, new in _RENAMED:
        text = re.sub(old, new, text, flags=re.MULTILINE)
    return text


def _text(wanted: Fields, parts: dict[str, str], changed: Callable[[str, str], str]) -> str:
    """YAML of the fields `wanted`: each from the text of its section where that says the same."""
    found = []
    for name, value in wanted.items():
        old = {"monitoring": "drift"}.get(name, name)
        text = changed(old, parts.get(old, ""))
        try:
            same = yaml.safe_load(text) == {name: value}
        except yaml.YAMLError:
            same = False
        found.append(text if same else yaml.safe_dump({name: value}, sort_keys=False, allow_unicode=True))
    return "".join(found)
