"""SIGHUP: limits, policies and copy settings change while the daemon runs; the rest is said to need a restart.

A configuration with a mistake changes nothing at all (P3).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from srm_agent import failpoints
from srm_agent.account import Account
from srm_agent.domain.ids import ConnectionId
from srm_agent.protection.drawdown_guard import DailyBase
from srm_agent.roster import Roster, roster_of
from srm_agent.settings import Settings

_COPY = "size_mode|risk_per_trade|fixed_lot|risk_multiplier|max_lot|max_positions|max_risk|max_open_risk|max_drawdown"
_LIMITS = "max_drawdown|daily_loss|daily_base|equity_max_age_s|close_interval_s"
_AT_RUN_TIME = re.compile(rf"policies\..+|protection\.({_LIMITS})|connections\..+\.({_COPY})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reloaded:
    """Keys with their old and new values in words: what is in force now, and what waits for a restart."""

    applied: tuple[str, ...]
    waiting: tuple[str, ...]


class Reloader:
    """Knows what is in force. `adopt` is synchronous: no decision sees one half of the old and one of the new."""

    def __init__(self, settings: Settings) -> None:
        self._started_with = _flat(settings)
        self._in_force = self._started_with

    def adopt(self, settings: Settings, roster: Roster, accounts: Mapping[ConnectionId, Account]) -> Reloaded:
        """Put into force what may change. `settings` is valid as a whole. Raises ConfigurationError."""
        members, wanted = roster_of(settings).members, _flat(settings)
        protection = settings.protection
        changes = []
        for connection, account in accounts.items():
            new = members.get(connection)
            if new is None:
                continue
            member = replace(
                roster.members[connection], copy=new.copy, policies=new.policies, max_drawdown=new.max_drawdown
            )
            limits = replace(
                account.guard.limits,
                max_drawdown=new.max_drawdown,
                daily_loss=protection.daily_loss,
                daily_base=DailyBase(protection.daily_base),
            )
            rules = replace(
                account.rules,
                equity_max_age_s=float(protection.equity_max_age_s),
                close_interval_s=float(protection.close_interval_s),
            )
            changes.append((account, member, limits, rules))
        for account, member, limits, rules in changes:
            account.adopt(member, limits, rules)
            failpoints.reached("CP13")
        roster.replace(member for _, member, _, _ in changes)
        applied = _differences(self._in_force, wanted, at_run_time=True)
        waiting = _differences(self._started_with, wanted, at_run_time=False)
        self._in_force = wanted
        return Reloaded(applied=applied, waiting=waiting)


def _differences(old: Mapping[str, object], new: Mapping[str, object], *, at_run_time: bool) -> tuple[str, ...]:
    """A connection that came or went is one difference, its id, and waits."""
    keys = [key for key in {**old, **new} if old.get(key) != new.get(key)]
    partial = [key for key in keys if key.endswith(".id") or not _came_or_went(key, old, new)]
    chosen = [key for key in partial if bool(_AT_RUN_TIME.fullmatch(key)) is at_run_time]
    return tuple(f"{key}: {_shown(old.get(key))} -> {_shown(new.get(key))}" for key in chosen)


def _came_or_went(key: str, old: Mapping[str, object], new: Mapping[str, object]) -> bool:
    table, _, rest = key.partition(".")
    identity = f"connections.{rest.rpartition('.')[0]}.id"
    return table == "connections" and not (identity in old and identity in new)


def _shown(value: object) -> str:
    return "unset" if value is None else str(value)


def _flat(settings: Settings) -> dict[str, object]:
    """Every leaf by its dotted key; connections by their id."""
    content = settings.model_dump()
    content["connections"] = {connection["id"]: connection for connection in content["connections"]}
    leaves: dict[str, object] = {}
    _collect(content, "", leaves)
    return leaves


def _collect(value: object, name: str, leaves: dict[str, object]) -> None:
    if isinstance(value, Mapping) and value:
        for key, below in value.items():
            _collect(below, f"{name}.{key}" if name else str(key), leaves)
    else:
        leaves[name] = value
