"""A decision in a follower's words, as a waterfall, and each of its steps recomputed from its record."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal, localcontext

from srm_agent.domain.decisions import Decision, Step
from srm_agent.domain.units import ONE, ZERO, floor_to_step, plain
from srm_agent.risk.rules import EXACT, RULES
from srm_agent.risk.texts import Language, Phrases, Texts, texts

_ASKED = ("base_risk", "base_fixed", "copy_multiplier")
"""What the follower's own settings say; everything after it is ours to explain."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WaterfallBar:
    """One bar: `change` = lot_out - lot_in; the bars chain and the last one ends in the lot sent."""

    rule: str
    label: str
    lot_in: Decimal
    lot_out: Decimal

    @property
    def change(self) -> Decimal:
        """What the rule added (+) or took (-), lots."""
        return self.lot_out - self.lot_in


def recompute(step: Step) -> Decimal:
    """The step's `lot_out` from nothing but its record (INV-18). Raises ValueError for a rule that does not exist."""
    rule = RULES.get(step.rule)
    if rule is None:
        raise ValueError(f"unknown lot rule, was {step.rule!r}")
    with localcontext(EXACT):
        return rule(step.inputs, step.lot_in)


def waterfall(decision: Decision, language: Language = Language.EN) -> tuple[WaterfallBar, ...]:
    """The steps with people's labels; empty for a signal refused before its lot was computed."""
    labels = texts(language).rule
    return tuple(
        WaterfallBar(rule=step.rule, label=labels[step.rule], lot_in=step.lot_in, lot_out=step.lot_out)
        for step in decision.steps
    )


def sentence(decision: Decision, language: Language = Language.EN) -> str:
    """What happened to the signal and why, in one or two sentences; the lot's biggest change is named."""
    words = texts(language)
    with localcontext(EXACT):
        return _refused(decision, words) if not decision.accepted else _accepted(decision, words)


def _accepted(decision: Decision, words: Texts) -> str:
    phrases = Phrases(words, decision.inputs)
    values = {
        "side": words.word[decision.side.word],
        "symbol": decision.symbol,
        "lot": _text(decision.lot),
        "stop": _text(decision.stop_loss),
        "risk": _risk_in_account_currency(decision),
    }
    asked = _asked_lot(decision)
    cause = _biggest_change(decision)
    if cause is None or asked == decision.lot:
        return phrases.fill(words.frame["accepted"], values)
    values |= {"asked": _text(asked), "cause": _cause(cause, words, phrases)}
    return phrases.fill(words.frame["accepted_changed"], values)


def _refused(decision: Decision, words: Texts) -> str:
    phrases = Phrases(words, decision.inputs)
    values = {
        "side": words.word[decision.side.word],
        "symbol": decision.symbol,
        "reason": phrases.fill(words.reason[decision.reason.value], decision.numbers),
    }
    cause = _biggest_change(decision, ("lot_step", "lot_min", "min_notional"))
    if cause is None:
        return phrases.fill(words.frame["refused"], values)
    return phrases.fill(words.frame["refused_size"], values | {"cause": _cause(cause, words, phrases)})


def _asked_lot(decision: Decision) -> Decimal | None:
    """What the settings alone would have sent, on the broker's grid."""
    asked: Decimal | None = None
    for step in decision.steps:
        if step.rule in _ASKED:
            asked = step.lot_out
        elif step.rule == "lot_step" and asked is not None:
            asked = floor_to_step(asked, Decimal(step.inputs["lot_step"])) or asked
    return asked


def _biggest_change(decision: Decision, besides: tuple[str, ...] = ()) -> Step | None:
    """The step that changed the lot by the largest ratio, among those that are not the follower's own settings."""
    changes = [
        (_ratio(step), -number, step)
        for number, step in enumerate(decision.steps)
        if step.rule not in _ASKED and step.rule not in besides and step.lot_in != step.lot_out
    ]
    return max(changes)[2] if changes else None


def _ratio(step: Step) -> Decimal:
    small, large = sorted((step.lot_in, step.lot_out))
    return Decimal("Infinity") if small == ZERO else large / small


def _cause(step: Step, words: Texts, phrases: Phrases) -> str:
    change = (step.lot_out - step.lot_in) / step.lot_in if step.lot_in else ZERO
    key = f"{step.rule}_up" if change > 0 else step.rule
    cut = max(min(-change, ONE), ZERO)
    values = {**step.inputs, "cut": plain(cut), "raise": plain(max(change, ZERO))}
    return phrases.fill(words.cause[key], values)


def _risk_in_account_currency(decision: Decision) -> str:
    rate = decision.inputs.get("conversion")
    if decision.planned_risk is None or rate is None:
        return ""
    return plain(decision.planned_risk * Decimal(rate))


def _text(value: Decimal | None) -> str:
    return "" if value is None else plain(value)
