"""URIs among a step's inputs, each with the folder of the state that it must lie in.

A step runs with the platform's credentials, and its inputs come from people and files. Without a folder, an input could
name any file that the platform may read.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

StateFolder = Literal["landing", "work"]


class StateUri(str):
    """A URI that must lie in `folder`, the name of a folder in the settings."""

    folder: StateFolder


@dataclass(frozen=True)
class LiesIn:
    """Marks a field whose values are StateUris of `folder`."""

    folder: StateFolder

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self._marked, handler(source))

    def _marked(self, value: str) -> StateUri:
        uri = StateUri(value)
        uri.folder = self.folder
        return uri


LandedUri = Annotated[str, LiesIn("landing")]
WorkUri = Annotated[str, LiesIn("work")]


def state_uris(value: Any, field: str = "") -> Iterator[tuple[str, StateUri]]:
    """(path of the field, URI) for each StateUri in `value`, a message or a part of one."""
    if isinstance(value, StateUri):
        yield field, value
        return
    within: Any = ()
    if isinstance(value, BaseModel):
        within = value  # Yields the fields.
    elif isinstance(value, dict):
        within = value.items()
    elif isinstance(value, list | tuple):
        within = enumerate(value)
    for name, each in within:
        yield from state_uris(each, f"{field}.{name}" if field else str(name))
