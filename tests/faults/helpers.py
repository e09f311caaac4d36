"""Short questions that the scenes of the fault catalogue ask."""

from __future__ import annotations

from decimal import Decimal

from simulator.inprocess import InProcessBroker
from simulator.latency import LatencyModel
from simulator.seeds import stream
from simulator.simulation.invariants.doors import Sent
from simulator.simulation.scene import C01, Scene
from srm_agent.domain.accounts import ConnectionState, HaltScope
from srm_agent.domain.ids import ConnectionId, Symbol
from srm_agent.domain.orders import OrderPurpose
from srm_agent.domain.trades import ClosedTrade, Leg
from srm_agent.execution.desk import Desk
from srm_agent.execution.tickets import Ticket
from srm_agent.market_watch import MarketWatch

BTC, ETH = Symbol("BTC/USDT:USDT"), Symbol("ETH/USDT:USDT")


def broker(scene: Scene, connection: ConnectionId = C01) -> InProcessBroker:
    """The account's line and broker: where trouble is made."""
    return scene.world.brokers[connection]


def desk(scene: Scene, connection: ConnectionId = C01) -> Desk:
    """What the agent knows of the account's orders."""
    return scene.agent.flow.accounts[connection].desk


def market(scene: Scene) -> MarketWatch:
    """What the agent knows of prices and terms."""
    return scene.agent.markets["simulator"]


def state(scene: Scene, connection: ConnectionId = C01) -> ConnectionState | None:
    """ACTIVE, REDUCING, ..."""
    return scene.world.state_of(connection)


def entry_calls(scene: Scene, connection: ConnectionId = C01) -> list[Sent]:
    """Every call of `submit` with an entry, oldest first."""
    return [
        call
        for calls in scene.world.seen.sent.values()
        for call in calls
        if call.intent.connection_id == connection and call.intent.purpose is OrderPurpose.ENTRY
    ]


def exit_calls(scene: Scene, connection: ConnectionId = C01) -> list[Sent]:
    """Every call of `submit` with an exit or an emergency close, oldest first."""
    return sorted(
        (
            call
            for calls in scene.world.seen.sent.values()
            for call in calls
            if call.intent.connection_id == connection and call.intent.purpose is not OrderPurpose.ENTRY
        ),
        key=lambda call: call.at,
    )


def entry_ticket(scene: Scene, connection: ConnectionId = C01) -> Ticket:
    """The account's last entry order, as the agent knows it."""
    tickets = desk(scene, connection).ledger.tickets.values()
    return [ticket for ticket in tickets if ticket.intent.purpose is OrderPurpose.ENTRY][-1]


def leg(scene: Scene, connection: ConnectionId = C01, symbol: Symbol = BTC) -> Leg | None:
    """The agent's open (or opening) leg."""
    return desk(scene, connection).ledger.open_leg(symbol)


def leg_lots(scene: Scene, connection: ConnectionId = C01, symbol: Symbol = BTC) -> Decimal:
    """Signed open lots by the agent's own books."""
    found = leg(scene, connection, symbol)
    return Decimal(0) if found is None or found.entry_price is None else int(found.side) * found.open_lot


def stop(scene: Scene, connection: ConnectionId = C01, symbol_id: str = "BTCUSDT") -> Decimal | None:
    """The stop that stands at the venue, None without one or without a position."""
    view = scene.position(connection, symbol_id)
    return None if view is None else view.stop_loss


def told(scene: Scene, title: str, connection: ConnectionId | None = C01) -> list[str]:
    """Levels of the alerts with that title so far."""
    scene.world.look()
    return [one.level for one in scene.world.told if one.title == title and connection in (None, one.connection)]


def halted(scene: Scene, scope: HaltScope, key: str = "") -> bool:
    """A halt of that scope and key stands in the database."""
    return any(one.scope is scope and one.key == key and one.halt is not None for one in scene.world.seen.halts)


async def trades(scene: Scene, connection: ConnectionId = C01) -> list[ClosedTrade]:
    """What learning was told of the account."""
    return [trade for trade in await scene.world.book.trades() if trade.connection_id == connection]


def slow_bridge(scene: Scene, connection: ConnectionId = C01) -> None:
    """Before the agent starts: a broker without a receive window, as a bridge to MetaTrader is (however late, it
    executes)."""
    world = scene.world
    world.brokers[connection] = InProcessBroker(
        world.venue,
        connection,
        connection,
        world.clock,
        LatencyModel.typical(stream(1, "latency", connection)),
        receive_window_s=None,
    )
