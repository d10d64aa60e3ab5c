"""Evidently's report: what it finds, what it writes, and that it keeps it to itself."""

import contextlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.stats import wasserstein_distance

from testing.html_attacks import ATTACKS, assert_safe
from tests.cases import others_in_ci, others_long
from training.contract.errors import DataContractError
from training.domain.drift import DriftReport

ABOUT = {"model": "card_fraud"}


def write_drift_report(*given: Any) -> DriftReport:
    """Imported here: Evidently takes 4 s of CPU, and every worker process imports this file."""
    from training.adapters import drift_report

    return drift_report.write_drift_report(*given)


def _rows(count: int, seed: int, shift: float = 0.0) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "steady": random.gamma(2, 1, count),
            "moved": random.normal(shift, 1, count),
            "night": (random.random(count) < 0.2 + shift / 2).astype(float),
            "constant": np.zeros(count),
        }
    ).astype(np.float32)


def test_moved_columns_are_found_and_the_others_left_alone(tmp_path: Path) -> None:
    from training.adapters.drift_report.page import THRESHOLD

    report = write_drift_report(_rows(3000, 1), _rows(2000, 2, shift=0.6), 0.3, tmp_path / "new", ABOUT)
    found = {name: (column.method, column.drifted) for name, column in report.columns.items()}
    assert found == {
        "steady": ("wasserstein", False),
        "moved": ("wasserstein", True),
        "night": ("jensenshannon", True),
        "constant": ("jensenshannon", False),
    }
    assert report.columns["moved"].score == pytest.approx(0.6, abs=0.1)  # in standard deviations
    assert {column.threshold for column in report.columns.values()} == {THRESHOLD}


@pytest.mark.parametrize("rows", others_in_ci([1000, 8000]))
def test_two_samples_of_the_same_data_do_not_drift_however_many_rows(tmp_path: Path, rows: int) -> None:
    report = write_drift_report(_rows(8000, 1), _rows(rows, 51), 0.3, tmp_path, ABOUT)
    assert not any(column.drifted for column in report.columns.values())


def test_the_report_is_written_whole_and_replaced(tmp_path: Path) -> None:
    old, same, other = (_rows(600, seed, shift)[["moved"]] for seed, shift in ((1, 0.0), (2, 0.0), (2, 1.0)))
    write_drift_report(old, same, 0.3, tmp_path, ABOUT)
    report = write_drift_report(old, other, 0.3, tmp_path, ABOUT)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.html", "report.json"]
    assert "moved" in report.html.read_text()
    values = {m["config"].get("column"): m["value"] for m in json.loads(report.json.read_text())["metrics"]}
    assert values["moved"] == pytest.approx(report.columns["moved"].score)


@pytest.mark.ci
def test_the_scale_of_a_feature_changes_no_score(tmp_path: Path) -> None:
    """From the smallest numbers of float32 to the largest; a rate per million, a date written as a number."""
    random = np.random.default_rng(0)
    old, new = random.normal(0, 1, 3000), random.normal(0.5, 1, 2000)
    scales = {"usual": 1.0, "cents": 0.01, "rate": 2e-5, "tiny": 1e-37, "huge": 1e37, "beyond float32": 1e250}
    reference, current = (pd.DataFrame({n: rows * scale for n, scale in scales.items()}) for rows in (old, new))
    report = write_drift_report(reference, current, 0.3, tmp_path, ABOUT)
    for name, column in report.columns.items():
        assert column.score == pytest.approx(report.columns["usual"].score, rel=1e-9), name
        assert column.drifted, name


@pytest.mark.ci
def test_columns_of_usual_scale_score_as_the_distance_over_the_deviation(tmp_path: Path) -> None:
    """Standardising changes what the page shows, not what was found before."""
    from training.adapters.drift_report.page import NOTE

    reference, current = _rows(3000, 1)[["steady", "moved"]], _rows(2000, 2, shift=0.2)[["steady", "moved"]]
    report = write_drift_report(reference, current, 0.3, tmp_path, ABOUT)
    for name in ("steady", "moved"):
        old, new = reference[name].astype(float), current[name].astype(float)
        expected = wasserstein_distance(old, new) / old.std(ddof=0)
        assert report.columns[name].score == pytest.approx(expected, abs=1e-6)
    assert NOTE in report.html.read_text()


