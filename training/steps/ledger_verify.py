"""Check that no entry of a model's ledger was altered or removed."""

import logging

from training.adapters.ledger import Ledger
from training.contract.errors import DataContractError
from training.contract.messages import LedgerVerifyInputs, LedgerVerifyResult
from training.settings import StateSettings

log = logging.getLogger("perennial")


def run(inputs: LedgerVerifyInputs, settings: StateSettings) -> LedgerVerifyResult:
    """Raises DataContractError that names every altered or missing entry of the model's chain."""
    ledger = Ledger(settings.ledger)
    if found := ledger.problems(inputs.model):
        raise DataContractError("\n".join(found), hint="Restore these entries from a backup.")
    entries = len(ledger.entries(inputs.model))
    log.info("The ledger of %s in %s is whole: %d entries", inputs.model, settings.ledger, entries)
    return LedgerVerifyResult(entries=entries)
