"""The processes that fit one model together with torch.distributed."""

from dataclasses import dataclass

import torch
import torch.distributed as dist


@dataclass(frozen=True)
class Group:
    """This process has number `rank` of `size`, starting at 0. A single process is a group of one."""

    rank: int = 0
    size: int = 1

    @classmethod
    def here(cls) -> "Group":
        """The group that this process has joined (training/adapters/processes.py), or a group of one."""
        return cls(dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else cls()

    @property
    def device(self) -> str:
        """The device of this process: the GPU that torch.cuda.set_device has selected, or the CPU."""
        return "cuda" if torch.cuda.is_available() else "cpu"

    def share(self, rows: torch.Tensor) -> torch.Tensor:
        """This process's part of `rows` [n, …]. Each row belongs to exactly one process."""
        return rows[self.rank :: self.size]

    def total(self, value: torch.Tensor) -> float:
        """The sum of the scalar `value` over all processes."""
        if self.size > 1:
            dist.all_reduce(value)
        return float(value)

    def from_first(self, content: bytes | None) -> bytes | None:
        """Return the first process's `content` in every process."""
        if self.size == 1:
            return content
        shared = [content]
        dist.broadcast_object_list(shared, src=0)
        return shared[0]
