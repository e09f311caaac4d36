"""Which market sets the tone, by the clocks on its walls (IANA zones, daylight saving included).

TOKYO 09-18 Asia/Tokyo, LONDON 08-17 Europe/London, NEW_YORK 08-17 America/New_York, OVERLAP when London and New York
are both open, ASIAN = every other hour (the Pacific ones). Precedence OVERLAP, LONDON, NEW_YORK, TOKYO, ASIAN. Hours
decide alone, on weekends too: crypto trades there, and the weekday is a feature of its own.
"""

from __future__ import annotations

from datetime import UTC, datetime, tzinfo
from zoneinfo import ZoneInfo

from srm_agent.domain.market import TradingSession

_TOKYO = ZoneInfo("Asia/Tokyo")
_LONDON = ZoneInfo("Europe/London")
_NEW_YORK = ZoneInfo("America/New_York")


def _open(at: datetime, zone: tzinfo, opens: int, closes: int) -> bool:
    return opens <= at.astimezone(zone).hour < closes


def trading_session(at: datetime) -> TradingSession:
    """The session at an aware instant; opening hours are inclusive, closing hours exclusive."""
    london = _open(at, _LONDON, 8, 17)
    new_york = _open(at, _NEW_YORK, 8, 17)
    if london and new_york:
        return TradingSession.OVERLAP
    if london:
        return TradingSession.LONDON
    if new_york:
        return TradingSession.NEW_YORK
    return TradingSession.TOKYO if _open(at, _TOKYO, 9, 18) else TradingSession.ASIAN


class SessionClock:
    """`trading_session` and the ISO weekday of UTC, remembered for the UTC hour.

    All three zones differ from UTC by whole hours and change their offset on whole UTC hours, so an answer holds for
    the hour it was asked in.
    """

    def __init__(self) -> None:
        self._from = 0.0
        self._until = 0.0
        self._session = TradingSession.ASIAN
        self._weekday = 1

    def at(self, seconds: float) -> tuple[TradingSession, int]:
        """Session and ISO weekday (1 = Monday) at POSIX `seconds` of market time."""
        if not self._from <= seconds < self._until:
            self._from = seconds - seconds % 3600.0
            self._until = self._from + 3600.0
            moment = datetime.fromtimestamp(self._from, UTC)
            self._session = trading_session(moment)
            self._weekday = moment.isoweekday()
        return self._session, self._weekday
