"""Which values count as new, how few rows of them suffice, and which are told from those that are new by nature."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from tests.cases import others_in_ci, others_long
from training.contract.messages import Shift
from training.domain import drift
from training.domain.comparison import Rows, Side, paired
from training.domain.new_values import with_new_values
from training.domain.resampling import Clusters
from training.domain.shares import compare_shares

MINIMUM, NEW = 0.02, 0.005
OLD_ROWS, NEW_ROWS = 20_000, 10_000


def side(entities: np.ndarray | None = None, times: np.ndarray | None = None, **columns: np.ndarray) -> Side:
    if entities is None:
        return Side(columns, times=times)
    distinct, numbers = np.unique(entities, return_inverse=True)
    return Side(columns, {"entity": Clusters(numbers, len(distinct), False, "entities")}, times)


def found(before: np.ndarray, now: np.ndarray, minimum: float = NEW) -> Shift:
    """The shift of one column, whose rows are independent."""
    return _shift(side(x=before), side(x=now), minimum)


def _shift(reference: Side, current: Side, minimum: float = NEW) -> Shift:
    return with_new_values(compare_shares(reference, current, MINIMUM), reference, current, minimum)["x"]


def _texts(random: np.random.Generator, rows: int) -> np.ndarray:
    return random.choice(np.array(["a", "b", "c"], dtype=object), rows, p=[0.6, 0.3, 0.1])


def _count(random: np.random.Generator, rows: int) -> np.ndarray:
    return random.poisson(4, rows).astype(np.float32)


#: Kind of column → how its values are drawn.
KINDS: dict[str, Callable[[np.random.Generator, int], np.ndarray]] = {
    "amounts": lambda random, rows: random.gamma(2, 20, rows).round(2).astype(np.float32),
    "counts": _count,
    "always 0": lambda random, rows: np.zeros(rows, np.float32),
    "yes or no": lambda random, rows: (random.random(rows) < 0.3).astype(np.float32),
    "up to 28": lambda random, rows: np.minimum(random.integers(1, 200, rows), 28).astype(np.float32),
    "unsigned": lambda random, rows: random.integers(10, 2**64 - 10, rows, dtype=np.uint64),
    "large integers": lambda random, rows: random.integers(2**53, 2**60, rows),
    "texts": _texts,
    "true texts": lambda random, rows: random.random(rows) < 0.5,
}


@pytest.mark.parametrize(
    ("kind", "value", "part"),
    [
        ("amounts", 0.0, "equal to 0"),
        ("amounts", -1.0, "equal to -1"),
        ("amounts", np.nan, "missing"),
        ("amounts", np.inf, "equal to inf"),
        ("amounts", -np.inf, "equal to -inf"),
        ("counts", -1.0, "equal to -1"),
        ("counts", 999.0, "equal to 999"),
        ("counts", 2.5, "equal to 2.5"),
        ("always 0", 1e-30, "equal to 1e-30"),
        ("yes or no", np.nan, "missing"),
        ("up to 28", 29.0, "equal to 29"),
        ("unsigned", 0, "equal to 0"),
        ("large integers", -1, "equal to -1"),
        ("texts", "d", "equal to d"),
        ("texts", None, "missing"),
    ],
)
def test_one_row_in_a_hundred_is_found_and_named(kind: str, value: object, part: str) -> None:
    random = np.random.default_rng(0)
    before, now = KINDS[kind](random, OLD_ROWS), KINDS[kind](random, NEW_ROWS)
    now[random.random(NEW_ROWS) < 0.01] = value
    shift = found(before, now)
    assert (shift.part, shift.reference, shift.minimum) == (part, 0, NEW)
    assert shift.current == pytest.approx(0.01, abs=0.003)
    assert shift.p_value < 1e-20
    assert found(before, now, 0.02).p_value == found(before, now, 1.0).p_value == 1


@pytest.mark.parametrize("kind", others_in_ci(KINDS, every=4))
def test_nothing_is_new_when_nothing_has_changed(kind: str) -> None:
    random = np.random.default_rng(1)
    for rows in (7, 100, 5000):
        for _ in range(8):
            before, now = KINDS[kind](random, OLD_ROWS), KINDS[kind](random, rows)
            assert found(before, now).p_value >= compare_shares(side(x=before), side(x=now), MINIMUM)["x"].p_value


@pytest.mark.parametrize("kind", others_in_ci(["texts", "counts", "long tail"], first=2))
@pytest.mark.parametrize("rows", others_long([300, 20, 3000]))
def test_p_values_hold_without_any_minimum(kind: str, rows: int) -> None:
    """Of few rows each value is rare, and any may be new."""
    random = np.random.default_rng([rows, *kind.encode()])

    def draw(count: int) -> np.ndarray:
        if kind == "long tail":
            return np.array([f"n{each}" for each in random.zipf(1.3, count) % 5000], dtype=object)
        return KINDS[kind](random, count)

    p_values = np.array([found(draw(600), draw(rows), 1e-9).p_value for _ in range(150)])
    assert (p_values <= 0.05).mean() <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 150)


def test_the_next_larger_count_is_no_new_value() -> None:
    """Counts rise a little: the largest is new, and the ones below it are more frequent too."""
    random = np.random.default_rng(2)
    before = np.minimum(_count(random, OLD_ROWS), 10)
    now = np.where(
        random.random(NEW_ROWS) < 0.02, random.choice([9, 10, 11], NEW_ROWS), np.minimum(before[:NEW_ROWS], 10)
    )
    assert np.mean(now == 11) > NEW
    assert not np.any(before == 11)
    assert found(before, now.astype(np.float32)).p_value == 1
    # Alone, it is a fault.
    assert found(before, np.where(now == 11, 11, before[:NEW_ROWS])).part == "equal to 11"


def test_a_value_that_the_reference_has_too_is_not_new() -> None:
    random = np.random.default_rng(3)
    before, now = KINDS["amounts"](random, OLD_ROWS), KINDS["amounts"](random, NEW_ROWS)
    now[:150] = 0
    before[:40] = 0  # 0.2 % before, 1.5 % now
    assert found(before, now).p_value == 1
    before[20:40] = 1
    assert found(before, now).p_value < 1e-20


def test_an_entity_is_one_piece_of_evidence_whatever_it_shares_with_others() -> None:
    random = np.random.default_rng(4)
    shops, people = random.integers(0, 500, NEW_ROWS), random.integers(0, 300, NEW_ROWS)
    before, now = KINDS["amounts"](random, NEW_ROWS), KINDS["amounts"](random, NEW_ROWS)

    def p_value(broken: np.ndarray) -> float:
        clusters = {
            name: Clusters(each, int(each.max()) + 1, False, "") for name, each in (("shop", shops), ("person", people))
        }
        changed = np.where(broken, np.float32(0), now)
        shift = _shift(Side({"x": before}, clusters), Side({"x": changed}, clusters), 0.001)
        assert broken.mean() > 0.001
        return shift.p_value

    assert p_value(np.isin(shops, range(20))) < 1e-4
    assert p_value(np.isin(people, range(20))) < 1e-4
    # Three people and two shops, with hundreds of rows at hundreds of others.
    assert p_value(np.isin(people, range(3)) | np.isin(shops, range(2))) > 0.01


def test_twenty_broken_sensors_of_two_thousand_are_found() -> None:
    """At any size of the reference that knows them. Their rows are 1 % of all."""
    random = np.random.default_rng(5)
    old, new = random.integers(0, 2000, 20_000), random.integers(0, 2000, 13_000)
    amounts = KINDS["amounts"](random, 33_000)
    now = np.where(new < 20, np.float32(0), amounts[20_000:])
    shift = _shift(side(old, x=amounts[:20_000]), side(new, x=now))
    assert (shift.part, shift.p_value < 1e-5) == ("equal to 0", True)
    assert shift.design_effect == pytest.approx(13_000 / 2000, rel=0.2)


@pytest.mark.parametrize("rows", [1, 3, 15])
def test_few_rows_are_no_evidence(rows: int) -> None:
    """Of either side: all of them may have lacked, or had, the value by chance."""
    random = np.random.default_rng(6)
    many, few = KINDS["amounts"](random, 5000), KINDS["amounts"](random, rows)
    broken = np.where(random.random(5000) < 0.01, np.float32(0), many)
    nothing = {"x": Shift(part="", reference=0, current=0, minimum=MINIMUM, p_value=1, design_effect=1)}
    few_of_them_broken = np.concatenate([np.zeros(1, np.float32), few[1:]])
    for before, now in ((few, broken), (many, few_of_them_broken)):
        assert with_new_values(nothing, side(x=before), side(x=now), NEW)["x"].p_value > 0.05


def test_columns_without_any_value_are_compared() -> None:
    nothing, some = np.full(3000, np.nan), np.ones(3000)
    empty = np.full(3000, None, dtype=object)
    for before, now in ((nothing, nothing), (nothing, some), (some, nothing), (empty, empty), (empty, nothing)):
        shift = found(before, now)
        assert (shift.p_value < 1e-100) == (not pd.isna(before).all() or not pd.isna(now).all()), (before, now)


def test_the_same_number_in_fewer_bytes_is_no_new_value() -> None:
    random = np.random.default_rng(7)
    before, now = (random.choice([0.1, 0.2, 0.7], rows, p=[0.6, 0.39, 0.01]) for rows in (OLD_ROWS, NEW_ROWS))
    for pair in ((before, now.astype(np.float32)), (before.astype(np.float32), now)):
        new = with_new_values(compare_shares(side(x=now), side(x=now), MINIMUM), side(x=pair[0]), side(x=pair[1]), NEW)
        assert new["x"].p_value == 1


def test_values_that_come_and_go_within_the_reference_are_no_fault() -> None:
    """Such as the products of a shop: every week has some that the week before had not."""
    random = np.random.default_rng(8)

    def week(number: int, changing: bool) -> np.ndarray:
        texts = np.array([f"product {each}" for each in random.integers(0, 30, NEW_ROWS)], dtype=object)
        texts[random.random(NEW_ROWS) < 0.01] = f"of week {number if changing else 0}"
        return texts

    times = np.datetime64("2026-01-05") + np.arange(2 * NEW_ROWS) * np.timedelta64(1, "m")
    shuffled = random.permutation(2 * NEW_ROWS)
    for changing in (True, False):
        before, now = np.concatenate([week(1, changing), week(2, changing)]), week(3, True)
        known = side(times=times[shuffled], x=before[shuffled])
        assert (_shift(known, side(x=now)).p_value == 1) == changing
        assert _shift(side(x=before), side(x=now)).part == "equal to of week 3"


def test_nothing_is_new_of_entities_or_where_one_side_does_not_know_them() -> None:
    random = np.random.default_rng(9)
    old, new = random.integers(0, 300, 5000), random.integers(0, 300, 5000)
    new[:100] = 1000
    before, now = random.random(5000), np.where(np.arange(5000) % 50 == 0, 0, random.random(5000))
    reference = side(old, x=before, entity=old.astype(object))
    current = side(new, x=now, entity=new.astype(object))
    shifts = compare_shares(reference, current, MINIMUM)
    changed = with_new_values(shifts, reference, current, NEW)
    assert changed["entity"] == shifts["entity"]
    assert changed["x"].p_value < 1e-5
    assert with_new_values(shifts, side(x=before), current, NEW) == shifts


def test_rows_with_entities_and_times_are_tested_together_with_all_columns() -> None:
    random = np.random.default_rng(10)
    sides = []
    for at, start in enumerate(("2026-01-05", "2026-03-02")):
        times = pd.date_range(start, periods=8000, freq="1min", tz="UTC")
        columns = {f"x{each}": random.gamma(2, 20, 8000) for each in range(20)}
        keys = pd.DataFrame({"time": times, "sensor": random.integers(0, 2000, 8000)})
        if at:
            columns["x7"][keys["sensor"] < 30] = 0
        sides.append(Rows(pd.DataFrame(columns), keys))
    shifts = drift.tested([paired(*sides, ["sensor"], "time")], compare_shares, MINIMUM, 0.001, NEW)
    assert [name for name, shift in shifts.items() if shift.drifted] == ["x7"]
    assert str(shifts["x7"]).startswith("1.")
    without = drift.tested([paired(*sides, ["sensor"], "time")], compare_shares, MINIMUM, 0.001, 1.0)
    assert not any(shift.drifted for shift in without.values())
