"""Whether lists of floats (embeddings) have changed as a whole: can a classifier tell the current ones from those
before?

A classifier learns on one half of the entities to tell current rows from rows of the reference, and scores the other
half; then the halves change roles. If nothing has changed it can only guess, and the scores of both sides have the same
distribution. So the scores are a column of numbers that is compared like any other (shares.py): with a p-value,
entities as evidence, and the least change that counts. A rotation, which changes no single element, is found as well.

Source: Lopez-Paz & Oquab, Revisiting Classifier Two-Sample Tests, ICLR 2017; for monitoring, Rabanser, Günnemann &
Lipton, Failing Loudly, NeurIPS 2019.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from training.domain.comparison import Rows

#: Of the logistic regression: the weight of the penalty for each row, and the most iterations.
PENALTY, ITERATIONS = 1e-2, 200
#: With fewer rows of a side in a half nothing is learned from it, and all scores of the other half are equal.
FEWEST = 20


class Half(NamedTuple):
    """Vectors [n, d] of one side, and in which half each lies, [n] of booleans."""

    vectors: np.ndarray
    second: np.ndarray

    def of(self, second: bool) -> np.ndarray:
        return self.vectors[self.second == second]


def with_domain_scores(
    reference: Rows, current: Rows, names: Sequence[str], entity: str | None, seed: int
) -> tuple[Rows, Rows]:
    """The rows, where each column of lists of floats among `names` has the scores of its rows instead.

    Scores are between 0 and 1, and higher for a row that is more like the current ones. A missing list has no score
    (NaN), nor has one with an element that is not a finite number. Lists of another length than most of the reference's
    are of another encoder: no classifier is needed to tell those of now from those before. `entity`: the column of the
    keys whose rows stay in one half; None: rows are independent.
    """
    for name in names:
        lists = [rows.columns[name] for rows in (reference, current)]
        lengths = [_lengths(each) for each in lists]
        # The length of most lists of the reference; 1 when all are missing.
        usual = int(np.bincount(lengths[0], minlength=2)[1:].argmax()) + 1
        vectors = [_vectors(each, of == usual, usual) for each, of in zip(lists, lengths, strict=True)]
        known = [np.isfinite(each).all(axis=1) for each in vectors]
        halves = [_second(rows, entity, seed) for rows in (reference, current)]
        before, now = (Half(*(each[of] for each in side)) for *side, of in zip(vectors, halves, known, strict=True))
        columns = []
        for side, of, scores, other in zip(lengths, known, domain_scores(before, now), (0.0, 1.0), strict=True):
            column = np.where((side != usual) & (side > 0), other, np.nan)
            column[of] = scores
            columns.append(column)
        reference, current = (
            rows._replace(columns=rows.columns.assign(**{name: column}))
            for rows, column in zip((reference, current), columns, strict=True)
        )
    return reference, current


def domain_scores(reference: Half, current: Half) -> tuple[np.ndarray, np.ndarray]:
    """The scores of the vectors of both sides, as ranks within a half: two classifiers have two scales."""
    sides = reference, current
    found = [np.full(len(side.vectors), 0.5) for side in sides]
    for half in (False, True):
        learned, scored = ([side.of(which) for side in sides] for which in (not half, half))
        if min(map(len, learned)) < FEWEST or not all(map(len, scored)):
            continue
        values = _classifier(*learned)(np.concatenate(scored))
        ranks = np.split((rankdata(values) - 0.5) / len(values), [len(scored[0])])
        for side, scores, of_half in zip(sides, found, ranks, strict=True):
            scores[side.second == half] = of_half
    return found[0], found[1]


def _classifier(reference: np.ndarray, current: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    from sklearn.linear_model import LogisticRegression

    rows = np.concatenate([reference, current])
    center, scale = rows.mean(axis=0), rows.std(axis=0)
    scale[scale == 0] = 1

    def prepared(vectors: np.ndarray) -> np.ndarray:
        standardised = (vectors - center) / scale
        # Distances from the center let a linear classifier see a change of spread.
        return np.column_stack([standardised, np.abs(standardised), np.linalg.norm(standardised, axis=1)])

    is_current = np.repeat([0, 1], [len(reference), len(current)])
    model = LogisticRegression(C=1 / (PENALTY * len(rows)), max_iter=ITERATIONS, class_weight="balanced")
    model.fit(prepared(rows), is_current)
    return lambda vectors: np.asarray(model.decision_function(prepared(vectors)))


def _lengths(lists: pd.Series) -> np.ndarray:
    """Of each list, [n]; 0 for a missing one."""
    return np.array([0 if each is None else np.size(each) for each in lists.where(lists.notna(), None)], dtype=np.int64)


def _vectors(lists: pd.Series, known: np.ndarray, length: int) -> np.ndarray:
    """[n, length]. The rows of lists that are not `known` are NaN."""
    found = np.full((len(lists), length), np.nan)
    if known.any():
        found[known] = np.stack(lists[known].tolist())
    return found


def _second(rows: Rows, entity: str | None, seed: int) -> np.ndarray:
    """Which rows lie in the second half. An entity lies in the same half on both sides."""
    if rows.keys is None or entity is None:
        return np.random.default_rng(seed).random(len(rows.columns)) < 0.5
    numbers = pd.util.hash_array(rows.keys[entity].astype(str).to_numpy(object), hash_key=f"{seed % 10**16:016d}")
    return numbers % 2 == 1
