"""Bad signatures and tokens are counted, and when many come someone is told (S10)."""

from __future__ import annotations

from dataclasses import dataclass

from srm_agent.clock import Clock
from srm_agent.ports import Notifier

WINDOW_S = 60.0
MANY = 20


@dataclass(slots=True)
class _Window:
    began: float
    count: int = 0


class RefusalWatch:
    """Tells once a window of sixty seconds when twenty refusals were seen at one door.

    Doors are named by us (a configured provider, `unknown providers`, `operators`), so nothing of a stranger's text
    is kept or repeated.
    """

    def __init__(self, clock: Clock, notifier: Notifier) -> None:
        self._clock = clock
        self._notifier = notifier
        self._windows: dict[str, _Window] = {}

    def refused(self, door: str, what: str) -> None:
        """One more; `what` was bad, in the plural: `signatures`, `tokens`."""
        now = self._clock.monotonic()
        window = self._windows.get(door)
        if window is None or now - window.began >= WINDOW_S:
            window = self._windows[door] = _Window(began=now)
        window.count += 1
        if window.count == MANY:
            self._notifier.notify(
                "warning",
                f"bad {what} at {door}",
                f"{MANY} within {now - window.began:.0f} s: a wrong key, a wrong clock, or somebody tries; "
                f"see srm_intake_messages_total and srm_control_refused_total",
            )
