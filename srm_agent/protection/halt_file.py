"""The file of halts, which the daemon and `srm-agent flatten` share: merged under a lock, never overwritten (INV-8)."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from datetime import datetime

import structlog

from srm_agent.domain.accounts import ConnectionState, Halt, HaltScope
from srm_agent.errors import ConfigurationError
from srm_agent.files import Files, exclusively

log = structlog.get_logger()

FILE = "halts.json"
BROKEN = "halts.json.broken"
Key = tuple[HaltScope, str]
Halts = dict[Key, Halt]


class HaltFile:
    """Reads and merges. Every change is one read-modify-write under the file's lock."""

    def __init__(self, files: Files) -> None:
        self._files = files
        self._text: str | None = None
        """What was read or written last."""

    @property
    def path(self) -> str:
        """How a person finds it."""
        return self._files.where(FILE)

    def read(self) -> Halts:
        """All halts in the file. Raises ConfigurationError when it cannot be understood."""
        try:
            self._text = self._files.read(FILE)
            return _parsed(self._text)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ConfigurationError(
                f"halt file {self.path!r} cannot be read ({error}): look into it, then mend or move it away"
            ) from None

    def changed(self) -> Halts | None:
        """The halts of a file that somebody else has written since; None where it is as it was. Raises OSError.

        One that cannot be understood counts as unchanged: what stands in memory goes on.
        """
        text = self._files.read(FILE)
        if text == self._text:
            return None
        self._text = text
        try:
            return _parsed(text)
        except (ValueError, KeyError, TypeError) as error:
            log.error("halt file was changed and cannot be understood", path=self.path, error=repr(error))
            return None

    def update(self, change: Callable[[Halts], Halts]) -> Halts:
        """Change what is in the file; what then stands in it. Raises OSError, with the file as it was.

        A file that cannot be understood is kept beside the new one: a halt of today must not wait for its mending.
        """
        with exclusively(self._files, FILE):
            after = change(self._known_or_set_aside())
            new = _text(after.values())
            self._files.replace(FILE, new)
            self._text = new
        return after

    def _known_or_set_aside(self) -> Halts:
        text: str | None = None
        try:
            text = self._files.read(FILE)
            return _parsed(text)
        except (ValueError, KeyError, TypeError) as error:  # UnicodeDecodeError is a ValueError: nothing to keep then
            log.error("halt file cannot be understood and is set aside", kept=BROKEN, error=repr(error))
            if text is not None:
                self._files.replace(BROKEN, text)
            return {}


def united(ours: Mapping[Key, Halt], theirs: Mapping[Key, Halt]) -> Halts:
    """What two memories of halts mean together: nothing that either knows is forgotten.

    Of one key: an episode (same `set_at`) that ended has ended; a FLATTENING of another process is taken up by whoever
    is merely HALTED; otherwise ours stands, with its first reason.
    """
    together = dict(ours)
    for key, other in theirs.items():
        known = together.get(key)
        if known is None or _goes_before(other, known):
            together[key] = other
    return together


def latched(known: Mapping[Key, Halt], halt: Halt) -> Halts:
    """With one more FLATTENING: one that stands goes on as it is, a mere HALTED becomes one."""
    other = known.get(_key(halt))
    if other is not None and other.state is ConnectionState.FLATTENING:
        return dict(known)
    return {**known, _key(halt): halt}


def flat(known: Mapping[Key, Halt], key: Key) -> Halts:
    """With the FLATTENING of that key over: the account was seen flat."""
    halt = known.get(key)
    if halt is None or halt.state is not ConnectionState.FLATTENING:
        return dict(known)
    return {**known, key: replace(halt, state=ConnectionState.HALTED)}


def _goes_before(other: Halt, known: Halt) -> bool:
    if other.set_at == known.set_at:
        return other.state is ConnectionState.HALTED and known.state is ConnectionState.FLATTENING
    return other.state is ConnectionState.FLATTENING and known.state is ConnectionState.HALTED


def _key(halt: Halt) -> Key:
    return halt.scope, halt.key


def _parsed(text: str | None) -> Halts:
    halts = [
        Halt(
            scope=HaltScope(row["scope"]),
            key=row["key"],
            state=ConnectionState(row["state"]),
            reason=row["reason"],
            set_at=datetime.fromisoformat(row["set_at"]),
            set_by=row["set_by"],
        )
        for row in ([] if text is None else json.loads(text))
    ]
    return {_key(halt): halt for halt in halts}


def _text(halts: Iterable[Halt]) -> str:
    rows = [
        {
            "scope": halt.scope.value,
            "key": halt.key,
            "state": halt.state.value,
            "reason": halt.reason,
            "set_at": halt.set_at.isoformat(),
            "set_by": halt.set_by,
        }
        for halt in halts
    ]
    return json.dumps(rows, indent=1)
