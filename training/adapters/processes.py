"""The processes of one step that torchrun starts: the rank of this process, and how they fit a model together."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

from training.contract.errors import TransientError

#: How long a process waits for the others: until the first has read its data, then for each batch of the slowest.
_COLLECTIVE_TIMEOUT = timedelta(minutes=15)


@dataclass(frozen=True)
class Processes:
    """This process has number `rank` of `size`, and number `local_rank` on its machine. Both start at 0."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @classmethod
    def here(cls) -> "Processes":
        """From the variables RANK, WORLD_SIZE and LOCAL_RANK, which torchrun sets. Without them: one process."""
        return cls(*(int(os.environ.get(name, default)) for name, default in _VARIABLES.items()))

    @contextmanager
    def together(self, proceed: bool = True) -> Iterator[bool]:
        """Join the process group. Yields the value of `proceed` in the first process.

        Collectives use NCCL on GPUs, one GPU per local rank, and Gloo on CPUs. Raises TransientError when another
        process ends while the group is in use.
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
            dist.init_process_group("cpu:gloo,cuda:nccl" if gpu else "gloo", timeout=_COLLECTIVE_TIMEOUT)
            from_first = [proceed]
            dist.broadcast_object_list(from_first, src=0, device=torch.device("cpu"))
            yield from_first[0]
        except (dist.DistError, RuntimeError) as error:
            if not _is_collective_error(error):
                raise
            problem = f"Process {self.rank} of {self.size} lost the connection to the others: {error}"
            raise TransientError(problem, hint="See the log of the process that ended first.") from error
        finally:
            if dist.is_initialized():
                dist.destroy_process_group()


_VARIABLES = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}


def _is_collective_error(error: Exception) -> bool:
    """Gloo raises plain RuntimeErrors. Their message contains a path of its source files."""
    import torch.distributed as dist

    return isinstance(error, dist.DistError) or "gloo" in str(error).lower()
