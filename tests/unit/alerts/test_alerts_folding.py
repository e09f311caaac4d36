"""A storm of alerts becomes a few: facts of the folder, with time as an argument."""

from __future__ import annotations

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from srm_agent.alerts.folding import LARGEST, PER_TITLE, Folder
from srm_agent.domain.ids import ConnectionId
from srm_agent.notifier import Alert


def alert(
    title: str = "stream broken", connection: str | None = "c1", level: str = "warning", said: str = "x"
) -> Alert:
    """An alert of noon."""
    of = None if connection is None else ConnectionId(connection)
    return Alert(at=datetime(2026, 1, 5, 12, tzinfo=UTC), level=level, title=title, message=said, connection=of)


def test_the_first_of_a_kind_is_told_at_once_and_the_next_ones_as_a_number() -> None:
    """Ninety-nine repeats within four seconds are one alert with its count and the last words."""
    folder = Folder()
    assert folder.take(alert(said="first"), 0.0) is not None
    assert [folder.take(alert(said=f"no {n}"), 1.0) for n in range(99)] == [None] * 99
    assert folder.due(3.9) == []
    (told,) = folder.due(4.0)
    assert (told.count, told.message) == (99, "no 98 (99 more like this within 4 s)")


def test_what_was_folded_is_told_within_five_seconds_of_the_first_storm() -> None:
    """The first window is four seconds long, so the count of a storm meets the bound of alerts."""
    folder = Folder()
    folder.take(alert(), 10.0)
    folder.take(alert(), 10.1)
    assert folder.next_due() == 14.0


def test_a_storm_that_lasts_is_told_less_and_less_often() -> None:
    """Windows of 4, 8, 16, 32 and then 60 seconds while the storm lasts: an hour of it is some sixty alerts."""
    folder, ends = Folder(longest_s=60.0), []
    folder.take(alert(), 0.0)
    for second in range(1, 400):
        folder.take(alert(), float(second))
        ends += [second for _ in folder.due(float(second))]
    assert ends == [4, 12, 28, 60, 120, 180, 240, 300, 360]


def test_a_title_that_was_quiet_for_a_window_is_told_at_once_again() -> None:
    """Folding ends with the storm."""
    folder = Folder()
    folder.take(alert(), 0.0)
    assert folder.due(4.0) == []
    assert folder.next_due() is None
    assert folder.take(alert(), 5.0) is not None


def test_a_graver_alert_is_never_folded_into_a_lesser_one() -> None:
    """A page among warnings of the same title goes out at once, and is then folded with its like."""
    folder = Folder()
    folder.take(alert(), 0.0)
    assert folder.take(alert(level="page"), 0.1) is not None
    assert folder.take(alert(level="page"), 0.2) is None
    assert folder.take(alert(level="warning"), 0.3) is None
    (told,) = folder.due(4.0)
    assert (told.level, told.count) == ("page", 2)


def test_a_title_on_a_thousand_connections_is_twenty_alerts_and_a_number() -> None:
    """A venue that goes away is not a thousand pages; the number names some of those behind it."""
    folder = Folder()
    told = [folder.take(alert(connection=f"c{n}", level="page"), 0.0) for n in range(1000)]
    assert sum(one is not None for one in told) == PER_TITLE
    (rest,) = folder.due(4.0)
    assert (rest.count, rest.connection) == (980, None)
    assert rest.message == "x (the last of 980 on connections c20, c21, c22, c23, c24, and 975 others)"


def test_different_titles_and_connections_do_not_fold_each_other() -> None:
    """Each (title, connection) has its own window."""
    folder = Folder()
    kinds = [alert(title=f"t{n}", connection=f"c{m}") for n in range(5) for m in range(5)]
    assert all(folder.take(kind, 0.0) is not None for kind in kinds)


@given(
    st.lists(
        st.tuples(
            st.floats(0, 30),
            st.sampled_from(["a", "b"]),
            st.sampled_from(["c1", "c2", None]),
            st.sampled_from(["notice", "warning", "page"]),
        ),
        max_size=60,
    )
)
def test_every_event_is_told_or_counted(events: list[tuple[float, str, str | None, str]]) -> None:
    """Nothing disappears: alerts told at once and the counts told later add up to the events."""
    folder, now, told = Folder(), 0.0, 0
    for wait, title, connection, level in events:
        now += wait
        told += sum(one.count for one in folder.due(now))
        told += folder.take(alert(title, connection, level), now) is not None
    told += sum(one.count for one in folder.due(now + 10_000))
    assert told == len(events)


def test_memory_is_bounded_whatever_is_told() -> None:
    """Ten thousand connections with one title each keep no more windows than allowed, and every one is counted."""
    folder = Folder()
    told = sum(folder.take(alert(title="t", connection=f"c{n}"), 0.0) is not None for n in range(2 * LARGEST))
    counted = sum(one.count for one in folder.due(4.0))
    assert told + counted == 2 * LARGEST
    assert told <= PER_TITLE
