"""Anchors of the ledger: every registered version keeps the newest entry of the time when it was registered."""

from training.adapters.registry.connection import connect, contract_errors
from training.adapters.registry.pages import versions_of

#: The tag of a version: see Ledger.head.
LEDGER_HEAD = "ledger_head"


def ledger_anchors(tracking_uri: str, model: str) -> dict[int, str]:
    """Version → its anchor, of those that have one. Raises TransientError when MLflow does not answer."""
    client = connect(tracking_uri)
    with contract_errors(tracking_uri):
        found = {int(version.version): version.tags.get(LEDGER_HEAD, "") for version in versions_of(client, model)}
    return {version: anchor for version, anchor in sorted(found.items()) if anchor}
