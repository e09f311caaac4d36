"""Chance in the market, on the streams, in the reads and in the money: B21-B34."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from random import Random

from simulator.chaos.orders import refusing
from simulator.chaos.strikes import registered
from simulator.chaos.world import (
    ChaosWorld,
    agents_symbol,
    any_broker,
    any_position,
    any_symbol,
    change_terms,
    draw_count,
    draw_seconds,
    later,
)
from simulator.feed_mischief import BadQuote
from simulator.sight import Blindness, Read
from simulator.spells import Message
from simulator.terms import SimInstrument
from srm_agent.domain.units import floor_to_step

EXIT = Message.EXIT
REST_BETWEEN_LIES_S = 20.0


@registered("B21")
def gap(world: ChaosWorld, rng: Random) -> str:
    """The price jumps, stops or not."""
    name, size = any_symbol(world, rng), Decimal(rng.choice(("-0.03", "-0.01", "0.01", "0.03")))
    world.venue.mischief.gap(name, size)
    return f"{name} gaps by {size}"


@registered("B22")
def line_breaks(world: ChaosWorld, rng: Random) -> str:
    """A reset of the stream, a half-open socket, a partition, or no DNS; of an account or of the feed."""
    seconds, kind = draw_seconds(rng, 1, 20), rng.choice(("reset", "half-open", "cut", "refused"))
    if rng.random() < 0.25:
        if kind in ("reset", "half-open"):
            world.feed.drop_stream()
            return "feed: stream reset"
        world.feed.network.cut(seconds, refused=kind == "refused")
        return f"feed: {kind} for {seconds:g} s"
    broker = any_broker(world, rng)
    match kind:
        case "reset":
            broker.drop_stream()
            return f"{broker.account_id}: stream reset"
        case "half-open":
            broker.mute_stream()
            return f"{broker.account_id}: stream half open"
        case _:
            broker.network.cut(seconds, refused=kind == "refused")
            return f"{broker.account_id}: {kind} for {seconds:g} s"


@registered("B23")
def silent_feed(world: ChaosWorld, rng: Random) -> str:
    """No frames at all, or one symbol's quotes frozen."""
    seconds = draw_seconds(rng, 3, 20)
    if rng.random() < 0.5:
        world.feed.mischief.mute(seconds)
        return f"feed: silent for {seconds:g} s"
    symbol = agents_symbol(world, any_symbol(world, rng))
    world.feed.mischief.freeze(symbol, seconds)
    return f"feed: {symbol} frozen for {seconds:g} s"


@registered("B24")
def bad_quotes(world: ChaosWorld, rng: Random) -> str:
    """One kind of nonsense, a few times."""
    kinds = [how for how in BadQuote if how not in (BadQuote.DUPLICATE, BadQuote.OUT_OF_ORDER)]
    how, symbol, count = rng.choice(kinds), agents_symbol(world, any_symbol(world, rng)), rng.randint(1, 8)
    world.feed.mischief.spoil(how, symbol, count)
    return f"feed: {count} quotes of {symbol} {how}"


@registered("B25")
def bad_stamps(world: ChaosWorld, rng: Random) -> str:
    """Ticks twice or out of order, or the server's clock an hour off."""
    if rng.random() < 0.6:
        how, count = rng.choice((BadQuote.DUPLICATE, BadQuote.OUT_OF_ORDER)), rng.randint(1, 8)
        world.feed.mischief.spoil(how, None, count)
        return f"feed: {count} quotes {how}"
    offset, seconds = rng.choice((-3600.0, 3600.0)), draw_seconds(rng, 3, 20)
    world.feed.mischief.jump_time(offset, seconds)
    return f"feed: server time {offset:+g} s for {seconds:g} s"


@registered("B26")
def blind_read(world: ChaosWorld, rng: Random) -> str:
    """One kind of read shows less than the truth, for at most 3 s (an error for longer).

    Lies are kept apart: a venue that denies an order for longer than its finality time breaks INV-5 by itself.
    """
    broker, read, how = any_broker(world, rng), rng.choice(list(Read)), rng.choice(list(Blindness))
    if broker.sight.truthful_s < REST_BETWEEN_LIES_S:
        how = Blindness.ERROR
    seconds = draw_seconds(rng, 1, 20 if how is Blindness.ERROR else 3)
    broker.sight.blind(read, how, seconds)
    return f"{broker.account_id}: {read} {how} for {seconds:g} s"


