"""The record of one trial, whatever its campaign."""

from dataclasses import dataclass, field


@dataclass
class Trial:
    """What was done, and what was wrong after it."""

    number: int
    what: str
    hit: bool = True
    """Whether a kill came before the end of what it was meant for."""
    outcome: str = "as undisturbed"
    seconds: float = 0.0
    output: str = ""
    faults: list[str] = field(default_factory=list)
