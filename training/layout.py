"""The version of the layout of lake and ledger: a small file in the folder of each, `layout.json`.

Version 1 is that of Perennial before sources had specs of their own: it has no such file, and the tables of a model lie
in `<lake>/<model>`. Version 2 has the tables of a source in `<lake>/<source>`, and predictions in
`<lake>/<source>/predictions/<model>`.
"""

import json

from training import storage
from training.contract.errors import ConfigError
from training.settings import StateSettings

LAYOUT = 2
MARKER = "layout.json"


def mark_if_new(uri: str) -> None:
    """Write the marker of this version into the folder `uri` when nothing is there yet."""
    if _is_empty(uri):
        mark(uri)


def _is_empty(uri: str) -> bool:
    """Whether nothing of ours is in the folder `uri`. A volume's file system makes a folder lost+found."""
    found = storage.listing(uri)
    return not found.files and not set(found.folders) - {"lost+found"}


def mark(uri: str) -> None:
    storage.write(storage.join(uri, MARKER), json.dumps({"version": LAYOUT}).encode())


def layout_of(uri: str) -> int | None:
    """The version of the layout in the folder `uri`; None when the folder is empty or not there.

    Raises ConfigError when the marker cannot be read.
    """
    content = storage.read(storage.join(uri, MARKER))
    if content is None:
        return None if _is_empty(uri) else 1
    try:
        return int(json.loads(content)["version"])
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"{storage.join(uri, MARKER)} is not the version of a layout: {error}", 'Write {"version": 2} into it.'
        ) from error


def require_layout(settings: StateSettings) -> None:
    """Raises ConfigError unless the lake and the ledger have the layout of this version, or are empty."""
    for name, uri in (("lake", settings.lake), ("ledger", settings.ledger)):
        found = layout_of(uri)
        if found is not None and found < LAYOUT:
            hint = "Stop everything that uses it. `make migrate` shows what moves, `make migrate ARGS=--apply` does it."
            raise ConfigError(f"The {name} at {uri} has layout {found}, this version needs {LAYOUT}", hint)
        if found is not None and found > LAYOUT:
            hint = "Run the version that wrote it, or a newer one."
            raise ConfigError(f"The {name} at {uri} has layout {found}, this version knows only {LAYOUT}", hint)