@pytest.mark.ci
def test_denormals_whole_numbers_and_neighbouring_floats_are_compared(tmp_path: Path) -> None:
    random = np.random.default_rng(0)

    def rows(count: int, shift: int) -> pd.DataFrame:
        return pd.DataFrame(
            {
                "denormal": (1e-45 * (random.integers(0, 20, count) + shift)).astype(np.float32),
                "date": (20260101 + 2 * random.integers(0, 15, count) + 2 * shift).astype(np.float32),
                "count": random.integers(0, 20, count) + shift,
            }
        )

    reference = rows(2000, 0)
    same = write_drift_report(reference, rows(2000, 0), 0.3, tmp_path, ABOUT).columns
    moved = write_drift_report(reference, rows(2000, 5), 0.3, tmp_path, ABOUT).columns
    assert not any(column.drifted for column in same.values()), same
    assert all(column.drifted for column in moved.values()), moved
    assert {column.method for column in (same | moved).values()} == {"wasserstein"}


@pytest.mark.parametrize("constant", others_long([0.0, 0.1, 1e-45, 1e30, -20260105.0]))
@pytest.mark.parametrize("factor", others_long([1e-6, 1e6]))
def test_any_change_of_a_constant_is_drift(tmp_path: Path, constant: float, factor: float) -> None:
    reference = pd.DataFrame({"x": np.full(3000, constant)})
    current = pd.DataFrame({"x": np.full(3000, constant)})
    current.loc[:9, "x"] += (abs(constant) or 1e-30) * factor * np.arange(1, 11)
    column = write_drift_report(reference, current, 0.3, tmp_path, ABOUT).columns["x"]
    assert (column.method, column.drifted) == ("wasserstein", True)
    column = write_drift_report(reference, reference, 0.3, tmp_path, ABOUT).columns["x"]
    assert (column.score, column.drifted) == (0.0, False)


def test_a_value_that_is_far_beyond_all_others_is_drawn(tmp_path: Path) -> None:
    reference, current = (_rows(600, seed)[["steady"]] for seed in (1, 2))
    current.loc[3, "steady"] = np.float32(3e38)
    column = write_drift_report(reference, current, 0.3, tmp_path, ABOUT).columns["steady"]
    assert column.drifted
    assert np.isfinite(column.score)


def test_infinite_values_are_an_error_and_not_left_out(tmp_path: Path) -> None:
    current = _rows(600, 2)
    current.loc[7, "steady"] = np.float32(np.inf)
    with pytest.raises(DataContractError, match="infinite values: steady"):
        write_drift_report(_rows(600, 1), current, 0.3, tmp_path / "new", ABOUT)
    assert not (tmp_path / "new").exists()


@pytest.mark.long
def test_nothing_is_sent_anywhere(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; import numpy as np, pandas as pd\n"
        "def hook(event, arguments):\n"
        "    if event in ('socket.connect', 'socket.getaddrinfo', 'socket.sendto'): print('SENT', arguments)\n"
        "sys.addaudithook(hook)\n"
        "from training.adapters.drift_report import write_drift_report\n"
        "rows = pd.DataFrame({'x': np.random.default_rng(0).random(600)})\n"
        "write_drift_report(rows, rows, 0.3, Path(sys.argv[1]), {})\n"
        "print('written')"
    )
    command = [sys.executable, "-W", "ignore", "-c", program, str(tmp_path)]
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    assert ended.stdout.splitlines() == ["written"]


def _text(random: np.random.Generator, rows: int, values: list[str | None], shares: list[float]) -> pd.Series:
    return pd.Series(random.choice(np.array(values, dtype=object), rows, p=shares), dtype=object)


