"""What all providers may send together, so that many at once do not slow down the one who sends little (S8)."""

from __future__ import annotations

import math

from srm_agent.api.limits import TokenBucket
from srm_agent.domain.ids import ProviderKey

RESERVE = 0.25
"""Share of the burst that is kept for providers that were not let in for a while."""
ACTIVE_S = 5.0
"""A provider counts as active for five to ten seconds after a message."""


class House:
    """One bucket for all; the longer ago a provider was let in, the deeper into the reserve it may reach.

    The fair pause is that between two messages of one provider if the active ones and one more shared the rate. Who
    pauses twice as long may take the last token, who does not pause leaves the whole reserve. So a burst passes whoever
    sends it, and in a flood that lasts who sends much waits and who sends little does not notice. Time is an argument
    (monotonic seconds); providers are configured ones, so what is kept is bounded.
    """

    def __init__(self, per_s: float, burst: int, now: float) -> None:
        self._per_s = per_s
        self._bucket = TokenBucket(per_s, burst, now)
        self._reserve = RESERVE * burst
        self._taken_at: dict[ProviderKey, float] = {}
        self._active: dict[ProviderKey, None] = {}
        self._active_before: dict[ProviderKey, None] = {}
        self._turned_at = now

    def wait(self, provider: ProviderKey, now: float) -> int:
        """0 if there is room for a message of this provider, else the whole seconds (>= 1) until there may be."""
        self._note(provider, now)
        short = 1.0 + self._reserve * self._haste(provider, now) - self._bucket.level(now)
        return 0 if short <= 0 else max(1, math.ceil(short / self._per_s))

    def take(self, provider: ProviderKey, now: float) -> None:
        """A message of this provider was let in."""
        self._bucket.take(now)
        self._taken_at[provider] = now

    def _haste(self, provider: ProviderKey, now: float) -> float:
        """1 for who was let in just now, 0 after two fair pauses; strangers to this process stand in the middle."""
        last = self._taken_at.get(provider)
        if last is None:
            return 0.5
        pause = (1 + max(len(self._active), len(self._active_before))) / self._per_s
        return max(0.0, 1.0 - (now - last) / (2 * pause))

    def _note(self, provider: ProviderKey, now: float) -> None:
        if now - self._turned_at >= ACTIVE_S:
            quiet = now - self._turned_at >= 2 * ACTIVE_S
            self._active_before, self._active, self._turned_at = {} if quiet else self._active, {}, now
        self._active[provider] = None
