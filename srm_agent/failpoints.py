"""Named places where a crash would hurt most (reliability.md 3.2): nothing happens there unless a test arms them.

`SRM_FAILPOINT=CP4:3` in the environment kills the process (SIGKILL) the third time it comes by CP4. The simulation
arms a handler of its own instead. Crash points: CP1 received, not journalled; CP2 journalled, not acknowledged; CP3
acknowledged, not sent; CP4 sent, no reply; CP5 reply, not journalled; CP6 OPEN journalled, stop not verified; CP7 in
the middle of a stop's change; CP8 HALT in memory, not on disk; CP9 in the middle of flattening; CP10 model written,
pointer not switched; CP11 in the middle of a migration; CP12 in the middle of adopting what a reconcile found; CP13 in
the middle of a reload; CP14 target cancelled, close not sent.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

CRASH_POINTS = tuple(f"CP{number}" for number in range(1, 15))
VARIABLE = "SRM_FAILPOINT"

_handler: Callable[[str], None] | None = None


def reached(point: str) -> None:
    """The program is at this crash point."""
    if _handler is not None:
        _handler(point)


def arm(handler: Callable[[str], None] | None) -> None:
    """Let every crash point call this; None disarms."""
    global _handler
    _handler = handler


def arm_from(environment: str) -> None:
    """Arm a kill by the text `POINT:COUNT`. Raises ValueError naming the text."""
    point, _, count = environment.partition(":")
    if point not in CRASH_POINTS or not count.isdecimal() or int(count) < 1:
        raise ValueError(f"{VARIABLE} must be one of CP1..CP14 with a count, such as CP4:3, was {environment!r}")
    left = int(count)

    def kill(reached_point: str) -> None:
        nonlocal left
        if reached_point == point:
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    arm(kill)
