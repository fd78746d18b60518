"""What a simulated life tells: the shape that both rigs share (`simulate.RIGS`)."""

from collections import Counter
from dataclasses import dataclass, field
from hashlib import sha256


class Violation(AssertionError):
    """A safety property does not hold, or no progress was made after healing."""


@dataclass(slots=True)
class Outcome:
    """Of one seed that went well. One that did not raises, with its story as a note of the exception."""

    node_seconds: float
    """Simulated, summed over the nodes that were up."""
    faults: Counter[str] = field(default_factory=Counter)
    """By kind."""
    story: list[str] = field(default_factory=list)
    """What happened, a line each; of a long life, the last of them."""

    @property
    def digest(self) -> str:
        """The same for the same story."""
        return sha256("\n".join(self.story).encode()).hexdigest()[:16]
