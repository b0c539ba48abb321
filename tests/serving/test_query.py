from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving import query
from serving.query import InvalidQuery
from serving.store import Position

ANY_TIME = st.datetimes(
    min_value=datetime(1, 1, 3),
    max_value=datetime(9999, 12, 29),
    timezones=st.builds(lambda m: timezone(timedelta(minutes=m)), st.integers(-1439, 1439)),
)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@given(time_ms=st.integers(0, 253_402_300_799_999), alert_id=st.text(max_size=60))
def test_a_cursor_brings_its_position_back(time_ms, alert_id):
    position = Position(time_ms, alert_id)
    assert query.listing({"cursor": query.cursor_text(position)}).after == position


@given(text=st.text() | st.text("ABCDwxyz0189-_=", max_size=40) | st.binary().map(lambda b: b.hex()))
def test_a_made_up_cursor_is_refused_or_a_position(text):
    try:
        after = query.listing({"cursor": text}).after
    except InvalidQuery:
        return  # any other error fails the test
    assert after.time_ms >= 0


@pytest.mark.parametrize("text", ["1", "100", "1000", "007"])
def test_a_limit_from_1_to_1000_is_taken(text):
    assert query.listing({"limit": text}).limit == int(text)


@pytest.mark.parametrize("text", ["", "0", "1001", "-1", "1.5", "ten", "١٠", "²", " 5", "1e2", "9" * 5000])
def test_any_other_limit_is_refused(text):
    with pytest.raises(InvalidQuery, match="limit must be a whole number from 1 to 1000"):
        query.listing({"limit": text})


@given(moment=ANY_TIME)
def test_since_and_until_keep_exactly_the_milliseconds_inside_them(moment):
    text = moment.isoformat()
    if text[-3] != ":":
        return  # an offset with seconds is not RFC 3339
    wanted = query.listing({"since": text, "until": (moment + timedelta(milliseconds=5)).isoformat()})
    assert EPOCH + timedelta(milliseconds=wanted.since_ms) >= moment
    assert EPOCH + timedelta(milliseconds=wanted.since_ms - 1) < moment
    assert EPOCH + timedelta(milliseconds=wanted.until_ms) <= moment + timedelta(milliseconds=5)


@pytest.mark.parametrize(
    "text",
    [
        "2026-11-22T10:00:00Z",
        "2026-11-22t10:00:00z",
        "2026-11-22 10:00:00Z",
        "2026-11-22T13:00:00+03:00",
        "2026-11-22T10:00:00.0Z",
        "2026-11-22T10:00:00.000000000Z",
    ],
)
def test_every_form_of_rfc_3339_is_read(text):
    assert query.listing({"since": text}).since_ms == 1_795_341_600_000


@pytest.mark.parametrize(
    "text",
    [
        "",
        "now",
        "1795341600",
        "2026-11-22",
        "2026-11-22T10:00:00",
        "2026-W47-7T10:00:00Z",
        "20261122T100000Z",
        "2026-11-22T10:00Z",
        "2026-02-30T10:00:00Z",
        "2026-11-22T25:00:00Z",
        "2026-11-22T10:00:00 03:00",
        "2026-11-22T10:00:00+99:00",
        "0000-01-01T00:00:00Z",
        "２０２６-11-22T10:00:00Z",
    ],
)
def test_other_times_are_refused_with_an_example(text):
    with pytest.raises(InvalidQuery, match="until must be an RFC 3339 time such as 2026-11-22T10:00:00Z"):
        query.listing({"until": text})


def test_since_after_until_is_refused():
    with pytest.raises(InvalidQuery, match="since must not be later than until"):
        query.listing({"since": "2026-11-22T10:00:01Z", "until": "2026-11-22T10:00:00Z"})


@pytest.mark.parametrize("text", ["u", "user-1", "A.b_c:d@e+f=g~h", "x" * 128])
def test_ordinary_user_ids_are_taken(text):
    assert query.user_id(text) == text


@pytest.mark.parametrize("text", ["", "x" * 129, "a b", "a\n", "a/b", "a*", "a\x00", "ü", "{a}", "%00"])
def test_other_user_ids_are_refused(text):
    with pytest.raises(InvalidQuery, match="a user id is"):
        query.user_id(text)
