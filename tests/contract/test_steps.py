"""The steps' declarations and the code behind them agree."""

import json
from inspect import signature
from typing import get_type_hints

import pytest

from training.contract.errors import InputError
from training.contract.steps import STEPS, distributed_command, step_command, step_spec
from training.settings import StateSettings


@pytest.mark.parametrize("name", STEPS)
def test_every_step_can_be_imported_and_takes_what_it_declares(name: str) -> None:
    spec = STEPS[name]
    run = spec.load()
    assert list(signature(run).parameters) == ["inputs", "settings"]
    assert get_type_hints(run) == {"inputs": spec.inputs, "settings": StateSettings, "return": spec.result}
    assert run.__doc__ or __import__(run.__module__, fromlist=["_"]).__doc__


def test_an_unknown_step_is_told_with_the_one_that_was_meant() -> None:
    with pytest.raises(InputError, match="'dirft'") as raised:
        step_spec("dirft")
    assert raised.value.hint == "Did you mean 'drift'? docs/reference.md lists the steps."
    with pytest.raises(InputError) as raised:
        step_spec("qqqq")
    assert raised.value.hint == "docs/reference.md lists the steps."


def test_the_command_is_the_same_whatever_the_order_of_the_inputs() -> None:
    first = step_command("drift", {"model": "card_fraud", "as_of": "2026-01-05"}, "out.json")
    assert first == step_command("drift", {"as_of": "2026-01-05", "model": "card_fraud"}, "out.json")
    assert first[:4] == ["-m", "training", "drift", "--inputs"]
    assert json.loads(first[4]) == {"as_of": "2026-01-05", "model": "card_fraud"}
    assert first[5:] == ["--result", "out.json"]
    with pytest.raises(InputError):
        step_command("trian", {}, "out.json")


def test_several_processes_run_the_same_step_with_the_same_arguments() -> None:
    alone = step_command("train", {"b": 1, "a": 2}, "out.json")
    together = distributed_command(
        "train", {"b": 1, "a": 2}, "out.json", nodes=2, processes=4, rendezvous="train-0.train:29500"
    )
    assert together[: -len(alone[2:])] == [
        *("-m", "training.distributed", "--nodes", "2", "--processes", "4", "--rendezvous", "train-0.train:29500")
    ]
    assert together[-len(alone[2:]) :] == alone[2:]
    one = distributed_command("train", {}, "out.json", nodes=1, processes=2, rendezvous="")
    assert "--rendezvous" not in one
