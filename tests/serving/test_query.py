from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.ids import is_id
from serving import query
from serving.query import InvalidQuery
from serving.store import Position

ANY_TIME = st.datetimes(
    min_value=datetime(1, 1, 3),
    max_value=datetime(9999, 12, 29),
    timezones=st.builds(lambda m: timezone(timedelta(minutes=m)), st.integers(-1439, 1439)),
)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def listing(given):
    by_name = {parameter.name: parameter for parameter in query.LISTING}
    return query.listing(**query.read(by_name, {name: [text] for name, text in given.items()}))


@given(time_ms=st.integers(0, 253_402_300_799_999), alert_id=st.text(max_size=60))
def test_a_cursor_brings_its_position_back(time_ms, alert_id):
    position = Position(time_ms, alert_id)
    assert listing({"cursor": query.cursor_text(position)}).after == position


@given(text=st.text() | st.text("ABCDwxyz0189-_=", max_size=40) | st.binary().map(lambda b: b.hex()))
def test_a_made_up_cursor_is_refused_or_a_position(text):
    try:
        after = listing({"cursor": text}).after
    except InvalidQuery:
        return  # any other error fails the test
    assert after.time_ms >= 0


@pytest.mark.parametrize("text", ["1", "100", "1000", "007"])
def test_a_limit_from_1_to_1000_is_taken(text):
    assert listing({"limit": text}).limit == int(text)


@pytest.mark.parametrize("text", ["", "0", "1001", "-1", "1.5", "ten", "١٠", "²", " 5", "1e2", "9" * 5000])
def test_any_other_limit_is_refused(text):
    with pytest.raises(InvalidQuery, match="limit must be a whole number from 1 to 1000"):
        listing({"limit": text})


@given(moment=ANY_TIME)
def test_since_and_until_keep_exactly_the_milliseconds_inside_them(moment):
    text = moment.isoformat()
    if text[-3] != ":":
        return  # an offset with seconds is not RFC 3339
    wanted = listing({"since": text, "until": (moment + timedelta(milliseconds=5)).isoformat()})
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
    assert listing({"since": text}).since_ms == 1_795_341_600_000


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
        listing({"until": text})


@given(moment=ANY_TIME)
def test_an_instant_is_not_later_than_itself(moment):
    if (text := moment.isoformat())[-3] == ":":
        listing({"since": text, "until": text})


def test_since_after_until_is_refused():
    with pytest.raises(InvalidQuery, match="since must not be later than until"):
        listing({"since": "2026-11-22T10:00:01Z", "until": "2026-11-22T10:00:00Z"})


@given(st.text(max_size=260) | st.sampled_from(["x" * 256, "😀" * 257]))
def test_an_id_is_taken_exactly_if_a_job_would_store_it(text):
    try:
        assert query.user_id(text) == text
        assert is_id(text)
    except InvalidQuery:
        assert not is_id(text)


@pytest.mark.parametrize("text", ["", "x" * 257, "a\n", "a\x00", "\x7f", "\x85"])
def test_what_no_job_stores_is_refused(text):
    with pytest.raises(InvalidQuery, match="a user id is"):
        query.user_id(text)


@given(st.lists(st.text("ab\n é*", max_size=3) | st.sampled_from(["u", "x" * 256, "x" * 257]), max_size=8))
def test_many_user_ids_are_taken_exactly_if_each_of_them_is(texts):
    def taken(text):
        try:
            return query.user_id(text) == text
        except InvalidQuery:
            return False

    try:
        assert query.user_ids(texts) == texts
        assert all(map(taken, texts))
    except InvalidQuery:
        assert not all(map(taken, texts))


@pytest.mark.parametrize("parameter", [*query.LISTING, query.USER_ID, query.EVENTS, query.ALERT_TYPE])
def test_a_parameter_given_twice_or_unknown_is_refused(parameter):
    by_name = {parameter.name: parameter}
    with pytest.raises(InvalidQuery, match=f"{parameter.name} must be given once"):
        query.read(by_name, {parameter.name: ["1", "1"]})
    with pytest.raises(InvalidQuery, match=f"takes only {parameter.name}, not 'lmit'"):
        query.read(by_name, {"lmit": ["1"]})


@pytest.mark.parametrize(
    ("parameter", "good", "bad"),
    [
        (
            query.EVENTS,
            ["alert", "revenue", "alert,revenue", "alert,alert"],
            ["", "alerts", "alert,", "alert,alert,alert", "ALERT"],
        ),
        (query.ALERT_TYPE, ["RAPID_ORDERS", "a.b-c"], ["", "a b", "ü", "x" * 65, "A*"]),
        (query.LAST_EVENT_ID, ["0-0", "1795341600000-12"], ["", "1", "1-", "-1", "1-2-3", "²-0", "9" * 20 + "-0"]),
        (query.OPEN, ["true", "false"], ["", "1", "True", "yes"]),
    ],
)
def test_other_parameters_take_what_they_say(parameter, good, bad):
    for text in good:
        parameter.read(text)
    for text in bad:
        with pytest.raises(InvalidQuery) as e:
            parameter.read(text)
        assert parameter.name in str(e.value)
