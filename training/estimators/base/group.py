"""The processes that fit one model together, as torch.distributed knows them."""

from dataclasses import dataclass

import torch
import torch.distributed as dist


@dataclass(frozen=True)
class Group:
    """This process is number `rank` of `size`; the first is 0. A fit by one process is a group of one."""

    rank: int = 0
    size: int = 1

    @classmethod
    def here(cls) -> "Group":
        """The group that this process has joined (training/adapters/processes.py), or itself alone."""
        return cls(dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else cls()

    @property
    def device(self) -> str:
        """Where this process computes: the GPU that it has chosen by torch.cuda.set_device, or the CPU."""
        return "cuda" if torch.cuda.is_available() else "cpu"

    def share(self, rows: torch.Tensor) -> torch.Tensor:
        """This process's part of `rows` [n, …]; the parts of all are disjoint, together all of them."""
        return rows[self.rank :: self.size]

    def total(self, value: torch.Tensor) -> float:
        """The sum of every process's scalar `value`."""
        if self.size > 1:
            dist.all_reduce(value)
        return float(value)

    def from_first(self, content: bytes | None) -> bytes | None:
        """What the first process gives, in every process."""
        if self.size == 1:
            return content
        held = [content]
        dist.broadcast_object_list(held, src=0)
        return held[0]
