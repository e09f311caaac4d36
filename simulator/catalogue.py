"""The catalogue of faults (reliability.md 3.3) as data: what goes wrong, what is required, how fast, where it is shown.

`level` says where the deterministic tests let it happen; `owed` who completes it at the wire: C those that need
MariaDB, D those whose codes or threads are MetaTrader's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

Level = Literal["port", "venue core", "intake", "process", "store", "files", "wire"]
Owed = Literal["", "C", "D"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultCase:
    """One fault. `bound` in the catalogue's words, `bound_s` the same in seconds where it is a plain number."""

    id: str
    title: str
    required: str
    bound: str
    bound_s: float | None
    level: Level
    owed: Owed


def _case(
    name: str, level: Level, title: str, required: str, bound: str = "", bound_s: float | None = None, owed: Owed = ""
) -> FaultCase:
    if bound_s is not None and not bound:
        bound = f"{bound_s:g} s"
    return FaultCase(
        id=name, title=title, required=required, bound=bound or "-", bound_s=bound_s, level=level, owed=owed
    )


_BROKER = (
    _case(
        "B1",
        "port",
        "requote, price changed",
        "fresh price, at most 2 tries with the same client id after proof of refusal, else rejected",
        bound_s=3,
        owed="D",
    ),
    _case(
        "B2", "port", "rejected, or an error that proves nothing", "definitive; UNKNOWN and asked", bound_s=10, owed="D"
    ),
    _case("B3", "port", "time-out, no result, no connection", "UNKNOWN, never sent again", bound="F", owed="D"),
    _case("B4", "port", "request lost before the broker", "UNKNOWN, then REJECTED after F", bound="F + 5 s"),
    _case("B5", "port", "accepted, reply lost", "adopted by asking, stop checked", bound_s=10),
    _case(
        "B6",
        "venue core",
        "executed late (1-90 s)",
        "adopted, or flattened if the signal expired",
        bound="10 s after visible",
        bound_s=10,
    ),
    _case("B7", "port", "reply or fill event twice", "no effect (one fill per id)"),
    _case(
        "B8",
        "venue core",
        "partial fill, the rest later or never",
        "position's volume is the truth, stop follows",
        bound_s=5,
        owed="D",
    ),
    _case(
        "B9",
        "venue core",
        "stop refused: stops level, freeze level",
        "wider stop and smaller lot, else no entry; on a position closed at 30 s",
        bound="5 s / 30 s",
        bound_s=30,
        owed="D",
    ),
    _case("B10", "port", "stop silently dropped", "found by reading back and mended", bound_s=5),
    _case(
        "B11",
        "venue core",
        "stop moved or removed by a human or the broker",
        "restored, or told, by policy",
        bound_s=10,
    ),
    _case(
        "B12",
        "venue core",
        "market closed, trade disabled, symbol suspended",
        "entries refused; closes wait and go out at the open, alert",
        bound="open + 5 s",
        bound_s=5,
        owed="D",
    ),
    _case(
        "B13", "venue core", "close only, long only, short only", "entries refused, state remembered for 60 s", owed="D"
    ),
    _case("B14", "venue core", "no money", "refused, no shrinking in a loop, alert", owed="D"),
    _case("B15", "port", "too many requests, ban", "back-off; closes use the reserve", bound="INV-9", owed="D"),
    _case("B16", "port", "invalid fill mode", "the symbol's modes once in fixed order", bound_s=2, owed="D"),
    _case("B17", "port", "invalid volume or price", "refused and told as a defect of ours", owed="D"),
    _case(
        "B18", "port", "trading disabled for the account", "entries of the account halted, page", bound_s=5, owed="D"
    ),
    _case("B19", "venue core", "limits of orders or positions", "refused", owed="D"),
    _case(
        "B20",
        "port",
        "position closed already, close order exists, FIFO, hedge prohibited",
        "closed after reading back; wait; order the closes",
        bound="INV-9",
        owed="D",
    ),
    _case("B21", "venue core", "price gap through the stop", "gap loss recorded, no loop of entries, drawdown may act"),
    _case("B22", "port", "reset, half-open socket, no DNS", "reconnect, full picture before ACTIVE", bound_s=30),
    _case("B23", "port", "silent feed, frozen stamps", "symbol STALE, no entries, equity incomplete", bound_s=5),
    _case(
        "B24",
        "port",
        "crossed, locked, zero, negative, NaN, infinite, 1e9, swapped, shifted quotes",
        "dropped and counted; too many: STALE; ATR untouched",
        bound="per tick",
    ),
    _case("B25", "port", "ticks out of order or twice, server time jumps", "monotone filter, sessions from UTC"),
    _case("B26", "port", "history or positions truncated, late, empty by error", "not flat: two sources must agree"),
    _case(
        "B27", "port", "disconnect in the middle of flattening", "goes on after reconnect and restart", bound="INV-9"
    ),
    _case(
        "B28",
        "port",
        "close refused, its reply lost, a hedge instead of a close",
        "by position only, truth read each pass, ladder of closes",
        bound="INV-9",
    ),
    _case("B29", "venue core", "contract terms change at run time", "read again; a large change halts the symbol"),
    _case("B30", "port", "conversion rate missing", "risk not computable: refused"),
    _case("B31", "venue core", "deposit, withdrawal, credit, bonus, swap, dividend", "drawdown adjusted", bound_s=10),
    _case("B32", "venue core", "broker stop-out", "adopted as closed by stop-out, counted", bound_s=10),
    _case("B33", "port", "another account after a re-login", "HALT all", bound_s=2),
    _case("B34", "port", "clock skew refused", "offset measured again, sent again after proof of refusal", bound_s=3),
)

