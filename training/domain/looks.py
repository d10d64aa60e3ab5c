"""A champion is looked at again and again: the number of a look, and the chance of error that it may use."""

import math

from training.contract.base import Days


def chance_of_error(confidence: float, look: int, window_days: int) -> float:
    """The chance with which look number `look` may err, so that all looks together err with 1 - `confidence`.

    Look k gets (6/π²)/k² of it, which sums to 1 over all k. By Boole's inequality a champion that does not change is
    alarmed about, in all of its life, with at most that chance, however much its looks resemble each other. Windows of
    `window_days` days may be looked at every day, so each day gets that part of its window's share. This is a
    sequential test by error spending (Lan & DeMets, Discrete Sequential Boundaries for Clinical Trials, Biometrika 70,
    1983).
    """
    return (1 - confidence) * 6 / math.pi**2 / look**2 / window_days


def look_number(window: Days, holdout: Days, window_days: int) -> int:
    """The number of `window` among the windows that follow the holdout, from 1. One that overlaps the last has its
    number until it has moved by a whole window."""
    return max(1, -((holdout.end - window.end).days // window_days))
