"""Implementations of a function, and which of them computes a problem.

A function, such as local attention, has a table of implementations, fastest
first. A frozen description of the call, the problem, is handed to each in turn;
the first one that supports the problem and runs here computes it. The choice
never changes the result or the weights.
"""

import functools
import warnings
from collections.abc import Mapping
from typing import Any

from keras_sasa.ops.exporters import exporting


class Implementation:
    """One way to compute a function.

    A subclass adds the methods that compute; each function has an interface of
    its own for them.

    Attributes:
        name: The name by which users ask for it.
        portable: Whether its traces run in programs that do not import
            keras_sasa. Only portable implementations are exported.
    """

    name: str
    portable: bool = False

    def unavailable_reason(self) -> str | None:
        """Returns why it does not run here, or `None` if it does."""
        return None

    def expected_to_run(self) -> bool:
        """Returns whether users are warned where it is unavailable."""
        return True

    def unsupported_reason(self, problem: Any) -> str | None:
        """Returns why it cannot compute a problem, or `None` if it can."""
        return None


def by_name(*implementations: Implementation) -> dict[str, Implementation]:
    """Returns a table of implementations, in the order given."""
    return {
        implementation.name: implementation
        for implementation in implementations
    }


def check_name(name: str | None, table: Mapping[str, Implementation]) -> None:
    """Raises `ValueError` unless `name` is in the table or `None`."""
    if name is not None and name not in table:
        raise ValueError(
            f"`implementation` must be one of {sorted(table)} or "
            "`None` for the fastest that runs here. "
            f"Received: implementation={name!r}."
        )


def unavailable_reasons(
    table: Mapping[str, Implementation],
) -> dict[str, str | None]:
    """Returns, by name, why implementations do not run here, or `None`."""
    return {
        name: implementation.unavailable_reason()
        for name, implementation in table.items()
    }


def choose(
    table: Mapping[str, Implementation], name: str | None, problem: Any
) -> Implementation:
    """Returns the implementation that computes a problem.

    Args:
        table: The implementations of the function, fastest first.
        name: The name that the user asked for, or `None`. If it belongs only
            to another function, a portable implementation is taken: one name
            selects the implementation of all layers of a network. A problem
            that the named implementation does not support is computed by the
            first one that does.
        problem: Description of the call.

    Raises:
        ValueError: If the named implementation does not run here, or none
            supports the problem.
    """
    candidates = list(table.values())
    if name in table:
        chosen = table[name]
        reason = chosen.unavailable_reason()
        if reason is not None:
            raise ValueError(
                f'`implementation="{name}"` does not run here: '
                f"{reason}. `None` takes the fastest that does."
            )
        candidates.remove(chosen)
        candidates.insert(0, chosen)
    if exporting() or (name is not None and name not in table):
        candidates = [
            candidate for candidate in candidates if candidate.portable
        ]
    reasons = []
    for candidate in candidates:
        reason = candidate.unsupported_reason(problem)
        if reason is None:
            reason = candidate.unavailable_reason()
            if reason is None:
                return candidate
            if candidate.expected_to_run():
                _warn(candidate.name, reason)
        reasons.append(f'"{candidate.name}": {reason}')
    raise ValueError(
        f"No implementation can compute this call here: {'; '.join(reasons)}. "
        f"Received: {problem}."
    )


@functools.cache
def _warn(name, reason):
    warnings.warn(
        f'The implementation "{name}" of attention does not run here: {reason}.'
        " Attention falls back to a slower one with the same results.",
        RuntimeWarning,
        stacklevel=2,
    )
