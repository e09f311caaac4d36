"""Whether this process is well. Pure. A broker out of reach is no illness of ours: restarting would not bring it back.

The limits are those of reliability.md 4.2: the watchdog is fed only while the event loop is less than 2 s late, every
reconcile loop turned less than 30 s ago, and every critical task lives.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

LATE_S = 2.0
STANDSTILL_S = 5.0
"""A loop, or a host, that stood still for longer takes no entries until everything has been read anew (P6, P17)."""
RECONCILE_S = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Vitals:
    """What can be felt from within."""

    lag_s: float
    """How much later than planned the last heartbeat came."""
    reconcile_age_s: Mapping[str, float]
    """Seconds since the reconcile loop of a connection turned, where it runs and does not wait for its broker."""
    dead: Sequence[str]
    """Names of critical tasks that have ended."""


def illness(vitals: Vitals) -> str:
    """What is wrong, in words; empty when well."""
    if vitals.dead:
        return f"critical task ended: {', '.join(vitals.dead)}"
    if vitals.lag_s >= LATE_S:
        return f"the event loop was {vitals.lag_s:.1f} s late"
    slow = [f"{name} {age:.0f} s ago" for name, age in vitals.reconcile_age_s.items() if age >= RECONCILE_S]
    return f"the reconcile loop turned last: {', '.join(slow)}" if slow else ""
