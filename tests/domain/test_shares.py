"""Which shares of a column's rows have changed, and how often that is found although nothing has."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import ks_2samp

from tests.cases import others_in_ci, others_long
from training.contract.messages import ColumnDrift, Shift
from training.domain.comparison import TIME, Side, clusters_of_sides
from training.domain.drift import with_false_discovery_control
from training.domain.resampling import Clusters
from training.domain.shares import NEW, compare_shares

MINIMUM = 0.02


def side(entities: np.ndarray | None = None, **columns: np.ndarray) -> Side:
    if entities is None:
        return Side(columns)
    distinct, numbers = np.unique(entities, return_inverse=True)
    return Side(columns, {"entity": Clusters(numbers, len(distinct), False, "entities")})


def test_a_small_part_that_goes_wrong_is_found_and_named() -> None:
    random = np.random.default_rng(0)
    before, now = random.gamma(2, 10, 20_000), random.gamma(2, 10, 5000)
    now[random.random(5000) < 0.05] = 0
    found = compare_shares(side(amount=before), side(amount=now), MINIMUM)["amount"]
    assert (found.part, found.reference) == ("equal to 0", 0)
    assert found.current == pytest.approx(0.05, abs=0.01)
    assert found.p_value < 1e-20


@pytest.mark.parametrize("rows", others_long([300, 50, 3000]))
@pytest.mark.parametrize(
    "kind", others_in_ci(["even", "counts", "texts", "mostly 0", "heavy tail", "rare texts"], first=3)
)
def test_p_values_hold_for_any_number_of_rows_and_any_kind_of_column(rows: int, kind: str) -> None:
    random = np.random.default_rng([rows, *kind.encode()])

    def draw(count: int) -> np.ndarray:
        if kind == "texts":
            return random.choice(np.array(["a", "b", None], dtype=object), count, p=[0.7, 0.28, 0.02])
        if kind == "rare texts":
            return np.array([f"n{each}" for each in random.zipf(1.3, count) % 5000], dtype=object)
        return {
            "even": lambda: random.random(count),
            "heavy tail": lambda: random.pareto(1, count),
            "counts": lambda: random.poisson(3, count).astype(float),
            "mostly 0": lambda: np.where(random.random(count) < 0.97, 0, random.random(count)),
        }[kind]()

    p_values = np.array([compare_shares(side(x=draw(3000)), side(x=draw(rows)), 0.0)["x"].p_value for _ in range(200)])
    # Three standard errors above the rate that is promised.
    assert (p_values <= 0.05).mean() <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 200)
    assert (p_values <= 0.005).mean() <= 0.005 + 3 * np.sqrt(0.005 * 0.995 / 200)


@pytest.mark.parametrize("reference_has_entities", others_long([True, False]))
@pytest.mark.parametrize("same_entities", others_long([True, False]))
@pytest.mark.parametrize("worlds", others_in_ci([25, 60]))
def test_rows_of_one_entity_are_not_taken_for_evidence_of_their_own(
    reference_has_entities: bool, same_entities: bool, worlds: int
) -> None:
    """Slow features: each entity has about the same value in all its rows, and another one some weeks later."""
    random = np.random.default_rng(1)
    rates = random.uniform(0.2, 2, 300)
    found, naive = [], []
    for _ in range(worlds):
        sides = []
        for at, rows in enumerate((6000, 3000)):
            entities = random.choice(300, rows, p=rates / rates.sum()) + (0 if same_entities else 1000 * at)
            distinct, place = np.unique(entities, return_inverse=True)
            value = random.normal(0, 1, len(distinct))[place] + random.normal(0, 0.05, rows)
            sides.append(side(entities if at or reference_has_entities else None, slow=value, own=random.random(rows)))
        shifts = compare_shares(sides[0], sides[1], 0.0)
        found.append([shifts[name].p_value for name in ("slow", "own")])
        naive.append(ks_2samp(sides[0].columns["slow"], sides[1].columns["slow"]).pvalue)
    assert (np.array(naive) <= 0.05).mean() > 0.5
    assert ((np.array(found) <= 0.05).mean(axis=0) <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / worlds)).all()


def test_the_design_effect_is_that_of_kish() -> None:
    random = np.random.default_rng(2)
    entities = np.repeat(np.arange(1000), 10)
    alike = np.repeat(random.normal(0, 1, 1000), 10)
    old = side(entities, alike=alike, own=random.random(10_000))
    new = side(entities, alike=alike + 0.5, own=random.random(10_000) + 0.2)
    found = compare_shares(old, new, MINIMUM)
    assert found["alike"].design_effect == pytest.approx(10, rel=0.02)
    assert found["own"].design_effect == pytest.approx(1, abs=0.3)
    assert all(shift.p_value < 1e-6 for shift in found.values())


def test_one_entity_with_many_rows_is_one_piece_of_evidence() -> None:
    random = np.random.default_rng(3)
    entities = random.integers(0, 500, 5000)
    now, old = random.random(5000), random.random(5000)
    new_entities = np.where(np.arange(5000) < 300, 7, entities)
    now[new_entities == 7] = 5
    found = compare_shares(side(entities, x=old), side(new_entities, x=now), MINIMUM)["x"]
    assert found.p_value > 0.05
    assert compare_shares(side(x=old), side(x=now), MINIMUM)["x"].p_value < 1e-50


def test_clusters_that_cross_each_other_add_up() -> None:
    random = np.random.default_rng(4)
    kinds = [random.integers(0, 200, 8000) for _ in range(4)]
    values = [random.normal(0, 1, 200)[kinds[2 * at]] + random.normal(0, 1, 200)[kinds[2 * at + 1]] for at in (0, 1)]
    clusters = [Clusters(each, 200, False, "") for each in kinds]
    old, new = {"a": clusters[0], "b": clusters[1]}, {"a": clusters[2], "b": clusters[3]}
    both = compare_shares(Side({"x": values[0]}, old), Side({"x": values[1] + 3}, new), MINIMUM)["x"]
    one = compare_shares(Side({"x": values[0]}, {"a": old["a"]}), Side({"x": values[1] + 3}, {"a": new["a"]}), MINIMUM)
    assert both.design_effect > 1.5 * one["x"].design_effect


def test_an_id_that_takes_the_place_of_others_is_found_and_newcomers_are_not() -> None:
    random = np.random.default_rng(8)
    shops, people = random.integers(0, 2000, (2, 15_000)), random.integers(0, 900, (2, 15_000))
    people[1, :3000] += 10_000
    shops[1, random.random(15_000) < 0.05] = 11
    kinds = [
        {name: Clusters(np.unique(ids, return_inverse=True)[1], len(np.unique(ids)), False, "") for name, ids in each}
        for each in ((("shop", shops[at]), ("person", people[at])) for at in (0, 1))
    ]
    sides = [Side({"shop": shops[at].astype(object), "person": people[at].astype(object)}, kinds[at]) for at in (0, 1)]
    found = compare_shares(sides[0], sides[1], MINIMUM)
    assert (found["shop"].part, found["shop"].p_value < 1e-20) == ("equal to 11", True)
    assert found["person"].p_value > 0.05


def test_both_sides_have_the_same_kinds_of_clusters() -> None:
    def rows(people: int, shops: int) -> pd.DataFrame:
        times = pd.date_range("2026-01-05", periods=2000, freq="5min", tz="UTC")
        return pd.DataFrame({"time": times, "person": np.arange(2000) % people, "shop": np.arange(2000) % shops})

    old, new = clusters_of_sides([rows(100, 60), rows(90, 5)], ["person", "shop"], "time")
    assert list(old) == list(new) == ["person", TIME]
    assert (old["person"].count, new["person"].count, new[TIME].by_time) == (100, 90, True)
    [alone] = clusters_of_sides([rows(100, 60)], [], "time")
    assert list(alone) == [TIME]
    short = rows(100, 60).head(3)
    assert clusters_of_sides([rows(100, 60), short], ["person"], "time") == [{}, {}]


def test_a_change_below_the_minimum_is_none_however_sure_it_is() -> None:
    random = np.random.default_rng(5)
    before, now = random.random(400_000), random.random(400_000)
    now[:4000] = 0
    found = compare_shares(side(x=before), side(x=now), MINIMUM)["x"]
    assert (found.p_value, found.drifted) == (1, False)
    assert found.current - found.reference == pytest.approx(0.01, abs=0.003)
    assert compare_shares(side(x=before), side(x=now), 0.005)["x"].p_value < 1e-100


def test_missing_values_and_new_texts_have_shares_of_their_own() -> None:
    random = np.random.default_rng(6)
    before, now = random.random(5000), random.random(2000)
    before[random.random(5000) < 0.1] = np.nan
    now[random.random(2000) < 0.2] = np.nan
    towns = np.array([f"town {each}" for each in range(300)], dtype=object)
    old, new = random.choice(towns, 5000), random.choice(towns, 2000)
    new[:200] = [f"unseen {each}" for each in range(200)]
    found = compare_shares(side(x=before, town=old), side(x=now, town=new), MINIMUM)
    assert (found["x"].part, found["town"].part) == ("missing", NEW)
    assert max(shift.p_value for shift in found.values()) < 1e-6


def test_columns_without_any_number_are_compared() -> None:
    nothing, some = np.full(2000, np.nan), np.ones(2000)
    found = compare_shares(side(gone=some, still=nothing), side(gone=nothing, still=nothing), MINIMUM)
    assert (found["gone"].p_value < 1e-100, found["still"].p_value) == (True, 1)


def test_any_change_of_a_constant_is_found() -> None:
    for change in (1e-30, -1.0, 3e38):
        now = np.zeros(3000, np.float32)
        now[:150] = change
        found = compare_shares(side(x=np.zeros(3000, np.float32)), side(x=now), MINIMUM)["x"]
        moved = abs(found.current - found.reference)
        assert (moved, found.p_value < 1e-20) == (pytest.approx(0.05), True), (change, found)


@pytest.mark.parametrize("now", [np.nan, 2.0], ids=["missing", "another value"])
@pytest.mark.parametrize("reference_has_entities", [True, False])
def test_a_constant_that_is_gone_in_all_rows_of_all_entities_is_found(now: float, reference_has_entities: bool) -> None:
    entities = np.random.default_rng(6).integers(0, 300, 3000)
    old = side(entities if reference_has_entities else None, x=np.ones(3000))
    found = compare_shares(old, side(entities + 1000, x=np.full(3000, now)), MINIMUM)["x"]
    assert found.p_value < 1e-20


def _shifts(p_values: np.ndarray) -> dict[str, Shift]:
    return {
        str(at): Shift(part="", reference=0, current=0.1, minimum=MINIMUM, p_value=float(p), design_effect=1)
        for at, p in enumerate(p_values)
    }


@pytest.mark.parametrize("worlds", others_in_ci([150, 400]))
def test_false_discoveries_are_controlled_over_the_columns(worlds: int) -> None:
    random = np.random.default_rng(7)
    any_false, shares, power = 0, [], []
    for _ in range(worlds):
        nothing = with_false_discovery_control(_shifts(random.random(20)), 0.1)
        any_false += any(shift.drifted for shift in nothing.values())
        p_values = np.concatenate([random.beta(0.05, 1, 5) ** 2, random.random(15)])
        drifted = np.array([s.drifted for s in with_false_discovery_control(_shifts(p_values), 0.1).values()])
        shares.append(drifted[5:].sum() / max(drifted.sum(), 1))
        power.append(drifted[:5].mean())
    assert any_false / worlds <= 0.1 + 3 * np.sqrt(0.09 / worlds)
    assert np.mean(shares) <= 0.1
    assert np.mean(power) > 0.8
    assert with_false_discovery_control({}, 0.1) == {}


def test_an_entry_of_an_earlier_version_is_read() -> None:
    kept = ColumnDrift.model_validate({"score": 0.2, "threshold": 0.1, "method": "wasserstein", "drifted": True})
    assert kept.shift is None


def test_the_evidence_says_what_it_rests_on() -> None:
    text = str(_shifts(np.array([1e-9]))["0"].model_copy(update={"part": "equal to 0", "chance": 0.001}))
    assert text == (
        "10.0% of the rows are equal to 0, 0.0% in the reference (adjusted p-value 1, drifted from 0.001 and a "
        "difference of 2.0%; 1.0 rows count as one)"
    )
