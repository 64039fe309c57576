"""Taking turns: contestants run one after the other, round after round, so that a noisy machine is unfair to none."""

from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


def alternate(contestants: Mapping[str, Callable[[], R]], rounds: int) -> dict[str, list[R]]:
    """The results of `rounds` rounds by contestant: A B C, A B C, …"""
    results: dict[str, list[R]] = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, run in contestants.items():
            results[name].append(run())
    return results


def in_fresh_process(function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Call `function` in a new interpreter: no contestant sees what another imported, allocated or left running."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *args, **kwargs).result()
