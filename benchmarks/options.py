"""What a person may choose about a run."""

from typing import NamedTuple


class Options(NamedTuple):
    """`rounds`: turns each contestant gets; `seconds`: how long the whole path is kept under load."""

    rounds: int = 5
    seconds: float = 20.0
