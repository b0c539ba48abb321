"""Letters of any size through places with any limit."""

from __future__ import annotations

import gzip
import io
import json
import random
import tracemalloc

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.build import T0
from transforms.errors import BadRecord
from transforms.letter_envelopes import LEAST_LIMIT, NO_LIMIT, cut_of, envelopes, read_envelope


def letter(payload: bytes | None, **changes: object) -> BadRecord:
    fields = {
        "payload": payload,
        "job": "fraud-detector",
        "stage": "decode",
        "error_class": "Undecodable",
        "error_message": "broken",
        "topic": "transactions.orders",
        "partition": 3,
        "offset": 77,
        "timestamp": T0,
        "key": b"u-1",
        "headers": [("trace", b"7")],
        "schema_id": 1,
        "attempts": 2,
        "seen_at": T0 + 1,
    }
    return BadRecord(**(fields | changes))


noise = random.Random(1).randbytes


@pytest.mark.parametrize("limit", [1_048_588, NO_LIMIT])
def test_a_letter_that_fits_is_written_as_it_always_was(limit: int) -> None:
    small = letter(b"\x00 broken")
    assert next(envelopes(small, limit)) == small.to_json()
    assert (read_envelope(small.to_json()), cut_of(small.to_json())) == (small, None)


def test_a_large_one_is_compressed_and_read_back_whole() -> None:
    large = letter(b"spam and eggs" * 700_000)
    written = next(envelopes(large, 1_048_588))
    assert len(written) < 100_000
    assert json.loads(written)["compressed"] == "gzip"
    assert (read_envelope(written), cut_of(written)) == (large, None)


def test_what_stays_too_large_keeps_its_head_and_says_what_the_rest_was() -> None:
    large = letter(noise(900_000))
    (written,) = envelopes(large, 1_000_000)
    found, cut = read_envelope(written), cut_of(written)
    assert large.payload
    assert found.payload == large.payload[:4_096]
    assert (found.topic, found.partition, found.offset, found.attempts) == ("transactions.orders", 3, 77, 2)
    assert cut
    assert cut.fits(large.payload)
    assert not cut.fits(large.payload[:-1])
    assert not cut.fits(large.payload[:-1] + b"\0")


def test_where_there_is_no_limit_nothing_is_cut() -> None:
    large = letter(noise(3_000_000))
    assert read_envelope(next(envelopes(large, NO_LIMIT))) == large


texts = st.text(max_size=20).map(lambda text: text * 2_000)


@given(
    payload=st.none() | st.integers(0, 100_000).map(noise) | st.integers(0, 5_000_000).map(bytes),
    key=st.none() | st.integers(0, 100_000).map(noise),
    headers=st.lists(st.tuples(texts, st.none() | st.integers(0, 100_000).map(noise)), max_size=3),
    message=texts,
    limit=st.integers(LEAST_LIMIT, 200_000),
)
def test_whatever_the_record_there_is_an_envelope_that_fits_and_says_where_it_is_from(
    payload: bytes | None,
    key: bytes | None,
    headers: list[tuple[str, bytes | None]],
    message: str,
    limit: int,
) -> None:
    record = letter(payload, key=key, headers=headers, error_message=message)
    found = list(envelopes(record, limit))
    for written in found:
        assert len(written) <= limit
        read, cut = read_envelope(written), cut_of(written)
        assert (read.topic, read.partition, read.offset, read.seen_at) == ("transactions.orders", 3, 77, T0 + 1)
        assert read == record or (cut is not None and cut.fits(payload or b""))
    assert len(found[-1]) <= LEAST_LIMIT


@pytest.mark.parametrize("spoilt", [b"not gzip", b"\x1f\x8b\x08\x00"])
def test_an_envelope_whose_compressed_payload_is_spoilt_cannot_be_read(spoilt: bytes) -> None:
    fields = json.loads(letter(spoilt).to_json()) | {"compressed": "gzip"}
    with pytest.raises(ValueError, match="compressed"):
        read_envelope(json.dumps(fields).encode())


def test_a_letter_that_would_unpack_to_a_gigabyte_cannot_be_read() -> None:
    """Nor does it take the memory, whoever wrote it to the topic."""
    packed = io.BytesIO()
    with gzip.GzipFile(fileobj=packed, mode="wb", compresslevel=1) as out:
        for _ in range(300):
            out.write(bytes(1 << 20))
    fields = json.loads(letter(packed.getvalue()).to_json()) | {"compressed": "gzip"}
    tracemalloc.start()
    try:
        with pytest.raises(msgspec.DecodeError, match="of more than"):
            read_envelope(json.dumps(fields).encode())
        assert tracemalloc.get_traced_memory()[1] < 280 << 20
    finally:
        tracemalloc.stop()