@registered("B27")
def disconnect_of_the_fullest(world: ChaosWorld, rng: Random) -> str:
    """The account with most positions loses its line."""
    brokers = list(world.brokers.values())
    broker = max(brokers, key=lambda item: len(world.venue.positions(item.account_id)))
    seconds = draw_seconds(rng, 2, 10)
    broker.network.cut(seconds)
    return f"{broker.account_id}: cut for {seconds:g} s"


@registered("B28")
def close_fails(world: ChaosWorld, rng: Random) -> str:
    """Closes refused, or their replies lost."""
    if rng.random() < 0.5:
        return refusing(("off quotes",), (EXIT,))(world, rng)
    broker, count = any_broker(world, rng), draw_count(rng)
    broker.network.lose_reply(EXIT, count=count)
    return f"{broker.account_id}: the next {count} replies to closes are lost"


@registered("B29")
def terms_change(world: ChaosWorld, rng: Random) -> str:
    """Another smallest lot, smallest value or largest lot, for a while."""
    name = any_symbol(world, rng)
    terms, seconds = world.venue.mischief.original_terms(name), draw_seconds(rng, 10, 60)
    what = rng.choice(("lot_min", "min_notional", "max_market_lot", "taker_fee"))

    def other(now: SimInstrument) -> SimInstrument:
        match what:
            case "lot_min":
                return replace(now, lot_min=terms.lot_min * 10)
            case "min_notional":
                return replace(now, min_notional=terms.min_notional * 4)
            case "max_market_lot":
                return replace(now, max_market_lot=floor_to_step(terms.max_market_lot / 2, terms.lot_step))
            case _:
                return replace(now, taker_fee=terms.taker_fee * 2)

    def as_before(now: SimInstrument) -> SimInstrument:
        return replace(
            now,
            lot_min=terms.lot_min,
            min_notional=terms.min_notional,
            max_market_lot=terms.max_market_lot,
            taker_fee=terms.taker_fee,
        )

    change_terms(world, name, other)
    later(seconds, lambda: change_terms(world, name, as_before))
    return f"{name}: another {what} for {seconds:g} s"


@registered("B30")
def no_conversion(world: ChaosWorld, rng: Random) -> str:
    """A symbol settles in money that nobody can convert."""
    symbol, seconds = agents_symbol(world, any_symbol(world, rng)), draw_seconds(rng, 5, 40)
    world.feed.mischief.hide_conversion(symbol, "XTS", seconds)
    return f"feed: {symbol} settles in XTS for {seconds:g} s"


@registered("B31")
def money_moves(world: ChaosWorld, rng: Random) -> str:
    """Deposit, withdrawal, bonus, swap or dividend."""
    broker, venue = any_broker(world, rng), world.venue
    account, at_ms = broker.account_id, venue.market_ms
    wallet = venue.wallet(account)
    share = (wallet.balance * Decimal(rng.choice(("0.02", "0.1", "0.3")))).quantize(Decimal("0.01"))
    kind = rng.choice(("deposit", "withdrawal", "BONUS", "SETTLEMENT", "DIVIDEND"))
    if kind == "withdrawal":
        share = min(share, (wallet.available / 2).quantize(Decimal("0.01")))
    if share <= 0:
        return f"{account}: there is no money to move"
    match kind:
        case "deposit":
            venue.deposit(account, share, at_ms)
        case "withdrawal":
            venue.withdraw(account, share, at_ms)
        case _:
            share = (share / 50).quantize(Decimal("0.01")) * rng.choice((-1, 1))
            venue.mischief.book_cash(account, kind, share, at_ms)
    return f"{account}: {kind} of {share}"


@registered("B32")
def stopped_out(world: ChaosWorld, rng: Random) -> str:
    """The broker closes everything of an account."""
    held = any_position(world, rng)
    if held is None:
        return "nothing is held, nothing happens"
    world.venue.mischief.stop_out(held[0].account_id)
    return f"{held[0].account_id}: stopped out by the broker"


@registered("B33")
def wrong_account(world: ChaosWorld, rng: Random) -> str:
    """Another account behind the credentials."""
    broker, seconds = any_broker(world, rng), draw_seconds(rng, 3, 20)
    broker.switch_account(seconds)
    later(seconds + 5, lambda: world.operator_resumes("all", ""))
    return f"{broker.account_id}: another account answers for {seconds:g} s"


@registered("B34")
def stamps_refused(world: ChaosWorld, rng: Random) -> str:
    """The venue does not take our time stamps."""
    broker, count = any_broker(world, rng), draw_count(rng)
    broker.mischief.skew_clock(count)
    return f"{broker.account_id}: {count} time stamps refused"
