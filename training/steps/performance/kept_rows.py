"""The rows of the champion's holdout, which its run holds."""

import logging

from training.adapters.holdout_rows import HOLDOUT_ROWS, HoldoutRows, read_holdout_rows
from training.adapters.registry import REFERENCE
from training.settings import StateSettings
from training.signing import fetch_signed
from training.steps.performance.answers import Answers

log = logging.getLogger("perennial")


def kept_rows(answers: Answers, settings: StateSettings) -> HoldoutRows | None:
    """Those of the champion's run. None for one of an earlier version, which has none."""
    champion = answers.champion
    path = settings.scratch / champion.model / "versions" / f"{champion.version}-{HOLDOUT_ROWS}"
    kept, named = f"{REFERENCE}/{HOLDOUT_ROWS}", f"version {champion.version} of {champion.model}"
    if not path.is_file() and not fetch_signed(champion.run_id, kept, path, named, settings):
        log.info("No estimate and no diagnosis: the run of version %d has no holdout rows", champion.version)
        return None
    return read_holdout_rows(path, answers.metadata.feature_names)
