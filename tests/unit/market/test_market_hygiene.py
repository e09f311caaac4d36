"""Which quotes are believed (faults B24, B25, F20)."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from srm_agent.domain.ids import Symbol
from srm_agent.domain.market import Quote
from srm_agent.market.hygiene import Dropped, DropReason, HygieneSettings, QuoteGate

START = datetime(2026, 3, 4, 12, tzinfo=UTC)


def a_quote(bid: str, ask: str, second: float = 1.0, received: float | None = None) -> Quote:
    """A quote `second` after START."""
    return Quote(
        symbol=Symbol("EURUSD"),
        bid=Decimal(bid),
        ask=Decimal(ask),
        at=START + timedelta(seconds=second),
        received=second if received is None else received,
    )


def a_gate() -> QuoteGate:
    """A gate that has believed one quote."""
    gate = QuoteGate()
    assert gate.check(a_quote("1.1000", "1.1001", 0.0)) == a_quote("1.1000", "1.1001", 0.0)
    return gate


@pytest.mark.parametrize(
    ("bid", "ask", "reason"),
    [
        pytest.param("NaN", "1.1001", DropReason.NOT_FINITE, id="a NaN bid"),
        pytest.param("sNaN", "1.1001", DropReason.NOT_FINITE, id="a signalling NaN"),
        pytest.param("1.1", "Infinity", DropReason.NOT_FINITE, id="an infinite ask"),
        pytest.param("1.1", "1e999", DropReason.NOT_FINITE, id="an ask no float holds"),
        pytest.param("0", "1.1001", DropReason.NOT_POSITIVE, id="a zero bid"),
        pytest.param("-1.1", "1.1001", DropReason.NOT_POSITIVE, id="a negative bid"),
        pytest.param("1.1002", "1.1001", DropReason.CROSSED, id="bid and ask swapped"),
        pytest.param("1.1001", "1.1001", DropReason.LOCKED, id="a locked market"),
        pytest.param("1.0", "1.2", DropReason.TOO_WIDE, id="a spread of a fifth"),
        pytest.param("1e9", "1000000001", DropReason.ABSURD, id="a billion"),
        pytest.param("110.00", "110.01", DropReason.ABSURD, id="decimals shifted by 100"),
        pytest.param("0.011000", "0.011001", DropReason.ABSURD, id="decimals shifted by a hundredth"),
        pytest.param("1.2000", "1.2001", DropReason.PRICE_JUMP, id="a jump of nine percent"),
    ],
)
def test_a_bad_quote_is_dropped_counted_and_changes_nothing(bid: str, ask: str, reason: DropReason) -> None:
    """A quote that cannot be true is dropped with its reason, counted, and the next good one passes."""
    gate = a_gate()
    assert gate.check(a_quote(bid, ask)) == Dropped(reason)
    assert gate.dropped[reason] == 1
    assert gate.mid == pytest.approx(1.10005)
    assert gate.check(a_quote("1.1001", "1.1002", 2.0)) == a_quote("1.1001", "1.1002", 2.0)


def test_a_true_gap_costs_one_quote() -> None:
    """A move of ten percent is believed when the next quote confirms it."""
    gate = a_gate()
    assert gate.check(a_quote("1.2100", "1.2101", 1.0)) == Dropped(DropReason.PRICE_JUMP)
    assert gate.check(a_quote("1.2102", "1.2103", 2.0)) == a_quote("1.2102", "1.2103", 2.0)


def test_a_spike_is_not_confirmed_by_its_own_repetition() -> None:
    """The same frame delivered twice confirms nothing, nor does a spike after a good quote."""
    gate = a_gate()
    spike = a_quote("1.2100", "1.2101", 1.0)
    assert gate.check(spike) == Dropped(DropReason.PRICE_JUMP)
    assert gate.check(spike) == Dropped(DropReason.PRICE_JUMP)
    assert isinstance(gate.check(a_quote("1.1000", "1.1001", 2.0)), Quote)
    assert gate.check(a_quote("1.2100", "1.2101", 3.0)) == Dropped(DropReason.PRICE_JUMP)


def test_shifted_decimals_are_never_believed_however_often_they_come() -> None:
    """A feed that shifts its decimals makes the symbol stale instead of moving the price."""
    gate = a_gate()
    for second in range(1, 200):
        assert gate.check(a_quote("110.00", "110.01", second)) == Dropped(DropReason.ABSURD)
    assert gate.stale(199.0)
    assert gate.mid == pytest.approx(1.10005)


def test_order_of_time_is_kept() -> None:
    """A quote older than the last believed one is dropped, an exact repetition too, and the latter is no alarm."""
    gate = a_gate()
    assert gate.check(a_quote("1.1000", "1.1001", -1.0)) == Dropped(DropReason.OUT_OF_ORDER)
    for _ in range(20):
        assert gate.check(a_quote("1.1000", "1.1001", 0.0)) == Dropped(DropReason.DUPLICATE)
    assert not gate.stale(1.0)


def test_a_second_price_at_the_same_instant_is_news() -> None:
    """Venues stamp by the millisecond: another price under the same stamp is believed."""
    gate = a_gate()
    assert isinstance(gate.check(a_quote("1.1001", "1.1002", 0.0)), Quote)


def test_a_frozen_venue_clock_is_found() -> None:
    """Prices that keep coming under one stamp are dropped after five seconds and the symbol goes stale."""
    gate = a_gate()
    results = [gate.check(a_quote("1.1000", f"1.{1001 + i}", 0.0, received=float(i))) for i in range(1, 20)]
    assert all(isinstance(result, Quote) for result in results[:5])
    assert results[5:] == [Dropped(DropReason.FROZEN)] * 14
    assert gate.stale(19.0)


def test_a_clock_corrected_backwards_is_followed_in_the_end() -> None:
    """When the venue's clock jumps back an hour for good, a hundred orderly quotes re-anchor time."""
    gate = a_gate()
    results = [gate.check(a_quote("1.1000", "1.1001", -3600.0 + i, received=float(i))) for i in range(1, 104)]
    assert results[:101] == [Dropped(DropReason.OUT_OF_ORDER)] * 101
    assert all(isinstance(result, Quote) for result in results[101:])
    assert not gate.stale(104.0)


