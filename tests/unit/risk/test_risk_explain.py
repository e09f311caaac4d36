"""Decisions in people's words."""

import re
from dataclasses import replace
from decimal import Decimal

import pytest

from srm_agent.domain.decisions import ReasonCode, Step
from srm_agent.domain.policies import SizeMode
from srm_agent.risk.explain import recompute, sentence, waterfall
from srm_agent.risk.inputs import DecisionInputs
from srm_agent.risk.pipeline import decide
from srm_agent.risk.rules import RULES
from srm_agent.risk.texts import Language, texts


@pytest.mark.parametrize("language", list(Language))
def test_every_reason_and_rule_has_its_text(language: Language) -> None:
    """No reason code, rule label or cause is missing, and none is left over."""
    words = texts(language)
    assert set(words.reason) == {code.value for code in ReasonCode}
    assert set(words.rule) == set(RULES)
    assert set(words.cause) == {*RULES, "score_multiplier_up"}
    everything = [*words.reason.values(), *words.rule.values(), *words.cause.values(), *words.frame.values()]
    assert all(everything)


def test_both_languages_speak_of_the_same_numbers() -> None:
    """A translation has exactly the placeholders of the original."""
    english, indonesian = texts(Language.EN), texts(Language.ID)

    def placeholders(text: str) -> list[str]:
        return sorted(re.findall(r"{[^}]*}", text))

    for section in ("reason", "cause", "frame"):
        for key, text in getattr(english, section).items():
            assert placeholders(text) == placeholders(getattr(indonesian, section)[key]), key


def test_an_accepted_decision_names_what_changed_the_lot_most(inputs: DecisionInputs) -> None:
    """0.43 instead of 0.5 because of the slippage reserve, with stop and money at risk in the account's currency."""
    assert sentence(decide(inputs)) == (
        "Buy 0.43 EURUSD instead of 0.5, because the stop buffer and the slippage to expect take 13 % of it, so that "
        "the risk stays what you chose. Stop at 1.0979, about 94.60 USD at risk to the stop."
    )
    assert sentence(decide(inputs), Language.ID) == (
        "Beli 0,43 EURUSD, bukan 0,5, karena penyangga stop dan perkiraan slippage mengambil 13 %, agar risikonya "
        "tetap seperti pilihan Anda. Stop di 1,0979, risiko sampai stop sekitar 94,60 USD."
    )


def test_the_biggest_cause_is_named_whichever_rule_it_is(inputs: DecisionInputs) -> None:
    """A deep drawdown, a ceiling or the follower's own maximum is named when it cuts most."""
    assert "the account's drawdown takes off 75 %" in sentence(decide(replace(inputs, drawdown=Decimal("0.3"))))
    greedy = replace(inputs, copy=replace(inputs.copy, size_mode=SizeMode.FIXED, fixed_lot=Decimal(10)))
    assert "no trade may risk more than 2 % of the equity" in sentence(decide(greedy))
    modest = replace(inputs, copy=replace(inputs.copy, max_lot=Decimal("0.1")))
    assert "your largest size is 0.1" in sentence(decide(modest))


def test_an_untouched_lot_is_what_the_settings_ask_for(inputs: DecisionInputs) -> None:
    """Without any change the sentence does not invent a cause."""
    assert inputs.forecast is not None
    zero = Decimal(0)
    forecast = replace(inputs.forecast, entry_mean=zero, stop_mean=zero)
    near = replace(
        inputs,
        forecast=forecast,
        signal=replace(inputs.signal, stop_loss=Decimal("1.0993")),
    )
    text = sentence(decide(near))
    assert text.startswith("Buy 1.")
    sized = replace(near, copy=replace(near.copy, size_mode=SizeMode.FIXED, fixed_lot=Decimal("0.3")))
    assert sentence(decide(sized)).startswith("Buy 0.3 EURUSD: the size your settings ask for.")


@pytest.mark.parametrize("language", list(Language))
@pytest.mark.parametrize("code", list(ReasonCode))
def test_every_refusal_reads_as_a_sentence(inputs: DecisionInputs, language: Language, code: ReasonCode) -> None:
    """Every code gives a sentence even without its numbers, with no placeholder left in it."""
    decision = replace(decide(inputs), accepted=False, reason=code, numbers={}, steps=())
    text = sentence(decision, language)
    assert "{" not in text
    assert text.endswith(".")


def test_a_refusal_gives_its_numbers_with_units(inputs: DecisionInputs) -> None:
    """Distances read in pips where there is a pip."""
    assert inputs.quote is not None
    gone = replace(inputs, quote=replace(inputs.quote, bid=Decimal("1.1006"), ask=Decimal("1.1007")))
    assert sentence(decide(gone)) == (
        "Buy EURUSD was not copied: the price has moved 7 pips against the signal; at most 5 pips are accepted."
    )
    assert sentence(decide(gone), Language.ID) == (
        "Beli EURUSD tidak disalin: harga sudah bergerak 7 pip melawan sinyal; batasnya 5 pip."
    )


def test_a_refusal_for_its_size_names_the_biggest_cut(inputs: DecisionInputs) -> None:
    """The follower learns that the smallest lot was the reason, and what made the lot small."""
    assert inputs.equity is not None
    small = replace(inputs, equity=replace(inputs.equity, value=Decimal(200)), drawdown=Decimal("0.3"))
    text = sentence(decide(small))
    assert "0.00217391 lots would be right, but the broker's smallest size is 0.01" in text
    assert "the size was cut most because the account's drawdown takes off 75 %" in text


def test_without_a_pip_distances_read_in_basis_points(inputs: DecisionInputs) -> None:
    """Crypto has no pip: 0.0006 of 1.1 is 5.5 basis points."""
    decision = decide(inputs)
    known = {key: value for key, value in decision.inputs.items() if key != "pip_size"}
    refused = replace(
        decision,
        accepted=False,
        reason=ReasonCode.ENTRY_EXPIRED,
        numbers={"drift": "0.0006", "allowed": "0.0005"},
        steps=(),
        inputs=known,
    )
    assert "5.5 basis points" in sentence(refused)


def test_the_waterfall_ends_in_the_lot_sent(inputs: DecisionInputs) -> None:
    """Bars chain from 0 to the lot, labelled in the follower's language."""
    decision = decide(inputs)
    bars = waterfall(decision, Language.ID)
    assert bars[0].lot_in == 0
    assert bars[-1].lot_out == decision.lot
    assert bars[-1].label == "pembulatan ke bawah"
    assert sum((bar.change for bar in bars), Decimal(0)) == decision.lot


def test_each_step_is_recomputed_alone(inputs: DecisionInputs) -> None:
    """Every stored step gives its lot again from its text; an altered input gives another lot; a strange rule fails."""
    for step in decide(inputs).steps:
        assert recompute(step) == step.lot_out
    base = decide(inputs).steps[0]
    assert recompute(Step(base.rule, {**base.inputs, "equity": "20000"}, base.lot_in, base.lot_out)) == Decimal(1)
    with pytest.raises(ValueError, match="unknown lot rule, was 'magic'"):
        recompute(Step("magic", {}, Decimal(0), Decimal(0)))
