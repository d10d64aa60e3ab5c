"""Prints the end of the demo: its timeline, the quality before and after, and what did not happen."""

from pathlib import Path

from local import timeline
from local.plans import Plan
from training.contract.model_spec import load_model_spec
from training.settings import load_settings


def print_summary(plan: Plan, entries: list[timeline.Entry], champion: int | None, logs: str) -> bool:
    """Print the summary. `logs` says where to look when something is missing. Returns whether nothing is missing.

    Raises ConfigError when there is no spec of the plan's model.
    """
    settings = load_settings()
    metrics = load_model_spec(plan.model, settings.models_dir, settings.feature_repo).task.rules or {}
    spec = Path(settings.models_dir, f"{plan.model}.yaml")
    print("\nTimeline")
    print("\n".join(timeline.lines(entries)))
    winner = timeline.winning(entries)
    if winner:
        old, new = winner.results["rollout"]["previous_version"], timeline.version(winner)
        print(f"\nQuality on the changed data: version {old} → version {new}")
        print("\n".join(timeline.quality(winner)))
        print(f"\nThe training run in Airflow: {winner.page}")
    found = timeline.checks(entries, champion, metrics, plan.serves_by)
    print("\nWhat must have happened:")
    print("\n".join(f"  {'✓' if check.held else '✗'} {check.expected}: {check.found}" for check in found))
    missing = [check for check in found if not check.held]
    if missing:
        print(
            f"\n✗ {len(missing)} of these did not happen. The lines `request:` of the timeline say what each look found"
        )
        print(f"  and what would have been a reason to train. {spec} sets the limits, in")
        print(f"  `monitoring` and `retraining`. The tasks' logs: {logs}")
    return not missing
