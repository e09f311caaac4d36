"""Chance at the broker's order desk: B1-B20."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal
from random import Random

from simulator.chaos.strikes import LONGEST_S, Injector, registered
from simulator.chaos.world import (
    ChaosWorld,
    any_broker,
    any_position,
    any_symbol,
    change_terms,
    draw_count,
    draw_seconds,
    later,
)
from simulator.holds import Hold
from simulator.spells import Message
from simulator.terms import SymbolState
from srm_agent.domain.units import ZERO, floor_to_step

EXIT, ENTRY = Message.EXIT, Message.ENTRY


def refusing(names: Sequence[str], only: tuple[Message, ...]) -> Injector:
    """An injector of refusals by these names, of these kinds of calls."""

    def strike(world: ChaosWorld, rng: Random) -> str:
        broker, name, count = any_broker(world, rng), rng.choice(list(names)), draw_count(rng)
        broker.mischief.refuse(name, *only, count=count)
        return f"{broker.account_id}: the next {count} of {'/'.join(only)} refused: {name}"

    return strike


registered("B1")(refusing(("requote", "price changed"), (ENTRY,)))


@registered("B2")
def error_that_proves_nothing(world: ChaosWorld, rng: Random) -> str:
    """Rejected for good, or an error code with or without the order."""
    if rng.random() < 0.3:
        return refusing(("reject",), (ENTRY, EXIT))(world, rng)
    broker, acted = any_broker(world, rng), rng.random() < 0.5
    broker.mischief.doubt(acted=acted)
    return f"{broker.account_id}: the next order answers an error, acted {acted}"


@registered("B3")
def no_result(world: ChaosWorld, rng: Random) -> str:
    """A time-out or no result at all."""
    broker, acted = any_broker(world, rng), rng.random() < 0.5
    if acted:
        broker.network.lose_reply(ENTRY, EXIT)
    else:
        broker.mischief.doubt(acted=False, code="NO_ANSWER")
    return f"{broker.account_id}: no result for the next order, acted {acted}"


@registered("B4")
def request_lost(world: ChaosWorld, rng: Random) -> str:
    """Lost before the broker."""
    broker, count = any_broker(world, rng), draw_count(rng, 2)
    broker.network.lose_request(ENTRY, EXIT, count=count)
    return f"{broker.account_id}: the next {count} orders are lost"


@registered("B5")
def reply_lost(world: ChaosWorld, rng: Random) -> str:
    """Accepted, the reply lost."""
    broker, count = any_broker(world, rng), draw_count(rng, 2)
    broker.network.lose_reply(ENTRY, EXIT, Message.PROTECT, count=count)
    return f"{broker.account_id}: the next {count} replies are lost"


@registered("B6")
def executed_late(world: ChaosWorld, rng: Random) -> str:
    """The request under way for seconds, or the venue sits on the order for up to 90."""
    broker = any_broker(world, rng)
    if rng.random() < 0.4:
        seconds = draw_seconds(rng, 1, 90 if rng.random() < 0.3 else 6)
        broker.network.delay_request(seconds, ENTRY, EXIT)
        return f"{broker.account_id}: the next order arrives {seconds:g} s late"
    seconds, exits = draw_seconds(rng, 1, LONGEST_S if rng.random() < 0.3 else 12), rng.random() < 0.4
    broker.hold_next(rest_after_s=seconds, exits=exits)
    return f"{broker.account_id}: the next {'exit' if exits else 'entry'} is executed after {seconds:g} s"


@registered("B7")
def told_twice(world: ChaosWorld, rng: Random) -> str:
    """Fills, reports, replies and requests twice."""
    broker = any_broker(world, rng)
    echoes = rng.randint(2, 8)
    broker.mischief.echoes += echoes
    if rng.random() < 0.5:
        broker.network.repeat_reply(draw_seconds(rng, 0, 3))
    if rng.random() < 0.5:
        broker.network.repeat_request(draw_seconds(rng, 0, 3), ENTRY, EXIT)
    return f"{broker.account_id}: the next {echoes} fills and reports come twice"


@registered("B8")
def partial_fill(world: ChaosWorld, rng: Random) -> str:
    """A part now, the rest later or never; of entries, exits and stops."""
    broker, fraction = any_broker(world, rng), Decimal(rng.choice(("0.01", "0.3", "0.5", "0.9")))
    if rng.random() < 0.3:
        world.venue.mischief.hold_next(broker.account_id, Hold(fraction=fraction, stops=True))
        return f"{broker.account_id}: the next stop closes {fraction} of its position"
    after, exits = (draw_seconds(rng, 1, 30) if rng.random() < 0.6 else None), rng.random() < 0.4
    broker.hold_next(fraction=fraction, rest_after_s=after, exits=exits)
    rest = "never" if after is None else f"after {after:g} s"
    return f"{broker.account_id}: the next {'exit' if exits else 'entry'} fills {fraction}, the rest {rest}"


@registered("B9")
def stops_refused(world: ChaosWorld, rng: Random) -> str:
    """The broker asks for more distance, for a while, or refuses changes of stops."""
    if rng.random() < 0.4:
        return refusing(("invalid stops", "frozen"), (Message.PROTECT,))(world, rng)
    name = any_symbol(world, rng)
    terms = world.venue.mischief.original_terms(name)
    level = floor_to_step(world.venue.touch(name).bid * Decimal(rng.choice(("0.0005", "0.002"))), terms.tick_size)
    seconds = draw_seconds(rng, 5, 40)

    def set_levels(stops: Decimal, freeze: Decimal) -> None:
        change_terms(world, name, lambda now: replace(now, stops_level=stops, freeze_level=freeze))

    freeze = level if rng.random() < 0.3 else ZERO
    set_levels(level, freeze)
    later(seconds, lambda: set_levels(terms.stops_level, terms.freeze_level))
    return f"{name}: stops level {level}, freeze level {freeze} for {seconds:g} s"


@registered("B10")
def stop_dropped(world: ChaosWorld, rng: Random) -> str:
    """The reply says yes and the stop is not there."""
    broker, held = any_broker(world, rng), any_position(world, rng)
    if held is not None and rng.random() < 0.5:
        broker, view = held
        world.venue.mischief.tamper(broker.account_id, view.symbol_id, stop_loss=None, take_profit=None)
        return f"{broker.account_id}: the stop of {view.symbol_id} vanishes"
    if rng.random() < 0.3:
        broker.mischief.deaf_protects += 1
        return f"{broker.account_id}: the next change of a stop is only acknowledged"
    broker.mischief.unstopped += 1
    return f"{broker.account_id}: the next entry loses its stop"


@registered("B11")
def stop_moved(world: ChaosWorld, rng: Random) -> str:
    """A human or the broker changes or removes a stop."""
    held = any_position(world, rng)
    if held is None:
        return "nothing is held, nothing happens"
    broker, view = held
    stop = view.stop_loss
    if stop is not None and view.side is not None and rng.random() < 0.6:
        # Away from the entry: more risk than was planned.
        stop = floor_to_step(
            stop * (1 - view.side * Decimal("0.01")), world.venue.instruments[view.symbol_id].tick_size
        )
    else:
        stop = None
    world.venue.mischief.tamper(broker.account_id, view.symbol_id, stop_loss=stop, take_profit=view.take_profit)
    return f"{broker.account_id}: somebody sets the stop of {view.symbol_id} to {stop}"


def _state(states: Sequence[SymbolState], most_s: float) -> Injector:
    def strike(world: ChaosWorld, rng: Random) -> str:
        name, state, seconds = any_symbol(world, rng), rng.choice(list(states)), draw_seconds(rng, 3, most_s)
        world.venue.set_state(name, state)
        later(seconds, lambda: world.venue.set_state(name, SymbolState.TRADING))
        return f"{name} is {state} for {seconds:g} s"

    return strike


registered("B12")(_state((SymbolState.CLOSED, SymbolState.DISABLED), 30))
registered("B13")(_state((SymbolState.CLOSE_ONLY, SymbolState.LONG_ONLY, SymbolState.SHORT_ONLY), 40))
registered("B14")(refusing(("no money",), (ENTRY,)))


@registered("B15")
def too_many_requests(world: ChaosWorld, rng: Random) -> str:
    """Some calls throttled, or a ban."""
    broker = any_broker(world, rng)
    if rng.random() < 0.5:
        count = rng.randint(2, 6)
        broker.faults.add("v5/order/create", "http429", count)
        return f"{broker.account_id}: the next {count} orders are throttled"
    seconds = draw_seconds(rng, 1, 8)
    broker.mischief.ban(seconds)
    return f"{broker.account_id}: banned for {seconds:g} s"


registered("B16")(refusing(("invalid fill",), (ENTRY,)))
registered("B17")(refusing(("invalid volume", "invalid price"), (ENTRY,)))


@registered("B18")
def trading_disabled(world: ChaosWorld, rng: Random) -> str:
    """The account may only be read."""
    broker, seconds = any_broker(world, rng), draw_seconds(rng, 5, 30)
    broker.mischief.disable_trading(seconds)
    return f"{broker.account_id}: trading disabled for {seconds:g} s"


registered("B19")(refusing(("limits",), (ENTRY,)))
registered("B20")(refusing(("position closed", "close exists", "fifo", "hedge prohibited"), (EXIT,)))
