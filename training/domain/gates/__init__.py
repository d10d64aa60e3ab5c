"""The conditions of a promotion, one module per kind. The verdict (verdict.py) is made of them."""

from dataclasses import dataclass

from training.contract.names import GateName


@dataclass(frozen=True)
class Gate:
    """One condition of a promotion, and a sentence with its numbers."""

    name: GateName
    passed: bool
    sentence: str

    def __str__(self) -> str:
        return f"{'passed' if self.passed else 'FAILED'}: {self.sentence}"
