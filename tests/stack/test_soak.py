from __future__ import annotations

import random
from collections.abc import Callable

import pytest
import redis

from schemas.store_keys import KEYS
from stack.soak import _parser, fit, table
from stack.soaked_store import LIFE_S, age, size_bytes

MB = 1e6
HOURS = 0.5


def series(of: Callable[[float, random.Random], float]) -> list[tuple[float, float]]:
    """A sample every five seconds for half an hour, of a function of the hours since the start."""
    chance = random.Random(7)
    return [(at, of(at / 3600, chance)) for at in range(0, int(HOURS * 3600), 5)]


def noise(_hours: float, chance: random.Random) -> float:
    return 100 * MB + chance.gauss(0, 5 * MB)


def saw(hours: float, _chance: random.Random) -> float:
    """As a heap between two collections, four minutes long."""
    return 100 * MB + 50 * MB * (hours * 15 % 1)


@pytest.mark.parametrize("flat", [noise, saw, lambda _h, _c: 100 * MB])
def test_what_goes_up_and_down_does_not_grow(flat: Callable[[float, random.Random], float]) -> None:
    slope = fit(series(flat))
    assert slope
    assert not slope.grows
    assert slope.low <= 0 <= slope.high


@pytest.mark.parametrize("flat", [noise, saw, lambda _h, _c: 100 * MB])
def test_what_gains_a_fifth_in_half_an_hour_grows_however_it_goes_up_and_down(
    flat: Callable[[float, random.Random], float],
) -> None:
    slope = fit(series(lambda hours, chance: flat(hours, chance) + 40 * MB * hours))
    assert slope
    assert slope.grows
    assert slope.low - 1 <= 40 * MB <= slope.high + 1
    assert slope.hours == pytest.approx(HOURS, abs=0.01)


def test_a_sure_slope_that_does_not_matter_is_level() -> None:
    slope = fit(series(lambda hours, _: 100 * MB + 2 * MB * hours))
    assert slope
    assert slope.low > 0
    assert not slope.grows


def test_a_step_does_not_make_a_slope() -> None:
    slope = fit(series(lambda hours, _: 100 * MB + 30 * MB * (hours > 0.45)))
    assert slope
    assert slope.per_hour == 0


def test_too_few_samples_have_no_slope() -> None:
    assert fit(series(noise)[:23]) is None
    assert fit([]) is None


def test_the_table_leaves_the_warm_up_out_and_names_what_grows() -> None:
    warming = series(lambda hours, _: 100 * MB + 100 * MB * min(hours, 0.3))
    rising = series(lambda hours, _: 100 * MB * (1 + hours))
    assert table({"a": warming, "b": rising}, 0.3 * 3600).endswith("\ngrows: b")
    assert table({"a": warming}, 0.3 * 3600).endswith("\nnothing grows")
    assert table({"a": warming}, 0).endswith("\ngrows: a")
    short = table({"c": warming[:3]}, 0)
    assert "| c | | | | | | too few samples |" in short
    assert short.endswith("\ntoo few samples: c"), "what was not measured is not level"
    assert table({}, 0).endswith("\ntoo few samples: everything")


@pytest.mark.parametrize("flag", ["--hours=0", "--hours=nan", "--every=-1", "--warm_up=1", "--hours=soon"])
def test_a_wrong_flag_is_refused(flag: str) -> None:
    with pytest.raises(SystemExit) as stopped:
        _parser().parse_args([flag])
    assert stopped.value.code == 2


@pytest.mark.stack
def test_keys_of_the_store_live_for_minutes_and_one_that_lives_for_ever_is_named(db: redis.Redis) -> None:
    for i in range(3_000):
        db.set(f"days-{i}", 1, ex=7 * 24 * 3600)
    db.set("seconds", 1, ex=30)
    age(db)
    left = [db.ttl(f"days-{i}") for i in range(3_000)]
    assert 0 < min(left) <= max(left) <= LIFE_S
    assert 0 < db.ttl("seconds") <= 30
    db.set("immortal", 1)
    with pytest.raises(RuntimeError, match="immortal is in the store without a time to live"):
        age(db)


@pytest.mark.stack
def test_lists_of_a_fixed_length_do_not_count(db: redis.Redis) -> None:
    before = size_bytes(db)
    db.zadd(KEYS.recent_alerts, {f"{i:01000}": i for i in range(3_000)})
    assert size_bytes(db) - before < 1 * MB
    db.zadd("others", {f"{i:01000}": i for i in range(3_000)})
    assert size_bytes(db) - before > 3 * MB
