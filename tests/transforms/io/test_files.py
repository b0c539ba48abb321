"""Files as input: what is a record in them, and what the job refuses before it starts."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
from pathlib import Path
from typing import Any

import fastavro
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import codec
from schemas.events import avro_schema
from tests.build import order
from transforms.blocks import Block
from transforms.io import files
from transforms.io.files import lines, match_files


def read(path: Path) -> list[Block]:
    return list(files._ReadFileFn(0).process(str(path)))


def read_lines(raw: bytes) -> list[bytes]:
    return [line.data for line in lines(io.BytesIO(raw))]


def avro(path: Path, codec_name: str = "deflate") -> Path:
    with path.open("wb") as out:
        schema = fastavro.parse_schema(avro_schema("OrderEvent"))
        fastavro.writer(out, schema, [json.loads(codec.to_json(order()))], codec=codec_name)
    return path


# Lines


@given(
    st.lists(st.sampled_from([b"{}", b"", b" ", b"\t ", b"\x00", "ü".encode(), b"a" * 50]), max_size=12), st.booleans()
)
def test_lines_are_what_is_between_line_ends_and_blank_ones_are_none(found: list[bytes], ended: bool) -> None:
    for end in (b"\n", b"\r\n"):
        raw = end.join(found) + (end if ended else b"")
        assert read_lines(raw) == [line for line in found if line.strip()]


@given(st.binary(max_size=60), st.integers(1, 7))
def test_lines_do_not_depend_on_how_the_file_is_read(raw: bytes, chunk: int) -> None:
    whole = read_lines(raw)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "_CHUNK", chunk + 3)
        assert read_lines(raw) == whole


@pytest.mark.parametrize("chunk", [1, 1 << 20])
def test_a_byte_order_mark_before_a_line_is_none_of_its_bytes(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_CHUNK", chunk)
    # Files with a mark, one appended to another.
    assert read_lines(b'\xef\xbb\xbf{"a":1}\n{"a":2}\n\xef\xbb\xbf{"a":3}\r\n\xef\xbb\xbf') == [
        b'{"a":1}',
        b'{"a":2}',
        b'{"a":3}',
    ]


@pytest.mark.parametrize("chunk", [64, 1 << 10])
def test_a_line_longer_than_any_record_is_one_broken_record_with_its_head(
    chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "_CHUNK", chunk)
    monkeypatch.setattr(files, "_LONGEST_LINE", 500)
    monkeypatch.setattr(files, "_LINE_HEAD", 10)
    first, broken, last = lines(io.BytesIO(b"{}\n" + b"x" * 501 + b"\n" + b"y" * 500))
    assert (first.data, last.data) == (b"{}", b"y" * 500)
    assert (broken.data, broken.broken) == (b"x" * 10, "a line of 501 bytes is longer than 500; its head is here")


def test_a_block_of_long_lines_is_bounded_by_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_BLOCK_BYTES", 250)
    (tmp_path / "a.jsonl").write_bytes(b"\n".join(b"%0100d" % i for i in range(7)))
    blocks = read(tmp_path / "a.jsonl")
    assert [len(block) for block in blocks] == [3, 3, 1]
    assert [int(o) for block in blocks for o in block.offsets] == list(range(7))


# Containers


@pytest.mark.parametrize(("raw", "why"), [(b"", "the file is empty"), (b"order_id;", "not an Avro object container")])
def test_what_is_no_container_file_is_one_broken_record_that_says_so(tmp_path: Path, raw: bytes, why: str) -> None:
    (tmp_path / "a.avro").write_bytes(raw)
    (block,) = read(tmp_path / "a.avro")
    assert len(block) == 1
    assert why in block.broken[0]


# Which files


def test_a_path_that_exists_is_taken_as_it_is(tmp_path: Path) -> None:
    literal = tmp_path / "orders[v1].jsonl"
    literal.write_text("{}\n")
    (tmp_path / "ordersv.jsonl").write_text("{}\n")
    assert match_files(str(literal)) == [str(literal)]
    assert match_files(str(tmp_path / "orders[uvw].jsonl")) == [str(tmp_path / "ordersv.jsonl")]
    (tmp_path / "of[2026]").mkdir()
    (tmp_path / "of[2026]" / "a?.jsonl").write_text("{}\n")
    assert match_files(str(tmp_path / "of[2026]")) == [str(tmp_path / "of[2026]" / "a?.jsonl")]
    assert match_files(str(tmp_path / "of[2026]" / "a?.jsonl")) == [str(tmp_path / "of[2026]" / "a?.jsonl")]


@pytest.mark.parametrize("glob", ["*.jsonl", "order*", "orders?.jsonl", "orders[uvw].jsonl"])
def test_a_glob_without_a_folder_is_of_this_one(glob: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ordersv.jsonl").write_text("{}\n")
    monkeypatch.chdir(tmp_path)
    assert match_files(glob) == ["ordersv.jsonl"]


def test_a_folder_named_like_a_file_is_a_folder(tmp_path: Path) -> None:
    (tmp_path / "day.jsonl").mkdir()
    (tmp_path / "day.jsonl" / "a.jsonl").write_text("{}\n")
    assert match_files(str(tmp_path / "day.jsonl")) == [str(tmp_path / "day.jsonl" / "a.jsonl")]


@pytest.mark.parametrize(
    ("name", "make", "why"),
    [
        ("a.jsonl", lambda path: path.write_bytes(gzip.compress(b"{}\n")), "packed with gzip"),
        ("a.jsonl", lambda path: path.write_bytes(lzma.compress(b"{}\n")), "packed with xz"),
        ("a.jsonl", lambda path: path.write_bytes(bz2.compress(b"{}\n")), "packed with bzip2"),
        ("a.jsonl", lambda path: path.write_text("{}\n", "utf-16"), "UTF-16"),
        ("a.jsonl", lambda path: path.write_bytes("\ufeff{}\n".encode("utf-16-be")), "UTF-16"),
        ("a.jsonl", lambda path: path.write_text("{}\n", "utf-32"), "UTF-32"),
        ("a.jsonl", lambda path: avro(path.with_name("b.avro")).rename(path), "an Avro file"),
        ("a.avro", lambda path: path.write_bytes(b"PAR1\0\0PAR1"), "a Parquet file"),
        ("a.avro", lambda path: path.write_bytes(gzip.compress(b"Obj")), "packed with gzip"),
        ("a.avro", lambda path: path.write_bytes(avro(path).read_bytes().replace(b"deflate", b"deflatf")), "deflatf"),
        ("a.csv", lambda path: path.write_text("{}"), "neither .avro nor .jsonl"),
        ("a.jsonl.gz", lambda path: path.write_bytes(gzip.compress(b"{}\n")), "neither .avro nor .jsonl"),
    ],
)
def test_what_cannot_be_read_though_nothing_is_wrong_with_it_is_refused_before_the_start(
    tmp_path: Path, name: str, make: Any, why: str
) -> None:
    make(tmp_path / name)
    with pytest.raises(ValueError, match=why):
        match_files(str(tmp_path / name))


def test_a_file_that_may_not_be_read_is_refused_before_the_start(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").symlink_to(tmp_path / "a.jsonl")  # a loop: also the superuser cannot open it
    (tmp_path / "b").mkdir()
    if os.geteuid():
        (tmp_path / "b" / "a.jsonl").write_text("{}\n")
        (tmp_path / "b" / "a.jsonl").chmod(0)
        with pytest.raises(OSError, match="ermission"):
            match_files(str(tmp_path / "b" / "a.jsonl"))
    with pytest.raises((OSError, ValueError)):
        match_files(str(tmp_path / "a.jsonl"))


@pytest.mark.parametrize("codec_name", ["null", "bzip2", "snappy", "xz", "zstandard"])
def test_files_of_every_codec_are_read(tmp_path: Path, codec_name: str) -> None:
    (block,) = read(avro(tmp_path / "a.avro", codec_name))
    assert (len(block), block.broken) == (1, {})
