"""`import perennial` in a notebook or script: docs/notebook.md."""

from training.notebook import (
    ExplainedDecision,
    LoadedDataset,
    explain_decision,
    load_dataset,
    load_events,
    load_features,
)

__all__ = ["ExplainedDecision", "LoadedDataset", "explain_decision", "load_dataset", "load_events", "load_features"]
