"""benchmarks/monitoring, small: it runs, finds a large change, and its streams are those that training would read."""

from datetime import timedelta
from pathlib import Path

import pandas as pd
import pytest

from benchmarks.monitoring.__main__ import main
from benchmarks.monitoring.kept import kept_or_judged
from benchmarks.monitoring.planted import KINDS, Planted, all_planted, label_planted
from benchmarks.monitoring.results import Found, SeedResult, figures, table
from benchmarks.monitoring.seeds import WARM_UP_DAYS, Sizes, judged
from benchmarks.monitoring.streams import START, Streams
from benchmarks.monitoring.watched_stream import Champion, Watch
from local.changes import Change

pytestmark = pytest.mark.long

CUSTOMERS = 400


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("streams")


def test_a_large_change_is_found_and_the_table_says_so(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sizes = Sizes(folder, CUSTOMERS, weeks=2, every=14, planted=tuple(all_planted(["amount_inflation"], [3.0])))
    result = judged(sizes, seed=1)
    assert result.year is not None
    assert result.year.looks == 1
    at_once, gradual = result.found
    assert (at_once.planted.gradual, gradual.planted.gradual) == (False, True)
    assert at_once.seen == 14
    assert "drift" in at_once.by
    assert gradual.seen is not None
    assert gradual.seen >= at_once.seen
    printed = f"{table([result])}\n\n{figures([result])}"
    for text in ("unchanged, 0.0 years", "amounts × 1.9, at once, within 14 days | 400 | 1 of 1", "1 looks"):
        assert text in printed
    made = _files(folder)
    again = kept_or_judged(sizes, seed=1)
    assert (again.year, again.found) == (result.year, result.found)
    assert _files(folder) == made, "streams are made once"
    assert kept_or_judged(sizes, seed=1) == again, "with its time: it was not measured again"
    options = f"--seeds 2 --weeks 2 --every 14 --customers {CUSTOMERS} --changes amount_inflation --magnitudes 3"
    main(["--folder", str(folder), *options.split(), "--table"])
    missing = f"{CUSTOMERS} customers: not measured yet, or with other code: seeds [2]"
    assert capsys.readouterr().out == f"{printed}\n{missing}\n"


def _files(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.iterdir() if path.is_file()}


def test_looks_further_apart_than_a_change_is_watched_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--every", "22"])
    assert "--every 22: a change is watched for 21 days, so give 1 to 21" in capsys.readouterr().err


def test_a_changed_stream_has_the_features_of_the_whole_history(folder: Path) -> None:
    """It is made of the days just before it only. Amounts × 1 are no change, so the rows must be those of the whole."""
    streams, start = Streams(folder, seed=2, customers=60), START + timedelta(days=60)
    whole = streams.unchanged(63)
    changed = streams.changed([Change(kind="amount_inflation", start=start, strength=1.0)], 3)
    days = whole[streams.spec.source.events.time_column].dt.date >= start
    pd.testing.assert_frame_equal(changed, whole[days].reset_index(drop=True))
    assert (changed["terminal_count_30d"] > 0).mean() > 0.9
    assert len(streams.names) > 10


@pytest.mark.parametrize("kind", KINDS)
def test_half_a_change_is_half_as_strong(kind: str) -> None:
    whole, half = (Planted(kind, magnitude).change(START).value for magnitude in (1.0, 0.5))
    unchanged = 1.0 if kind == "amount_inflation" else 0.0
    assert half - unchanged == pytest.approx((whole - unchanged) / 2)


def test_a_change_is_in_time_until_its_data_or_labels_have_been_there_for_two_windows() -> None:
    def in_time(kind: str, gradual: bool, days: int | None) -> bool:
        return Found(Planted(kind, 1.0, gradual), 1, days, ("drift",), (), None).in_time(days)

    assert in_time("zero_amounts", False, 14)
    assert not in_time("zero_amounts", False, 15)
    assert not in_time("zero_amounts", False, None)
    assert in_time("new_fraud", False, 21)
    assert not in_time("new_fraud", False, 22)
    assert in_time("zero_amounts", True, 18)
    assert not in_time("zero_amounts", True, 19)
    assert in_time("moved_frauds", True, 35)
    assert not in_time("moved_frauds", True, 36)


def test_the_table_counts_what_is_in_time() -> None:
    planted = Planted("zero_amounts", 1.0)
    found = [Found(planted, seed, days, ("drift",), (), None) for seed, days in enumerate((3, 14, 15))]
    results = [SeedResult(seed, 1000, None, [each], 1.0) for seed, each in enumerate(found)]
    printed = table([*results, SeedResult(0, 20_000, None, found[:1], 1.0)])
    row = "| 5.00% of terminals report 0, at once, within 14 days |"
    assert f"{row} 1,000 | 2 of 3 | ≥ 95% | no | 0 | 14 (3 … 15) |" in printed
    assert f"{row} 20,000 | 1 of 1 | ≥ 95% | yes | 0 | 3 (3 … 3) |" in printed


def test_a_watch_that_goes_on_sees_what_a_whole_one_sees(folder: Path) -> None:
    """The days before a change are prepared once for all changes."""
    streams = Streams(folder, seed=1, customers=CUSTOMERS)
    spec, start = streams.spec, START + timedelta(days=91)
    before = streams.unchanged(91)
    champion = Champion.trained(before, streams.names, spec, START + timedelta(days=WARM_UP_DAYS))
    after = streams.changed([Change(kind="population_shift", start=start, strength=0.3)], 21)
    shared = Watch.of(champion, before)
    others = shared.going_on(streams.changed([Change(kind="amount_inflation", start=start, strength=3.0)], 14))
    whole, going_on = Watch.of(champion, pd.concat([before, after], ignore_index=True)), shared.going_on(after)
    pd.testing.assert_frame_equal(going_on.rows, whole.rows)
    for days in (7, 21):
        as_of = start + timedelta(days=days)
        others.performance(as_of)
        assert going_on.performance(as_of) == whole.performance(as_of)
        assert going_on.drift(as_of) == whole.drift(as_of)
    assert shared.first, "the windows before the change are measured once"


def test_the_larger_streams_have_the_changes_that_only_labels_show() -> None:
    planted = list(label_planted(KINDS))
    assert Planted("new_fraud", 1.0) in planted
    unseen = {kind for kind in KINDS if not Planted(kind, 1.0).in_inputs}
    assert {each.kind for each in planted if each.gradual} == unseen
    assert list(label_planted(["zero_amounts"])) == []