_INTAKE = (
    _case(
        "S1", "intake", "malformed JSON, types, duplicate keys, NaN, huge numbers, deep nesting", "4xx, constant memory"
    ),
    _case("S2", "intake", "same signal id again (1 s, 1 day, restart, second instance)", "the first answer"),
    _case("S3", "intake", "same trade under a new id", "refused with its reason within the window"),
    _case("S4", "intake", "close or modify before open, open after close", "tombstone; the later open is refused"),
    _case("S5", "intake", "stamp in the future or too old", "refused; closes never expire"),
    _case(
        "S6",
        "intake",
        "stop missing, wrong side, too near, too far; target wrong side",
        "refused; never without a stop",
    ),
    _case("S7", "intake", "absurd lot, unknown symbol, suffixes, lower case", "refused"),
    _case("S8", "intake", "flood of one provider, of a hundred", "bucket per key, closes first, < +50 MB, others < 2x"),
    _case("S9", "intake", "10 MB, slow sender, compression bomb, 10,000 connections", "413 or time-out, lag < 100 ms"),
    _case("S10", "intake", "bad signature, wrong key, replayed nonce, expired stamp", "401 in constant time, counted"),
    _case("S11", "intake", "key revoked in mid-flight", "what is under way finishes, new is refused"),
    _case("S12", "intake", "answers of the intake lost", "the retry changes nothing (INV-1)"),
)

_PROCESS = (
    _case("P1", "process", "SIGKILL at CP1..CP14", "all invariants after restart, ready", bound_s=10),
    _case("P2", "process", "SIGTERM with open work", "latch, drain, exit 0, positions keep stops", bound_s=5),
    _case("P3", "process", "SIGTERM twice, SIGINT, SIGHUP with a bad configuration", "the old configuration stays"),
    _case("P4", "process", "out of memory", "as P1; the trainer dies first"),
    _case("P5", "process", "wall clock steps", "timers monotonic, ages by the worse of both clocks"),
    _case("P6", "process", "host suspended", "on wake all STALE, full picture first"),
    _case("P7", "files", "disk full", "entries stop, closes go on, page, recovers by itself"),
    _case("P8", "files", "read-only filesystem, EIO", "fatal for entries: REDUCING and restart"),
    _case("P9", "store", "database down at start, at run", "REDUCING with the local spill file"),
    _case("P10", "store", "database slow, lock held", "client time-out of at most 2 s", bound_s=2, owed="C"),
    _case("P11", "store", "deadlock", "the whole transaction again, idempotent", owed="C"),
    _case("P12", "store", "reply of a commit lost", "read again, never assumed", owed="C"),
    _case("P13", "store", "connection killed, failover", "the pool heals, nothing is lost", owed="C"),
    _case("P14", "store", "commits not flushed by configuration", "refuses to start", owed="C"),
    _case("P15", "store", "SQLite locked by another process", "50 ms, in a thread of its own"),
    _case("P16", "store", "schema newer or older, half a migration", "refuses, or resumes"),
    _case("P17", "process", "event loop stalls", "> 5 s REDUCING; watchdog at 15 s", bound_s=15),
    _case("P18", "process", "task dies, is collected, is cancelled", "process ends non-zero, never silent"),
    _case("P19", "files", "model file broken or absent", "last good model or formula, closes never blocked"),
    _case("P20", "process", "model output absurd or slow", "clipped, fallback, 50 ms", bound_s=0.05),
    _case("P21", "files", "configuration: typo, unknown key, wrong unit, missing limit", "exit 78 naming the key"),
    _case("P22", "store", "two daemons on one account", "the second stays passive"),
    _case("P23", "store", "lease lost while the broker is reachable", "no entries; stops and closes go on"),
    _case("P24", "process", "alert sink down", "second sink and file, trading never blocked"),
    _case("P25", "files", "log disk slow, pipe blocked", "lines dropped and counted, loop unaffected"),
    _case("P26", "process", "thread pool exhausted by a blocking broker library", "closes have their own", owed="D"),
)

CATALOGUE: Mapping[str, FaultCase] = MappingProxyType({case.id: case for case in (*_BROKER, *_INTAKE, *_PROCESS)})
"""All 72 by id, in the catalogue's order."""
