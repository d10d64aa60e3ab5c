"""What an event keeps of a step's inputs and result: small values, and of nested ones only the first levels."""

import json
from collections.abc import Mapping
from typing import Any

#: Longest text, in characters; most entries of a list or mapping; levels of nesting; bytes of all facts as JSON.
LONGEST, MOST, LEVELS, LARGEST = 500, 40, 4, 16_384
#: What a list or mapping below the last level becomes.
_OMITTED = object()
#: Step → the inputs that its events keep.
_INPUTS = {
    "ingest": ("feed", "partition"),
    "register": ("challenger", "verdict", "force", "reason"),
    "record_approval": ("answer",),
    "rollout": ("reason",),
    "rollback": ("reason", "requested_by"),
    "decide_retraining": ("trigger", "requested_by", "failed"),
    "train": ("reason",),
}


def facts(step: str, inputs: Mapping[str, Any], result: Mapping[str, Any]) -> dict[str, Any]:
    """The facts of a step. A value of the result wins over an input of the same name."""
    kept = {name: inputs[name] for name in _INPUTS.get(step, ()) if inputs.get(name) is not None}
    shown = {**kept, **result}
    if step == "drift":
        columns = shown.pop("columns", None) or {}
        shown["drifted_columns"] = [name for name, column in columns.items() if column.get("drifted")]
    found: dict[str, Any] = small(shown)
    if len(json.dumps(found)) > LARGEST:
        found = {name: value for name, value in found.items() if not isinstance(value, dict | list)}
    return found


def small(value: Any, levels: int = LEVELS) -> Any:
    """`value`, as JSON has it, cut to what a page can show."""
    if isinstance(value, str):
        return value if len(value) <= LONGEST else f"{value[: LONGEST - 1]}…"
    if not isinstance(value, Mapping | list | tuple):
        return value
    if levels == 0:
        return _OMITTED
    if isinstance(value, Mapping):
        pairs = [(str(name), small(each, levels - 1)) for name, each in list(value.items())[:MOST]]
        return {name: each for name, each in pairs if each is not _OMITTED}
    return [each for each in (small(one, levels - 1) for one in list(value)[:MOST]) if each is not _OMITTED]
