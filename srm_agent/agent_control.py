"""What operators may do with a running daemon: see, halt, resume (port `api.control.Control`)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from srm_agent.clock import Clock
from srm_agent.domain.accounts import ConnectionState, Halt, HaltScope
from srm_agent.domain.ids import ConnectionId
from srm_agent.domain.units import plain
from srm_agent.errors import UsageError
from srm_agent.flow import Flow
from srm_agent.market_watch import MarketWatch
from srm_agent.notifier import LogNotifier
from srm_agent.protection.halts import HaltBoard


class AgentControl:
    """A view of the flow, and the two levers."""

    def __init__(
        self,
        *,
        name: str,
        flow: Flow,
        markets: Mapping[str, MarketWatch],
        halts: HaltBoard,
        notifier: LogNotifier,
        clock: Clock,
        ready: Callable[[], bool],
        providers: Iterable[str],
        symbols: Iterable[str],
    ) -> None:
        self._providers = set(providers)
        self._symbols = set(symbols)
        self._name = name
        self._flow = flow
        self._markets = markets
        self._halts = halts
        self._notifier = notifier
        self._clock = clock
        self._ready = ready

    def health(self) -> tuple[bool, Mapping[str, str]]:
        """Ready when recovered and every connection was brought in step once, or has said why not."""
        if self._ready():
            return True, {}
        missing = {
            str(connection): account.why_reducing() or "starting" for connection, account in self._flow.accounts.items()
        }
        return False, missing or {"agent": "starting"}

    def status(self) -> Mapping[str, object]:
        """Everything in text and numbers as text."""
        return {
            "agent": self._name,
            "at": self._clock.wall().isoformat(),
            "ready": self._ready(),
            "counters": dict(self._flow.status()),
            "venues": {name: self._venue(market) for name, market in self._markets.items()},
            "connections": [self._connection(connection) for connection in self._flow.accounts],
            "halts": [
                {
                    "scope": halt.scope.value,
                    "key": halt.key,
                    "state": halt.state.value,
                    "reason": halt.reason,
                    "set_at": halt.set_at.isoformat(),
                    "set_by": halt.set_by,
                }
                for halt in self._halts.all()
            ],
            "alerts": [
                {
                    "at": alert.at.isoformat(),
                    "level": alert.level,
                    "title": alert.title,
                    "message": alert.message,
                    "connection": alert.connection,
                }
                for alert in list(self._notifier.recent)[-20:]
            ],
            "alert_sinks": [
                {"name": name, "takes_alerts": up, "waiting": self._notifier.waiting()}
                for name, up in self._notifier.sinks()
            ],
        }

    async def halt(self, scope: HaltScope, key: str, reason: str, operator: str) -> None:
        """Latch now. Raises UsageError for an unknown connection."""
        self._known(scope, key)
        self._halts.set(
            Halt(
                scope=scope,
                key=key,
                state=ConnectionState.HALTED,
                reason=reason,
                set_at=self._clock.wall(),
                set_by=operator,
            )
        )
        self._notifier.notify("warning", "halted by operator", f"{_named(scope, key)}: {reason} ({operator})")
        await self._halts.save()

    async def flatten(self, connection: ConnectionId, reason: str, operator: str) -> None:
        """Halt one account and close everything in scope, now. Raises UsageError for an unknown connection."""
        self._known(HaltScope.CONNECTION, connection)
        self._flow.accounts[connection].flatten(f"{reason} ({operator})", operator)
        await self._halts.save()

    async def resume(self, scope: HaltScope, key: str, operator: str) -> bool:
        """Clear a halt. An account that is being flattened is not resumed before it is flat. Raises UsageError."""
        self._known(scope, key)
        halt = self._halts.find(scope, key)
        if halt is not None and halt.state is ConnectionState.FLATTENING:
            raise UsageError(f"{_named(scope, key)} is being flattened: resume it when status shows HALTED")
        cleared = await self._halts.clear(scope, key, operator, self._clock.wall())
        if cleared:
            self._notifier.notify("warning", "resumed by operator", f"{_named(scope, key)} ({operator})")
            account = self._flow.accounts.get(ConnectionId(key))
            if scope is HaltScope.CONNECTION and account is not None:
                account.restart_mark()
        return cleared

    def _known(self, scope: HaltScope, key: str) -> None:
        names: dict[HaltScope, set[str]] = {
            HaltScope.CONNECTION: {str(connection) for connection in self._flow.accounts},
            HaltScope.PROVIDER: self._providers,
            HaltScope.SYMBOL: self._symbols,
        }
        known = names.get(scope)
        if known is not None and key not in known:
            raise UsageError(f"there is no {scope.value} {key!r}: known are {', '.join(sorted(known))}")

    def _venue(self, market: MarketWatch) -> Mapping[str, object]:
        return {
            "streaming": market.streaming,
            "market_now": None if market.market_now is None else market.market_now.isoformat(),
            "symbols": sorted(market.instruments),
            "dropped_quotes": market.dropped(),
        }

    def _connection(self, connection: ConnectionId) -> Mapping[str, object]:
        account = self._flow.accounts[connection]
        equity, drawdown = account.equity(), account.drawdown()
        snapshot = account.watch.snapshot
        return {
            "id": connection,
            "follower": account.member.follower,
            "state": account.state().value,
            "why": account.why_reducing(),
            "equity": None if equity is None else plain(equity.value),
            "equity_complete": equity is not None and equity.complete,
            "currency": None if snapshot is None else snapshot.currency,
            "drawdown": None if drawdown is None else plain(drawdown),
            "open_legs": len(list(account.desk.open_legs())),
            "unsettled_orders": len(account.desk.ledger.unsettled()),
            "halted_symbols": dict(account.desk.halted_symbols),
        }


def _named(scope: HaltScope, key: str) -> str:
    return f"{scope.value} {key}".rstrip()
