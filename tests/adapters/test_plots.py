"""Charts are drawn whatever the names of classes and columns are."""

from pathlib import Path

import numpy as np
import pytest

from tests.cases import others_in_ci
from training.adapters.plots import draw
from training.domain.charts import Bars, Chart, Grid, Line

POINTS = np.array([1.0, 2.0])


@pytest.mark.parametrize(
    "name", others_in_ci([r"$\foo$", "", "损失", "$x_{$", "a $ b", r"US\$ and $", "_", "{}", "%s", "\n"], first=3)
)
def test_names_are_text_and_not_formulas(name: str, tmp_path: Path) -> None:
    other = f"{name} 2"
    parts = {
        "line": Line(POINTS, POINTS, label=name),
        "grid": Grid(np.eye(2), (name, other), (name, other)),
        "bars": Bars((name, other), POINTS),
    }
    draw(tmp_path, [Chart(kind, f"Title {name}", name, name, (part,)) for kind, part in parts.items()])
    assert {picture.stem for picture in tmp_path.glob("*.png")} == set(parts)


def test_axes_are_logarithmic(tmp_path: Path) -> None:
    draw(tmp_path, [Chart("sizes", "Sizes", "$a$", "$b$", (Line(POINTS, POINTS * 1000),), logarithmic=True)])
    assert (tmp_path / "sizes.png").stat().st_size
