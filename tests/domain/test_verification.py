"""Each file is read within the nights that were asked for; new ones first, an equal share of bytes per night."""

from datetime import date, timedelta

import numpy as np
import pytest

from training.domain.verification import Looks, share

NIGHT = date(2026, 3, 1)


def nights_of(count: int, nights: int, arriving: int = 0, missed: int = -1) -> list[set[str]]:
    """What is read in 4 · `nights` nights of a lake of 50 files, to which `arriving` are added each night."""
    random = np.random.default_rng(count)
    sizes = {f"f{i:04}": int(random.integers(1, 100)) for i in range(count)}
    looks: dict[str, Looks] = {}
    chosen = []
    for number in range(4 * nights):
        night = NIGHT + timedelta(days=number)
        sizes |= {f"n{number:03}-{i}": 50 for i in range(arriving)}
        found = set() if number == missed else share(sizes, looks, night, nights)
        if number != missed:
            looks = {path: looks.get(path, Looks(night)) for path in sizes}
            looks |= {path: Looks(looks[path].seen, night) for path in found}
        chosen.append(found)
    return chosen


@pytest.mark.parametrize(("count", "nights", "arriving"), [(50, 7, 0), (50, 7, 3), (3, 7, 0), (1, 7, 1), (50, 1, 2)])
def test_each_file_is_read_in_every_period(count: int, nights: int, arriving: int) -> None:
    chosen = nights_of(count, nights, arriving)
    for number in range(3 * nights):
        there = {f"f{i:04}" for i in range(count)} | {
            f"n{n:03}-{i}" for n in range(number + 1) for i in range(arriving)
        }
        assert there <= set().union(*chosen[number : number + nights])


def test_a_night_reads_about_its_share_and_two_lakes_alike_read_the_same() -> None:
    chosen = nights_of(700, 7)
    assert all(80 < len(each) < 125 for each in chosen)
    assert chosen == nights_of(700, 7)


def test_a_missed_night_is_made_up_for() -> None:
    chosen = nights_of(70, 7, missed=10)
    for number in range(11, 20):
        assert len(set().union(*chosen[number : number + 7])) == 70
    assert len(set().union(*chosen[4:12])) == 70


def test_new_files_come_first_then_those_read_longest_ago() -> None:
    seen = NIGHT - timedelta(days=9)
    looks = {name: Looks(seen, NIGHT - timedelta(days=days)) for name, days in (("a", 1), ("b", 3))}
    sizes = {"a": 10, "b": 10, "new": 10}
    assert share(sizes, looks, NIGHT, 7) == {"new"}
    assert share(sizes | {"b": 5}, looks, NIGHT, 3) == {"new", "b"}  # b is due
    assert share({"a": 10, "b": 10}, looks, NIGHT, 7) == {"b"}


def test_nothing_there() -> None:
    assert share({}, {"gone": Looks(NIGHT)}, NIGHT, 7) == set()
