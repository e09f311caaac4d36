"""The failures of other projects that must not happen here (reliability.md 7), by id, as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

Owed = Literal["", "C", "D"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """One row. `owed`: who shows it once more where it happened to others, C on MariaDB, D by MetaTrader's codes."""

    title: str
    invariants: str
    owed: Owed = ""


def _row(title: str, invariants: str, owed: Owed = "") -> Failure:
    return Failure(title=title, invariants=invariants, owed=owed)


FAILURES: Mapping[str, Failure] = MappingProxyType(
    {
        "F1": _row("sent again after a time-out, executed twice (catalyst#317, hummingbot#493)", "INV-1 INV-5"),
        "F2": _row("in flight too long, taken as rejected while it lives (nautilus#4958)", "INV-5 INV-6"),
        "F3": _row("a network error counted as not found, an untracked position (hummingbot#8457)", "INV-5 INV-7"),
        "F4": _row("a list older than the order: does not exist, duplicates (hummingbot#601)", "INV-7"),
        "F5": _row("filled and never stored, the database was locked (freqtrade#7184, #7882)", "INV-2 INV-3", "C"),
        "F6": _row("not found once at the start, marked as cancelled (freqtrade startup_update)", "INV-5"),
        "F7": _row("given up, filled all the same, a position nobody knows (freqtrade#3647, #4403)", "INV-7"),
        "F8": _row("each restart adds rows, fills counted twice (nautilus#3622, #3878, #3493)", "INV-7 INV-8"),
        "F9": _row("stop refused, position left naked or the bot dead (freqtrade#12598, #8300)", "INV-4", "D"),
        "F10": _row("stop sent as 0 and believed, stop without a position (dwx-zeromq#60)", "INV-4", "D"),
        "F11": _row("partial fill, stop of the wrong size (Haehnchen#84, freqtrade#8374)", "INV-4 INV-12"),
        "F12": _row("the kill switch raised, the bot went on (hummingbot#2534)", "INV-8 INV-13"),
        "F13": _row("the kill switch fails open while a market is not ready (hummingbot)", "INV-9 INV-13"),
        "F14": _row("new orders while shutting down (hummingbot#8075, #720)", "INV-8"),
        "F15": _row("a halt blocks exits, a close crosses through flat (nautilus#4761)", "INV-10"),
        "F16": _row("closing refused: margin, notional, a resting target (nautilus#2986, Qubx#386)", "INV-10"),
        "F17": _row("trading stopped, 10 % became 40 %: floating loss not seen (freqtrade#4837)", "INV-9"),
        "F18": _row("the feed halts, a phantom loss closes everything (Vibe-Trading#1318)", "INV-13"),
        "F19": _row("a withdrawal taken for a drawdown, a deposit hiding one", "INV-13"),
        "F20": _row("the feed dies without a word (ccxt#22662)", "INV-13"),
        "F21": _row("a wrong clock: refused, doubled, or dead (hummingbot#1388, freqtrade#4118)", "INV-14"),
        "F22": _row("older program, newer database; half a migration (freqtrade#12045)", "INV-2", "C"),
        "F23": _row("weekend gap far through the stop", "INV-11"),
        "F24": _row("a fill of a position that is closed kills the engine (nautilus#4714)", "INV-7"),
        "F25": _row("reconciling fails, no start while a position is open (nautilus#3104)", "INV-4"),
        "F26": _row("a cancelled call spoils the answers of others (asyncmy#103)", "INV-2", "C"),
    }
)