def test_one_stamp_from_the_future_does_not_poison_the_clock() -> None:
    """A leap of a day must be confirmed; a weekend therefore costs one quote, a wrong stamp none of the next."""
    gate = a_gate()
    assert gate.check(a_quote("1.1000", "1.1001", 86400.0, received=1.0)) == Dropped(DropReason.TIME_JUMP)
    assert isinstance(gate.check(a_quote("1.1000", "1.1001", 2.0)), Quote)
    assert gate.check(a_quote("1.1000", "1.1001", 172800.0, received=3.0)) == Dropped(DropReason.TIME_JUMP)
    assert isinstance(gate.check(a_quote("1.1000", "1.1001", 172801.0, received=4.0)), Quote)


def test_silence_makes_stale_and_a_quote_heals() -> None:
    """A symbol without believed quotes is stale from the start, and after five seconds of silence."""
    assert QuoteGate().stale(0.0)
    gate = a_gate()
    assert not gate.stale(5.0)
    assert gate.stale(5.1)
    assert isinstance(gate.check(a_quote("1.1000", "1.1001", 6.0)), Quote)
    assert not gate.stale(6.1)


def test_a_slow_symbol_gets_three_times_its_usual_gap() -> None:
    """A symbol that quotes each four seconds is not stale after ten, but is after thirteen."""
    gate = QuoteGate()
    for i in range(300):
        gate.check(a_quote("1.1000", f"1.1{100 + i}", 4.0 * i))
    last = 4.0 * 299
    assert not gate.stale(last + 10.0)
    assert gate.stale(last + 13.5)


def test_more_than_n_drops_in_a_row_make_stale() -> None:
    """Five bad quotes are forgiven, the sixth makes the symbol stale although time is fresh."""
    gate = a_gate()
    for second in (0.1, 0.2, 0.3, 0.4, 0.5):
        gate.check(a_quote("1.2", "1.1", second))
    assert not gate.stale(0.5)
    gate.check(a_quote("1.2", "1.1", 0.6))
    assert gate.stale(0.6)


def test_history_anchors_the_first_quote() -> None:
    """After seeding, even the first quote is judged: shifted decimals do not become the truth."""
    gate = QuoteGate()
    gate.anchor(1.1)
    assert gate.check(a_quote("110.00", "110.01", 1.0)) == Dropped(DropReason.ABSURD)
    assert isinstance(gate.check(a_quote("1.1000", "1.1001", 2.0)), Quote)


def test_locked_quotes_may_be_allowed() -> None:
    """An account without spread may be configured to believe bid == ask."""
    gate = QuoteGate(HygieneSettings(allow_locked=True))
    assert isinstance(gate.check(a_quote("1.1", "1.1")), Quote)
