"""Check that no entry of a model's ledger was altered or removed."""

import logging

from training.adapters.ledger import Ledger
from training.contract.errors import DataContractError
from training.contract.messages import LedgerVerifyInputs, LedgerVerifyResult
from training.settings import StateSettings
from training.verified import ledger_faults

log = logging.getLogger("perennial")


def run(inputs: LedgerVerifyInputs, settings: StateSettings) -> LedgerVerifyResult:
    """Check the hashes of the model's chain, and compare it with the anchors that registered versions keep.

    Without an answer of MLflow the chain alone is checked, and a warning says so. Raises DataContractError that names
    every altered or missing entry.
    """
    found, anchors = ledger_faults(inputs.model, settings)
    if found:
        raise DataContractError("\n".join(found), hint="Restore these entries from a backup.")
    ledger = Ledger(settings.ledger)
    entries = len(ledger.entries(inputs.model))
    log.info(
        "The ledger of %s in %s is intact: %d entries, newest %s; %d versions agree",
        *(inputs.model, settings.ledger, entries, ledger.head(inputs.model) or "none", anchors),
    )
    return LedgerVerifyResult(entries=entries, anchors=anchors)
