"""A run that never tried something proves nothing about it: what stayed silent over many seeds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from simulator.simulation.profiles import profile_of

if TYPE_CHECKING:
    from simulator.simulation.runner import Totals

ENOUGH_SEEDS = 200
"""From so many seeds on, every fault and every check must have come up."""


def silent(totals: Totals, profile: str) -> list[str]:
    """One sentence for each count that is zero and must not be; nothing for short runs and aimed profiles."""
    if totals.seeds < ENOUGH_SEEDS or profile_of(profile).fault_ids or profile != "default":
        return []
    return [f"check {name} never judged anything" for name, count in sorted(totals.checks.items()) if not count] + [
        f"fault {name} never happened" for name, count in sorted(totals.faults.items()) if not count
    ]
