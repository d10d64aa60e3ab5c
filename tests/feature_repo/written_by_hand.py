"""The source card_payments with its feature tables written by hand: SQL and Feast views instead of declarations."""

import shutil
from pathlib import Path

from training.contract.source_spec import SourceSpec, load_source_spec
from training.settings import ROOT

SOURCE = "card_payments"
BY_HAND = Path(__file__).parent / "by_hand"


def copy_by_hand(folder: Path) -> Path:
    """A copy of the feature repo at `folder`, in which card_payments is written by hand."""
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "feature_repo", folder, ignore=ignored)
    shutil.copytree(BY_HAND, folder, ignore=ignored, dirs_exist_ok=True)
    return folder


def spec_by_hand() -> SourceSpec:
    return load_source_spec(SOURCE, BY_HAND)
