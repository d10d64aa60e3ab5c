"""The versions of feeds that feature rows are made of."""

import pytest

from training.contract.base import TableVersions
from training.domain.feature_inputs import age, feed_application, made_of

FEEDS = ("events", "labels", "disputes")


@pytest.mark.parametrize("versions", [{"events": 0}, {"events": 3, "labels": 0}, {"events": 3, "disputes": 12}])
def test_a_commit_stands_for_the_versions(versions: TableVersions) -> None:
    numbers = made_of({**versions, "customer_features": 7}, FEEDS)
    assert numbers == {feed_application(feed): version for feed, version in versions.items()}


def test_later_versions_are_younger() -> None:
    order: list[TableVersions] = [
        {"events": 3},
        {"events": 3, "disputes": 1},
        {"events": 3, "labels": 0},
        {"events": 3, "labels": 9},
        {"events": 3, "labels": 9, "disputes": 0},
        {"events": 4},
    ]
    assert sorted(order, key=lambda versions: age(versions, FEEDS)) == order
