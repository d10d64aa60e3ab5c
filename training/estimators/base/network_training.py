"""Train a torch network: early stopping, checkpoints, and several processes.

No random state is kept between epochs. The order of the rows depends on the seed and the number of the epoch; dropout
also depends on the rank of the process. So a resumed fit continues as if it had never stopped. Several processes see
the same batches as one would, and each takes its share of every batch.
"""

import copy
import io
import logging
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from training.estimators.base.checkpoint import Checkpoint
from training.estimators.base.group import Group

log = logging.getLogger("perennial")

#: x [n, width] and y [n], on the device.
Rows = tuple[torch.Tensor, torch.Tensor]
#: The sum of a batch's losses, from the network's outputs [n, m] and y [n].
Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


class Training:
    """Trains `network`, which is on the device of the group. The first process of the group saves to `checkpoint`."""

    def __init__(
        self,
        network: nn.Module,
        loss: Loss,
        parameters: Mapping[str, Any],
        seed: int,
        group: Group,
        checkpoint: Checkpoint,
    ) -> None:
        self._network, self._loss, self._parameters, self._seed = network, loss, parameters, seed
        self._group, self._checkpoint = group, checkpoint
        self._optimizer = torch.optim.AdamW(
            network.parameters(), lr=parameters["learning_rate"], weight_decay=parameters["weight_decay"]
        )
        self._epoch, self._best, self._waited = 0, float("inf"), 0
        self._best_state = copy.deepcopy(network.state_dict())

    def run(self, train: Rows, validation: Rows) -> None:
        """Train, and leave the weights of the epoch with the lowest validation loss in the network."""
        self._resume()
        # It averages the gradients over the processes. The network inside is the one that is exported.
        module = DistributedDataParallel(self._network, forward_sync_buffers=False) if self._group.size > 1 else None
        while self._epoch < self._parameters["max_epochs"] and self._waited < self._parameters["patience"]:
            self._train(module or self._network, train)
            self._judge(validation)
            self._epoch += 1
            if self._group.rank == 0:
                self._checkpoint.save(self._state())
                log.info("Epoch %d: lowest validation loss so far %.6f", self._epoch, self._best)
        self._network.load_state_dict(self._best_state)

    def _train(self, module: nn.Module, rows: Rows) -> None:
        x, y = rows
        device = self._group.device
        torch.manual_seed(_seed(self._seed, self._epoch, 1 + self._group.rank))
        order = torch.randperm(len(x), generator=torch.Generator().manual_seed(_seed(self._seed, self._epoch, 0)))
        module.train()
        for batch in order.to(device).split(self._parameters["batch_size"]):
            mine = self._group.share(batch)
            self._optimizer.zero_grad(set_to_none=True)
            with torch.autocast(device, dtype=torch.bfloat16, enabled=device == "cuda"):
                loss = self._loss(module(x[mine]), y[mine])
            # The mean over the whole batch. The factor `size` undoes the averaging over the processes.
            (loss * (self._group.size / len(batch))).backward()
            self._optimizer.step()

    @torch.no_grad()
    def _judge(self, validation: Rows) -> None:
        """Sum the validation loss over all processes, so that all stop at the same epoch."""
        x, y = validation
        self._network.eval()
        loss = self._loss(self._network(self._group.share(x)), self._group.share(y))
        found = self._group.total(loss) / len(x)
        if found < self._best:
            self._best, self._waited = found, 0
            self._best_state = copy.deepcopy(self._network.state_dict())
        else:
            self._waited += 1

    def _state(self) -> bytes:
        file = io.BytesIO()
        state = {
            "network": self._network.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "best_state": self._best_state,
            "best": self._best,
            "waited": self._waited,
            "epoch": self._epoch,
        }
        torch.save(state, file)
        return file.getvalue()

    def _resume(self) -> None:
        """Continue from the checkpoint that the first process finds; another node may not see its folder."""
        content = self._group.from_first(self._checkpoint.load() if self._group.rank == 0 else None)
        if content is None:
            return
        try:
            # Loads tensors and numbers only, so nothing in the file can run.
            state = torch.load(io.BytesIO(content), map_location=self._group.device, weights_only=True)
        except Exception as error:
            log.warning("The checkpoint cannot be read; fitting from the start: %s", error)
            return
        self._network.load_state_dict(state["network"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._best_state, self._best = state["best_state"], state["best"]
        self._waited, self._epoch = state["waited"], state["epoch"]
        log.info("Resumed after epoch %d of at most %d", self._epoch, self._parameters["max_epochs"])


def _seed(*parts: int) -> int:
    """One seed of 64 bits from several numbers, as NumPy mixes them."""
    return int(np.random.SeedSequence([part % 2**64 for part in parts]).generate_state(1, np.uint64)[0])
