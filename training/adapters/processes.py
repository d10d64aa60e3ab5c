"""The processes of one step, as torchrun starts them: which of them this is, and how they fit a model together."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

from training.contract.errors import TransientError

#: So long a process waits for the others: for the first to read its data, then for a batch of the slowest.
PATIENCE = timedelta(minutes=15)


@dataclass(frozen=True)
class Processes:
    """This process is number `rank` of `size`, and `local_rank` among those of its machine; all count from 0."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @classmethod
    def here(cls) -> "Processes":
        """As torchrun's environment says: RANK, WORLD_SIZE, LOCAL_RANK. Without it: one process."""
        return cls(*(int(os.environ.get(name, default)) for name, default in _VARIABLES.items()))

    @contextmanager
    def together(self, proceed: bool = True) -> Iterator[bool]:
        """Join the others for a common piece of work; gives what the first process said in `proceed`.

        Collectives are NCCL's on GPUs, one GPU per local rank, and Gloo's on CPUs. Raises TransientError when another
        process goes away meanwhile.
        """
        if self.size == 1:
            yield proceed
            return
        import torch
        import torch.distributed as dist

        gpu = torch.cuda.is_available()
        if gpu:
            torch.cuda.set_device(self.local_rank)
        try:
            dist.init_process_group("cpu:gloo,cuda:nccl" if gpu else "gloo", timeout=PATIENCE)
            said = [proceed]
            dist.broadcast_object_list(said, src=0, device=torch.device("cpu"))
            yield said[0]
        except (dist.DistError, RuntimeError) as error:
            if not _of_collectives(error):
                raise
            problem = f"Process {self.rank} of {self.size} lost the others: {error}"
            raise TransientError(problem, hint="The log of the process that ended first says why.") from error
        finally:
            if dist.is_initialized():
                dist.destroy_process_group()


_VARIABLES = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}


def _of_collectives(error: Exception) -> bool:
    """Gloo raises plain RuntimeErrors, told by the source file that they name."""
    import torch.distributed as dist

    return isinstance(error, dist.DistError) or "gloo" in str(error).lower()
