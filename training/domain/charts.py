"""Charts as data: what a training run shows of a model. training/adapters/plots.py draws them."""

from dataclasses import dataclass
from typing import Literal

import numpy as np


@dataclass(frozen=True)
class Line:
    """Points [n] of one line."""

    x: np.ndarray
    y: np.ndarray
    label: str = ""
    style: Literal["plain", "steps", "marked", "dotted"] = "plain"


@dataclass(frozen=True)
class Grid:
    """Counts [rows, columns] with the names of rows and columns, such as a confusion matrix."""

    counts: np.ndarray
    rows: tuple[str, ...]
    columns: tuple[str, ...]


@dataclass(frozen=True)
class Cloud:
    """Many points [n]. What is drawn is how dense they are."""

    x: np.ndarray
    y: np.ndarray


@dataclass(frozen=True)
class Bars:
    """One bar for each name."""

    names: tuple[str, ...]
    values: np.ndarray


@dataclass(frozen=True)
class Histogram:
    values: np.ndarray


@dataclass(frozen=True)
class Chart:
    """One picture, `<name>.png`. `x` and `y` are the titles of the axes."""

    name: str
    title: str
    x: str
    y: str
    parts: tuple[Line | Grid | Cloud | Bars | Histogram, ...]
    logarithmic: bool = False
