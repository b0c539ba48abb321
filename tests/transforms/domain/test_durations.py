import pytest
from hypothesis import given
from hypothesis import strategies as st

from transforms.domain.durations import parse_duration_ms


@pytest.mark.parametrize(
    ("text", "ms"),
    [
        ("0s", 0),
        ("1ms", 1),
        ("500ms", 500),
        ("10s", 10_000),
        ("30m", 1_800_000),
        ("2h", 7_200_000),
        ("7d", 604_800_000),
    ],
)
def test_a_whole_number_with_a_unit_is_a_duration(text: str, ms: int) -> None:
    assert parse_duration_ms(text) == ms
    assert parse_duration_ms(f" {text}\n") == ms


@given(st.integers(0, 10_000), st.sampled_from([("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000)]))
def test_units_are_exact(number: int, unit: tuple[str, int]) -> None:
    assert parse_duration_ms(f"{number}{unit[0]}") == number * unit[1]


@pytest.mark.parametrize(
    "text", ["", "10", "s", "-1s", "+1s", "1.5h", "10 s", "10S", "1w", "1h30m", "ten", "1e3s", "٣s"]
)
def test_anything_else_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match="is not a duration; use a whole number with ms, s, m, h or d, such as 10s"):
        parse_duration_ms(text)


@pytest.mark.parametrize("text", ["36501d", "99999999999999999999s"])
def test_a_duration_beyond_a_century_is_refused_as_no_clock_of_ours_could_hold_it(text: str) -> None:
    with pytest.raises(ValueError, match="is longer than 100 years"):
        parse_duration_ms(text)
    assert parse_duration_ms("36500d") == 36_500 * 86_400_000
