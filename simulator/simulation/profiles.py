"""Kinds of days, by name."""

from __future__ import annotations

from dataclasses import replace

from simulator.simulation.plan import Profile

DEFAULT = Profile()
PROFILES: dict[str, Profile] = {
    profile.name: profile
    for profile in (
        DEFAULT,
        replace(DEFAULT, name="calm", faults=0, crash_share=0.0, foreign_share=0.0, second_share=0.0),
        replace(DEFAULT, name="crashes", faults=2, crash_share=1.0),
    )
}


def profile_of(name: str) -> Profile:
    """By name. Raises KeyError with the names there are."""
    try:
        return PROFILES[name]
    except KeyError:
        raise KeyError(f"no profile {name!r}: known are {', '.join(sorted(PROFILES))}") from None
