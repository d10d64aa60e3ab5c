"""How often the gate of slices refuses a challenger that is as good as the champion everywhere, and how often it
refuses one that is worse in a slice.

    make bench-slices                      # about four minutes
    make bench-slices ARGS='--trials 500'

Two models know the odds of made-up rows up to an error of the same size. With three columns of slices and found ones,
without a margin, at most the share `1 - confidence` may be refused. Then the challenger knows nothing in a tenth of the
rows, by a number that no declared slice is of.
"""

import argparse
import sys
import time

import numpy as np
import pandas as pd
from scipy.stats import binom

from training.contract.feature_definitions import FeatureColumn
from training.contract.model_spec import EvaluationSpec, load_model_spec
from training.contract.tasks import BinaryTask
from training.contract.verdict_spec import Grouping, SlicesSpec
from training.domain.evaluation_set import EvaluationSet
from training.domain.gates.found_slices import find_slices
from training.domain.gates.groups import groups_of
from training.domain.gates.scored_model import ScoredModel
from training.domain.gates.slices import judge_slices
from training.domain.task_kind import TaskKind, task_of
from training.domain.tasks.binary import ServedBinary

ROWS, ROWS_OF_AN_ENTITY, SAMPLES, FEATURES = 5000, 10, 300, 5
#: Shares of positive rows.
SHARES = (0.05, 0.3)
CHANCE = 0.01


def main(trials: int) -> int:
    evaluation = EvaluationSpec(primary="average_precision", limits={"average_precision": 0.0})
    changes = {"task": BinaryTask(kind="binary"), "evaluation": evaluation}
    task = task_of(load_model_spec("flight_outcome").model_copy(update=changes))
    spec = SlicesSpec(metric="average_precision", margin=0.0)
    print(f"| positive | refused, equally good (at most {1 - spec.confidence:.0%}) | refused, worse in a tenth | CPU |")
    print("|---|---|---|---|")
    met = True
    for share in SHARES:
        started = time.process_time()
        refused = {worse: sum(_refuses(task, spec, share, worse, seed) for seed in range(trials)) for worse in (0, 1)}
        seconds = (time.process_time() - started) / trials / 2
        shown = " | ".join(f"{count} of {trials}" for count in refused.values())
        print(f"| {share:.0%} | {shown} | {seconds:.2f} s each |", flush=True)
        # More than stated, beyond chance.
        met &= bool(binom.sf(refused[0] - 1, trials, 1 - spec.confidence) > CHANCE)
    return 0 if met else 1


def _refuses(task: TaskKind, spec: SlicesSpec, share: float, worse: int, seed: int) -> bool:
    random = np.random.default_rng(seed)
    entities = random.integers(0, ROWS // ROWS_OF_AN_ENTITY, ROWS)
    features = random.normal(size=(ROWS, FEATURES)).astype(np.float32)
    odds = np.log(share / (1 - share)) - 1 + 1.2 * features[:, 0] + 0.8 * features[:, 1]
    owners = 0.5 * random.normal(size=ROWS)[entities]
    labels = (random.random(ROWS) < 1 / (1 + np.exp(-odds - owners))).astype(np.int64)
    truth, served = EvaluationSet.of(labels, entities, np.arange(ROWS) * 7 // ROWS), ServedBinary(0.5)

    def model(blind: np.ndarray) -> ScoredModel:
        known = np.where(blind, random.permutation(odds), odds) + 0.4 * random.normal(size=ROWS)
        return ScoredModel(task, task.scored(truth, (1 / (1 + np.exp(-known))).astype(np.float32), served), served)

    nowhere = np.zeros(ROWS, dtype=bool)
    challenger, champion = model(features[:, 4] > 1.28 if worse else nowhere), model(nowhere)
    columns = tuple(FeatureColumn(name=f"x{at}") for at in range(FEATURES))
    groups = groups_of("category", pd.Series(random.integers(0, 6, ROWS)), Grouping())
    for at in (0, 2):
        groups += groups_of(f"x{at}", pd.Series(features[:, at]), Grouping())
    groups += find_slices(challenger, champion, features, columns, spec.minimum_rows, seed)
    _, gates = judge_slices(spec, task.rules[spec.metric], challenger, champion, groups, SAMPLES, seed)
    return not all(gate.passed for gate in gates)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.slices")
    parser.add_argument("--trials", type=int, default=100)
    sys.exit(main(parser.parse_args().trials))
