"""The rows of the champion's holdout, which its run holds."""

import logging

from training.adapters.holdout_rows import HOLDOUT_ROWS, HoldoutRows, read_holdout_rows
from training.adapters.registry import REFERENCE, Registry
from training.settings import StateSettings
from training.steps.performance.answers import Answers

log = logging.getLogger("perennial")


def kept_rows(answers: Answers, settings: StateSettings) -> HoldoutRows | None:
    """Those of the champion's run. None for one of an earlier version, which has none."""
    champion = answers.champion
    path = settings.scratch / champion.model / "versions" / f"{champion.version}-{HOLDOUT_ROWS}"
    if not path.is_file() and not Registry(settings.tracking_uri).download_file(
        champion.run_id, f"{REFERENCE}/{HOLDOUT_ROWS}", path
    ):
        log.info("Neither estimate nor diagnosis: the run of version %d holds no rows of its holdout", champion.version)
        return None
    return read_holdout_rows(path, answers.metadata.feature_names)
