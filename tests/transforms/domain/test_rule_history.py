"""Which entries of a history count, and which version is in force when."""

from __future__ import annotations

import random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from transforms.domain.fraud_rules import RuleError, default_rules
from transforms.domain.rule_history import (
    END_MS,
    LEAD_MS,
    Activation,
    Entry,
    RuleHistory,
    Version,
    Written,
    key_of,
    sha256_of,
)
from transforms.domain.rules_in_force import RulesInForce

TEXT = "{version: 1, currency: TRY, rules: {R: {kind: burst, orders: 3, within: 5m, risk_score: 0.9}}}"


def a_version(number: int, text: str = TEXT, who: str = "ada") -> Version:
    return Version(number, text, sha256_of(text), who, 0)


def an_activation(number: int, version: int, from_ms: int, who: str = "ada") -> Activation:
    return Activation(number, version, from_ms, who, 0)


def written(entry: Entry, at_ms: int) -> Written:
    return Written(msgspec.json.encode(entry), at_ms)


def history_of(texts: list[str], activations: list[tuple[int, int]]) -> RuleHistory:
    """Of versions 1, 2, …, and of what is activated: (from which event time, version)."""
    entries = [written(a_version(number, text), 0) for number, text in enumerate(texts, 1)]
    for number, (from_ms, version) in enumerate(activations, 1):
        entries.append(written(an_activation(number, version, from_ms), from_ms - LEAD_MS))
    return RuleHistory().after(entries)


def test_a_version_is_in_force_from_its_time_on_until_another_is() -> None:
    history = history_of([TEXT, TEXT], [(100, 1), (200, 2), (300, 1), (400, 0)])
    assert [history.at(ms) for ms in (99, 100, 199, 200, 299, 300, 399, 400)] == [0, 1, 1, 2, 2, 1, 1, 0]


def test_of_two_activations_at_one_instant_the_later_written_counts() -> None:
    history = history_of([TEXT, TEXT], [(100, 1), (100, 2)])
    assert [history.at(99), history.at(100)] == [0, 2]


def test_one_that_is_scheduled_stays_so_when_another_takes_effect_before() -> None:
    history = history_of([TEXT, TEXT], [(500, 1), (100, 2)])
    assert [history.at(ms) for ms in (100, 499, 500)] == [2, 2, 1]


def test_what_was_in_force_before_is_the_last_other_version() -> None:
    history = history_of([TEXT, TEXT, TEXT], [(100, 1), (200, 3), (300, 3)])
    assert [history.before(ms) for ms in (99, 100, 200, 300)] == [None, 0, 1, 1]
    called_off = history_of([TEXT, TEXT], [(100, 1), (500, 2), (500, 1)])
    assert called_off.before(600) == 0, "2 never was in force"


@pytest.mark.parametrize(
    ("entry", "at_ms", "why"),
    [
        (a_version(1, who="bob"), 0, "version 1 by bob: the number is taken"),
        (a_version(0), 0, "version 0 by ada: the number is taken"),
        (Version(2, TEXT, "0" * 64, "ada", 0), 0, "version 2 by ada: the text is not that of its SHA-256"),
        (an_activation(1, 1, 10**9), 0, "activation 1 of version 1 by ada: the number is taken"),
        (an_activation(2, 7, 10**9), 0, "activation 2 of version 7 by ada: there is no such version"),
        (an_activation(2, 1, 9_000), 9_000 - LEAD_MS + 100, "activation 2 of version 1 by ada: written 0.1 s too late"),
        (an_activation(2, 1, END_MS), 0, "activation 2 of version 1 by ada: for after the year 9999"),
        (Version(2, TEXT, sha256_of(TEXT), "ada", END_MS), 0, f"an entry by ada: no time of day is {END_MS}"),
    ],
)
def test_what_does_not_count_changes_nothing_and_is_said(entry: Entry, at_ms: int, why: str) -> None:
    before = history_of([TEXT], [(5_000, 1)])
    after = before.after([written(entry, at_ms)])
    assert after.void == (why,)
    assert (after.versions, after.activations) == (before.versions, before.activations)


def test_an_activation_counts_if_it_was_written_just_in_time() -> None:
    history = history_of([TEXT], []).after([written(an_activation(1, 1, 9_000), 9_000 - LEAD_MS)])
    assert history.at(9_000) == 1


DEEP = b'{"kind":"version","a":' + b"[" * 100_000
SPOILT = b'{"kind":"version","number":1,"text":"\xff"}'


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"[]",
        b"\xff",
        b'{"kind":"other"}',
        b'{"kind":"version","number":"1"}',
        SPOILT,
        pytest.param(DEEP, id="deep"),
    ],
)
def test_what_cannot_be_read_is_void(value: bytes) -> None:
    history = RuleHistory().after([Written(value, 0)])
    assert len(history.void) == 1
    assert "cannot be read" in history.void[0]


def test_fields_of_a_newer_release_are_ignored() -> None:
    value = msgspec.json.encode({**msgspec.json.decode(msgspec.json.encode(a_version(1))), "ticket": "F-7"})
    assert RuleHistory().after([Written(value, 0)]).versions == {1: a_version(1)}


def test_two_who_write_the_same_number_do_not_share_a_key_that_compaction_would_keep_one_of() -> None:
    assert key_of(a_version(1)) != key_of(a_version(1, who="bob"))
    assert key_of(a_version(1)).startswith("version:1:")
    assert key_of(an_activation(4, 1, 0)).startswith("activation:4:")


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 3)), max_size=8), st.randoms(use_true_random=False))
def test_read_at_once_or_piece_by_piece_it_is_the_same(
    activations: list[tuple[int, int]], chance: random.Random
) -> None:
    entries = [written(a_version(number), 0) for number in (1, 2, 3)]
    entries += [written(an_activation(n, v, 10_000 + at), at) for n, (at, v) in enumerate(activations, 1)]
    at_once, piecemeal = RuleHistory().after(entries), RuleHistory()
    while entries:
        size = chance.randint(1, 3)
        piecemeal, entries = piecemeal.after(entries[:size]), entries[size:]
    assert at_once == piecemeal


def test_a_version_that_this_release_cannot_read_matters_once_it_is_activated() -> None:
    newer = "{version: 9, currency: TRY, rules: {}}"
    RulesInForce(default_rules(), history_of([newer], []))
    with pytest.raises(RuleError, match="version 1 of the rules: version: 9 is not known"):
        RulesInForce(default_rules(), history_of([newer], [(10_000, 1)]))