def test_text_is_compared_by_the_shares_of_its_values(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    values: list[str | None] = ["AA", "UA", None]

    def rows(count: int, moved: list[float]) -> pd.DataFrame:
        same = _text(random, count, values, [0.6, 0.3, 0.1])
        return pd.DataFrame({"same": same, "moved": _text(random, count, values, moved)})

    reference = rows(5000, [0.6, 0.3, 0.1])
    found = write_drift_report(reference, rows(2000, [0.3, 0.6, 0.1]), 0.3, tmp_path, ABOUT).columns
    assert {name: (column.method, column.drifted) for name, column in found.items()} == {
        "same": ("jensenshannon", False),
        "moved": ("jensenshannon", True),
    }
    lost = write_drift_report(reference, rows(2000, [0.4, 0.2, 0.4]), 0.3, tmp_path, ABOUT)
    assert lost.columns["moved"].drifted
    assert "(missing)" in lost.html.read_text()


@pytest.mark.ci
def test_many_rare_values_of_text_do_not_drift_by_chance_and_new_ones_do(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    names = [f"N{number}" for number in range(3000)]
    reference = pd.DataFrame({"tail": random.choice(names, 20_000)})
    same = pd.DataFrame({"tail": random.choice(names, 1000)})
    assert not write_drift_report(reference, same, 0.3, tmp_path, ABOUT).columns["tail"].drifted
    few = pd.DataFrame({"tail": random.choice(names[:20], 20_000)})
    assert not write_drift_report(few, few.head(1000), 0.3, tmp_path, ABOUT).columns["tail"].drifted
    new = pd.DataFrame({"tail": np.where(random.random(1000) < 0.2, "unseen", few["tail"].head(1000))})
    assert write_drift_report(few, new, 0.3, tmp_path, ABOUT).columns["tail"].drifted


@pytest.mark.parametrize(("share", "drifted"), others_in_ci([(0.5, True), (0.1, False), (1.0, True)]))
def test_numbers_drift_when_more_of_them_are_missing(tmp_path: Path, share: float, drifted: bool) -> None:
    reference, current = _rows(3000, 1), _rows(2000, 2)
    random = np.random.default_rng(0)
    reference.loc[random.random(3000) < 0.1, ["steady", "night"]] = np.nan
    current.loc[random.random(2000) < share, ["steady", "night"]] = np.nan
    report = write_drift_report(reference, current, 0.3, tmp_path, ABOUT)
    assert list(report.columns) == list(reference.columns)
    assert {name: report.columns[name].drifted for name in ("steady", "night")} == dict.fromkeys(
        ("steady", "night"), drifted
    )
    assert not report.columns["moved"].drifted
    assert "steady (missing)" in report.html.read_text()


@pytest.mark.parametrize("value", others_long(ATTACKS))
def test_names_and_values_of_data_cannot_become_markup(value: str, tmp_path: Path) -> None:
    old, new = _rows(200, 1), _rows(200, 2)
    old, new = (pd.DataFrame({value: [value, "usual"] * 100, f"{value} number": rows["moved"]}) for rows in (old, new))
    report = write_drift_report(old, new, 0.3, tmp_path / "new", {value: value})
    assert value in report.columns
    page = report.html.read_text()
    # The first script is the data, and ends where Evidently ends it.
    assert_safe(page, scripts=4)
    assert "window.drawDashboard(" in page


@pytest.mark.ci
def test_evidently_shows_the_same_page_when_it_compares_and_draws_each_column_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from evidently.legacy.calculations import data_drift
    from evidently.metrics import column_statistics

    from training.adapters.drift_report import page

    done: list[str] = []
    compare, drawing = data_drift.get_one_column_drift, column_statistics.ValueDriftCalculation
    draw = drawing._render

    def compared(**given: object) -> object:
        done.append(f"compared {given['column_name']}")
        return compare(**given)

    def drawn(self: object, result: object, *rest: object) -> object:
        done.append(f"drawn {result.column_name}")
        return draw(self, result, *rest)

    for module in (data_drift, column_statistics):
        monkeypatch.setattr(module, "get_one_column_drift", compared)
    monkeypatch.setattr(drawing, "_render", drawn)
    rows = pd.DataFrame({"a": np.arange(600.0), "b": np.tile(["x", "y"], 300)})
    once = page.write_page(rows, rows[:300], 0.3, tmp_path / "once", {})
    assert sorted(done) == ["compared a", "compared b"]
    done.clear()
    monkeypatch.setattr(page, "each_column_once", contextlib.nullcontext)
    often = page.write_page(rows, rows[:300], 0.3, tmp_path / "often", {})
    assert sorted(done) == ["compared a"] * 3 + ["compared b"] * 3 + ["drawn a", "drawn b"]
    assert once.columns == often.columns
    # The ids on it are random, and of one length.
    assert once.html.stat().st_size == often.html.stat().st_size
