"""Kinds of days, by name: the default one, and days aimed at one thing, which are shorter.

An aimed day (`tests/mutants`) breaks what its mutant is about as often as it can, and nothing else.
"""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

from simulator.simulation.plan import Profile

DEFAULT = Profile()
SHORT = Profile(
    name="short",
    signals=18,
    faults=12,
    crash_share=0.0,
    foreign_share=0.0,
    operator_share=0.0,
    late_share=0.0,
    busy_s=55.0,
    peace_s=30.0,
)
"""What aimed days have in common: nobody meddles and nobody is killed."""

AIMED = (
    replace(SHORT, name="replies", fault_ids=("B2", "B3", "B4", "B5", "B6")),
    replace(SHORT, name="lost", fault_ids=("B4",), faults=16),
    replace(SHORT, name="undelivered", fault_ids=("B15", "B22", "B34", "P10", "P12")),
    replace(SHORT, name="caps", fault_ids=("B4", "B6", "P10"), twins_share=1.0, max_open_risk=Decimal("0.008")),
    replace(
        SHORT,
        name="halts",
        fault_ids=("B15",),
        faults=30,
        signals=24,
        operator_share=1.0,
        halts=4,
        halt_scopes=("connection",),
        opens_at_halts=0.7,
        busy_s=70.0,
        peace_s=40.0,
    ),
    replace(SHORT, name="halted crashes", fault_ids=("B5",), faults=2, operator_share=1.0, halts=2, crash_share=1.0),
    replace(SHORT, name="closes", fault_ids=("B6", "B8", "B28"), signals=24, flattens=5),
    replace(SHORT, name="cut off", fault_ids=("B3", "B6", "B22", "B27"), faults=20, signals=24),
    replace(SHORT, name="stops", fault_ids=("B10", "B11"), faults=16),
    replace(SHORT, name="partial fills", fault_ids=("B7", "B8")),
    replace(SHORT, name="database", fault_ids=("P9", "P15"), faults=5, signals=24, flattens=6),
    replace(SHORT, name="slow database", fault_ids=("P10", "P12"), faults=10, signals=24),
    replace(SHORT, name="resumes", fault_ids=("P10",), faults=5, flattens=6),
    replace(SHORT, name="leases", fault_ids=("P22", "P23"), faults=8, signals=24),
    replace(SHORT, name="silence", fault_ids=("B23",), faults=6, signals=28),
    replace(SHORT, name="losses", faults=0, signals=24, max_drawdown=Decimal("0.02")),
    replace(SHORT, name="marks", fault_ids=("B21",), crash_share=1.0, crash_points=()),
    replace(SHORT, name="ghosts", fault_ids=("B4", "B6"), faults=16, late_share=1.0, signals=24, peace_s=40.0),
    replace(SHORT, name="seconds", faults=4, second_share=1.0, crash_share=0.7, operator_share=0.5),
)
PROFILES: dict[str, Profile] = {
    profile.name: profile
    for profile in (
        DEFAULT,
        replace(DEFAULT, name="calm", faults=0, crash_share=0.0, foreign_share=0.0, late_share=0.0),
        replace(DEFAULT, name="crashes", faults=2, crash_share=1.0),
        replace(DEFAULT, name="late", late_share=1.0),
        *AIMED,
    )
}


def profile_of(name: str) -> Profile:
    """By name. Raises KeyError with the names there are."""
    try:
        return PROFILES[name]
    except KeyError:
        raise KeyError(f"no profile {name!r}: known are {', '.join(sorted(PROFILES))}") from None
