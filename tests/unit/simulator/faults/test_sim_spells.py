"""How trouble comes: for a while, or to the next calls that it concerns."""

from __future__ import annotations

import asyncio

import pytest

from simulator.spells import Message, Spell, Waiting


async def test_a_spell_lasts_as_long_as_its_longest_beginning() -> None:
    """A shorter one does not shorten it; `end` does."""
    spell = Spell()
    spell.begin(5)
    spell.begin(2)
    await asyncio.sleep(4.9)
    seen = [spell.on]
    await asyncio.sleep(0.1)
    seen.append(spell.on)
    spell.begin(5)
    seen.append(spell.on)
    spell.end()
    seen.append(spell.on)
    assert seen == [True, False, True, False]


def test_a_spell_without_end_needs_no_clock() -> None:
    """It may begin before there is a loop, and a finite one does not end it."""
    spell = Spell()
    spell.begin()
    assert spell.on
    other = Spell()
    with pytest.raises(RuntimeError):
        other.begin(1)


def test_what_waits_meets_the_first_call_that_it_concerns() -> None:
    """In the order added, each once, others pass by."""
    waiting: Waiting[str] = Waiting()
    waiting.add("exits", (Message.EXIT,), count=2)
    waiting.add("any")
    calls = (Message.ENTRY, Message.EXIT, Message.READ, Message.EXIT, Message.EXIT)
    assert [waiting.take(message) for message in calls] == ["any", "exits", None, "exits", None]
    assert len(waiting) == 0
