"""How the story ends, printed: its timeline, the quality before and after, and whether all of it happened."""

from local import timeline


def told(chapters: list[timeline.Chapter], champion: int | None, logs: str) -> bool:
    """Print it; `logs` says where to look when something is missing. Returns whether the whole story happened."""
    print("\nTimeline")
    print("\n".join(timeline.lines(chapters)))
    winner = timeline.winning(chapters)
    if winner:
        old, new = winner.results["rollout"]["previous_version"], timeline.version(winner)
        print(f"\nQuality on the changed world: version {old} → version {new}")
        print("\n".join(timeline.quality(winner)))
        print(f"\nThe training run that it took, in Airflow: {winner.page}")
    found = timeline.checks(chapters, champion)
    print("\nDid it all happen?")
    print("\n".join(f"  {'✓' if check.held else '✗'} {check.expected}: {check.found}" for check in found))
    missing = [check for check in found if not check.held]
    if missing:
        print(f"\n✗ {len(missing)} of the story's parts are missing. Airflow's task logs tell why:\n  {logs}")
    return not missing
