"""A storm becomes one alert with a count: by title and connection, and by title over many connections."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from srm_agent.notifier import Alert

RANK: Mapping[str, int] = {"notice": 0, "warning": 1, "page": 2}
FIRST_S = 4.0
"""Length of the first window of a storm: what was folded is told after it, so nothing is hidden for five seconds."""
PER_TITLE = 20
"""Connections that tell the same title one by one within a window; the others are told as a number."""
LARGEST = 4096
"""Windows kept at most."""
_NAMED = 5


def rank(level: str) -> int:
    """How grave a level is; an unknown word counts as a page."""
    return RANK.get(level, RANK["page"])


@dataclass(slots=True)
class _Window:
    until: float
    length_s: float
    level: int
    told: int = 1
    """Alerts of this window that went out one by one."""
    folded: int = 0
    last: Alert | None = None
    connections: dict[str, None] | None = None
    """Who is behind a number, in order of appearance; only for windows of a whole title."""


class Folder:
    """Decides what is told now and what is told later as a number. Time is an argument (monotonic seconds).

    The first alert of a (title, connection) passes; the next ones are counted, and told as one after four seconds,
    then after eight, sixteen... up to `longest_s` while the storm lasts. A graver level always passes.
    """

    def __init__(self, longest_s: float = 60.0) -> None:
        self._longest_s = max(longest_s, FIRST_S)
        self._windows: dict[tuple[str, str | None], _Window] = {}
        self._titles: dict[str, _Window] = {}

    def take(self, alert: Alert, now: float) -> Alert | None:
        """The alert if it is to be told now; None if it was counted instead."""
        key, level = (alert.title, alert.connection), rank(alert.level)
        window = self._windows.get(key)
        if window is not None and (now < window.until or window.folded):
            if level <= window.level:
                _fold(window, alert)
                return None
            window.level = level
            return alert
        if not self._room_for(alert, level, now):
            return None
        self._windows[key] = _Window(until=now + FIRST_S, length_s=FIRST_S, level=level)
        return alert

    def due(self, now: float) -> list[Alert]:
        """What was counted in windows that have ended, one alert each; call it at `next_due`."""
        told = []
        for key, window in list(self._windows.items()):
            if window.until <= now:
                if window.folded and window.last is not None:
                    said = f"{window.last.message} ({window.folded} more like this within {window.length_s:g} s)"
                    told.append(replace(window.last, message=said, count=window.folded))
                    self._renew(window, now)
                else:
                    del self._windows[key]
        for title, window in list(self._titles.items()):
            if window.until <= now:
                if window.folded and window.last is not None:
                    told.append(_spread(window, window.last))
                    self._renew(window, now)
                else:
                    del self._titles[title]
        return told

    def next_due(self) -> float | None:
        """The monotonic second of the next end of a window, None if there is none."""
        return min((window.until for window in [*self._windows.values(), *self._titles.values()]), default=None)

    def _room_for(self, alert: Alert, level: int, now: float) -> bool:
        """Whether one more connection may tell this title by itself; if not it is counted."""
        title = self._titles.get(alert.title)
        if title is None:
            if len(self._titles) >= LARGEST:
                return True  # titles are our own words; there are few
            self._titles[alert.title] = _Window(until=now + FIRST_S, length_s=FIRST_S, level=level, connections={})
            return True
        if level <= title.level and (title.told >= PER_TITLE or len(self._windows) >= LARGEST):
            _fold(title, alert)
            if title.connections is not None:
                title.connections[str(alert.connection)] = None
            return False
        title.told += 1
        title.level = max(title.level, level)
        return True

    def _renew(self, window: _Window, now: float) -> None:
        window.length_s = min(window.length_s * 2, self._longest_s)
        window.until, window.told, window.folded, window.last = now + window.length_s, 0, 0, None
        if window.connections is not None:
            window.connections = {}


def _fold(window: _Window, alert: Alert) -> None:
    window.folded += 1
    if window.last is None or rank(alert.level) >= rank(window.last.level):
        window.last = alert


def _spread(window: _Window, last: Alert) -> Alert:
    names = list(window.connections or ())
    others = f", and {len(names) - _NAMED} others" if len(names) > _NAMED else ""
    said = f"{last.message} (the last of {window.folded} on connections {', '.join(names[:_NAMED])}{others})"
    return replace(last, message=said, count=window.folded, connection=None)
