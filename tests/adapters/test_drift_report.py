"""Evidently's report: what it finds, what it writes, and that it keeps it to itself."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from training.adapters.drift_report import THRESHOLD, write_drift_report
from training.contract.errors import DataContractError
from training.domain.drift import MINIMUM_ROWS

ABOUT = {"model": "card_fraud"}


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


def test_two_samples_of_the_same_data_do_not_drift_however_many_rows(tmp_path: Path) -> None:
    for seed, rows in enumerate((MINIMUM_ROWS, 3000, 8000)):
        report = write_drift_report(_rows(8000, seed), _rows(rows, seed + 50), 0.3, tmp_path, ABOUT)
        assert not any(column.drifted for column in report.columns.values())


def test_the_report_is_written_whole_and_replaced(tmp_path: Path) -> None:
    write_drift_report(_rows(600, 1), _rows(600, 2), 0.3, tmp_path, ABOUT)
    report = write_drift_report(_rows(600, 1), _rows(600, 2, shift=1.0), 0.3, tmp_path, ABOUT)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.html", "report.json"]
    assert "moved" in report.html.read_text()
    values = {m["config"].get("column"): m["value"] for m in json.loads(report.json.read_text())["metrics"]}
    assert values["moved"] == pytest.approx(report.columns["moved"].score)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_cannot_be_compared_are_an_error_and_not_left_out(tmp_path: Path, value: float) -> None:
    current = _rows(600, 2)
    current.loc[7, "steady"] = np.float32(value)
    with pytest.raises(DataContractError, match="not finite: steady"):
        write_drift_report(_rows(600, 1), current, 0.3, tmp_path / "new", ABOUT)
    assert not (tmp_path / "new").exists()


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
