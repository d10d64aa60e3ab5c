"""Rows per second of the fit of the estimator `mlp`, against a plain PyTorch loop over a DataLoader.

    make bench-train
    make bench-train ARGS='--rows 1000000 --features 20 --epochs 3'

Both train the same network on the same made rows with the same batches, optimizer and device. Ours holds all rows on
the device and picks the rows of a batch there; the plain loop collects each batch row by row. With a GPU, ours is also
compared with a roofline: the rows per second that the measured speed of a large matrix product in bfloat16 and the
measured bandwidth of the device's memory allow (Williams, Waterman and Patterson, Roofline, 2009). Goals with a GPU: 50
times the plain loop, 60 % of the roofline. On the CPU there is no goal.
"""

import argparse
import time
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from training.estimators import base

GOAL_TIMES, GOAL_ROOFLINE = 50.0, 0.6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=200_000, help="training rows (default: 200000)")
    parser.add_argument("--features", type=int, default=15, help="features per row (default: 15)")
    parser.add_argument("--epochs", type=int, default=3, help="epochs of our fit (default: 3)")
    parser.add_argument("--batch", type=int, default=512, help="rows per batch (default: 512)")
    given = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    data = made_rows(given.rows, given.features)
    ours = our_speed(data, given.epochs, given.batch)
    plain = plain_speed(data, given.batch, device)
    name = torch.cuda.get_device_name() if device == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    print(f"{given.rows} rows of {given.features} features, batches of {given.batch}, on {name}")
    print(f"our fit:         {ours:>12,.0f} rows/s")
    print(f"DataLoader loop: {plain:>12,.0f} rows/s")
    print(f"ratio:           {ours / plain:>12.1f}" + (f"  (goal {GOAL_TIMES:g})" if device == "cuda" else ""))
    if device == "cuda":
        bound = roofline(given.features, given.batch)
        print(f"roofline:        {bound:>12,.0f} rows/s; ours reaches {ours / bound:.1%} (goal {GOAL_ROOFLINE:.0%})")
    else:
        print("roofline:        none, because there is no GPU")


def made_rows(rows: int, features: int) -> base.TrainingData:
    random = np.random.default_rng(0)
    values = random.normal(size=(rows, features)).astype(np.float32)
    labels = (values[:, 0] + random.normal(size=rows) > 1).astype(np.int64)
    columns = base.number_columns([f"f{i}" for i in range(features)])
    return base.TrainingData(values, labels, columns, "binary")


def our_speed(data: base.TrainingData, epochs: int, batch: int) -> float:
    """Trained rows per second of a whole fit, with its validation and the copy to the device."""
    estimator = base.load("mlp")
    changes = {"batch_size": batch, "patience": epochs + 1}
    warm = base.parameters_for("mlp", estimator, "binary", {**changes, "max_epochs": 1})
    estimator.fit(data.first(4 * batch), warm, 0)
    parameters = base.parameters_for("mlp", estimator, "binary", {**changes, "max_epochs": epochs})
    seconds = timed(lambda: estimator.fit(data, parameters, 0))
    return len(data.labels) * (1 - parameters["validation_share"]) * epochs / seconds


def plain_speed(data: base.TrainingData, batch: int, device: str) -> float:
    """Rows per second of one epoch as PyTorch's tutorials write it."""
    defaults = base.load("mlp").DEFAULTS["binary"]
    network = network_of(data.features.shape[1], defaults["hidden"], defaults["dropout"]).to(device)
    optimizer = torch.optim.AdamW(network.parameters(), lr=defaults["learning_rate"])
    loss_of = nn.BCEWithLogitsLoss()
    rows = TensorDataset(torch.from_numpy(data.features), torch.from_numpy(data.labels.astype(np.float32)))
    loader = DataLoader(rows, batch_size=batch, shuffle=True)

    def epoch() -> None:
        for x, y in loader:
            optimizer.zero_grad()
            loss_of(network(x.to(device)).squeeze(1), y.to(device)).backward()
            optimizer.step()

    return len(rows) / timed(epoch)


def network_of(inputs: int, hidden: list[int], dropout: float) -> nn.Sequential:
    layers: list[nn.Module] = []
    for width in hidden:
        layers += [nn.Linear(inputs, width), nn.ReLU(), nn.Dropout(dropout)]
        inputs = width
    return nn.Sequential(*layers, nn.Linear(inputs, 1))


def roofline(features: int, batch: int) -> float:
    """The most rows per second of the GPU: by its measured speed of computing, and by that of its memory.

    A row costs 6 operations per weight: 2 forwards, 4 backwards. A batch reads and writes each weight, its gradient and
    the optimizer's two moments once; a row is read once and each of its activations is written and read.
    """
    hidden = base.load("mlp").DEFAULTS["binary"]["hidden"]
    widths = [features, *hidden, 1]
    weights = sum(a * b for a, b in pairwise(widths))
    operations = 6 * weights
    bytes_of_row = 4 * (features + 2 * 2 * sum(hidden)) + 8 * 4 * weights / batch
    a, b = (torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    large = torch.randn(2**28, device="cuda")
    product, copy = best(lambda: a @ b), best(large.clone)
    computed = 2 * 8192**3 / product / operations
    moved = 2 * 4 * 2**28 / copy / bytes_of_row
    return min(computed, moved)


def best(work: Callable[[], object]) -> float:
    """The seconds of the fastest of ten."""
    return min(timed(work) for _ in range(10))


def timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
