"""Check that no entry of a model's ledger was altered or removed."""

import logging

from training.adapters.ledger import Ledger
from training.adapters.registry.anchors import ledger_anchors
from training.contract.errors import DataContractError, TransientError
from training.contract.messages import LedgerVerifyInputs, LedgerVerifyResult
from training.settings import StateSettings

log = logging.getLogger("perennial")


def run(inputs: LedgerVerifyInputs, settings: StateSettings) -> LedgerVerifyResult:
    """Check the hashes of the model's chain, and compare it with the anchors that registered versions keep.

    Without an answer of MLflow the chain alone is checked, and a warning says so. Raises DataContractError that names
    every altered or missing entry.
    """
    ledger = Ledger(settings.ledger)
    if found := ledger.problems(inputs.model):
        raise DataContractError("\n".join(found), hint="Restore these entries from a backup.")
    entries = len(ledger.entries(inputs.model))
    try:
        anchors = ledger_anchors(settings.tracking_uri, inputs.model)
    except TransientError as error:
        log.warning("Not compared with the anchors in MLflow: %s", error.message)
        anchors = {}
    for version, anchor in anchors.items():
        if problem := ledger.anchor_problem(inputs.model, anchor):
            named = f"Version {version} of {inputs.model} was registered when the ledger's newest entry was {anchor}"
            raise DataContractError(f"{named}, but {problem}", hint="Restore the ledger from a backup that has it.")
    log.info(
        "The ledger of %s in %s is whole: %d entries, newest %s; %d versions agree",
        *(inputs.model, settings.ledger, entries, ledger.head(inputs.model) or "none", len(anchors)),
    )
    return LedgerVerifyResult(entries=entries, anchors=len(anchors))
