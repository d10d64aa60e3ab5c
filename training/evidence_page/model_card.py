"""The model card of a version, with the metadata fields of Hugging Face's model cards.

Source: huggingface.co/docs/hub/model-cards and github.com/huggingface/hub-docs, its template.
"""

from typing import Any

import yaml

from training.evidence_page import Evidence

#: Kind of prediction → Hugging Face's name of the task.
_TASKS = {"regression": "tabular-regression"}


def model_card(evidence: Evidence) -> str:
    """Markdown with YAML metadata in front."""
    spec, metadata, verdict = evidence.spec, evidence.metadata, evidence.inputs.verdict
    fields: dict[str, Any] = {
        "model_name": f"{spec.name} version {evidence.version}",
        "pipeline_tag": (task := _TASKS.get(spec.task.kind, "tabular-classification")),
        "library_name": "onnx",
        "tags": ["tabular", spec.task.kind, metadata.estimator],
        "datasets": [spec.source.name],
        "metrics": list(verdict.challenger),
        "model-index": [
            {
                "name": spec.name,
                "results": [
                    {
                        "task": {"type": task},
                        "dataset": {"name": spec.source.name, "type": metadata.dataset_id},
                        "metrics": [
                            {"type": name, "value": round(value, 6)} for name, value in verdict.challenger.items()
                        ],
                    }
                ],
            }
        ],
    }
    gates = "\n".join(f"- {reason}" for reason in verdict.reasons)
    top = sorted(evidence.importance.items(), key=lambda item: -item[1])[:10]
    features = "\n".join(f"- {name}: {drop:+.4f}" for name, drop in top) or "- not known"
    return f"""---
{yaml.safe_dump(fields, sort_keys=False, allow_unicode=True)}---

# {spec.title}, version {evidence.version}

{spec.description or "The model spec has no description."}

- Owner: {spec.owner}
- Estimator: {metadata.estimator}, served as ONNX, SHA-256 {metadata.digest}
- Why it was trained: {evidence.inputs.reason or "no reason was given"}

## Uses

What it is for: {spec.description or "not said"} It predicts for events of {spec.source.title}; for others its quality
is not known.

## Training data

{spec.source.title}, {metadata.train_days}, dataset {metadata.dataset_id}. Label: {spec.label}.

## Evaluation

On {metadata.holdout_days}, which the training has not seen. The verdict:

{gates}

## Explanation

By how much {verdict.primary} gets worse when a feature is shuffled:

{features}

## How to make it again

    make reproduce MODEL={spec.name} VERSION={evidence.version}
"""
