"""A fit that is interrupted goes on where its checkpoint says, and ends as it would have ended."""

import io
import logging

import pytest

from tests.cases import others_in_ci
from tests.estimators.test_estimators import data, rows
from training.estimators import base

PARAMETERS = {"hidden": [16], "max_epochs": 8, "batch_size": 256, "learning_rate": 0.01}


class Interrupted(Exception):
    pass


class Memory:
    """Keeps the last of `saved`; the save after `until` is a kill that comes first."""

    def __init__(self, until: int = 1000) -> None:
        self.saved: list[bytes] = []
        self.until = until

    def load(self) -> bytes | None:
        return self.saved[-1] if self.saved else None

    def save(self, content: bytes) -> None:
        if len(self.saved) == self.until:
            raise Interrupted
        self.saved.append(content)


def fit(checkpoint: base.Checkpoint, **changes: object) -> bytes:
    mlp = base.load("mlp")
    return mlp.fit(data(*rows(0)), {**mlp.DEFAULTS["binary"], **PARAMETERS, **changes}, 7, checkpoint).onnx()


def interrupted(after: int, **changes: object) -> Memory:
    memory = Memory(until=after)
    with pytest.raises(Interrupted):
        fit(memory, **changes)
    memory.until = 1000
    return memory


@pytest.mark.parametrize("after", others_in_ci([5, 0, 1]))
def test_a_resumed_fit_gives_the_bytes_of_one_that_never_stopped(after: int, caplog: pytest.LogCaptureFixture) -> None:
    whole = Memory()
    expected = fit(whole)
    memory = interrupted(after)
    caplog.set_level(logging.INFO)
    assert fit(memory) == expected
    assert len(memory.saved) == len(whole.saved)
    assert (f"Resumed after epoch {after} of" in caplog.text) == (after > 0)


def test_patience_and_the_best_epoch_are_remembered() -> None:
    """At a learning rate that overshoots, the best epoch lies before the interruption, and waiting began there."""
    changes = {"learning_rate": 1.0, "patience": 3, "max_epochs": 30}
    whole = Memory()
    expected = fit(whole, **changes)
    assert len(whole.saved) < 30
    assert fit(interrupted(len(whole.saved) - 1, **changes), **changes) == expected


def test_a_finished_fit_is_not_trained_further() -> None:
    memory = Memory()
    expected = fit(memory)
    saves = len(memory.saved)
    assert fit(memory) == expected
    assert len(memory.saved) == saves


def test_a_checkpoint_holds_nothing_that_can_run() -> None:
    import torch  # Every worker process imports this file.

    memory = Memory()
    fit(memory)
    state = torch.load(io.BytesIO(memory.saved[-1]), weights_only=True)
    assert state["epoch"] == len(memory.saved)


def test_one_that_cannot_be_read_is_left_aside(caplog: pytest.LogCaptureFixture) -> None:
    memory = Memory()
    expected = fit(memory)
    memory.saved.append(b"not a checkpoint")
    assert fit(memory) == expected
    assert "cannot be read" in caplog.text
