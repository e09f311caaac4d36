"""The same seed is the same story: INV-15."""

from __future__ import annotations

from simulator.simulation.invariants.check import Check, Violation


class SameTrace(Check):
    """INV-15: same seed, code and configuration give the same trace hash. One run cannot show that: the runner plays a
    seed again (in another process, on the other store) and tells both hashes here.
    """

    name = "INV-15"

    def compare(self, seed: int, first: str, second: str) -> tuple[Violation, ...]:
        """Two hashes of one seed: nothing, or the violation (at loop second 0)."""
        self.checked += 1
        if first == second:
            return ()
        return (self.broken(0.0, f"seed {seed} gave trace {first}, and {second} when it was played again"),)
