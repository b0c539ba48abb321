from __future__ import annotations

from pathlib import Path

from transforms.io.scratch import ScratchReader, ScratchWriter, make_shards


def test_what_was_added_to_a_shard_is_taken_from_it_once_and_nothing_else(tmp_path: Path) -> None:
    make_shards(str(tmp_path), 3)
    rows, facts = ScratchWriter(str(tmp_path), "rows"), ScratchWriter(str(tmp_path), "facts")
    large = bytes(5 << 20)  # two of these are more than a writer holds
    for shard, data in ((0, b"a"), (2, large), (0, b""), (2, large), (0, b"b" * 300)):
        rows.add(shard, data)
    facts.add(0, b"fact")
    rows.flush()
    facts.flush()
    rows.add(0, b"c")
    rows.flush()
    reader = ScratchReader(str(tmp_path), "rows")
    assert list(reader.take(0)) == [b"a", b"", b"b" * 300, b"c"]
    assert list(reader.take(1)) == []
    assert [len(data) for data in reader.take(2)] == [len(large)] * 2
    assert list(reader.take(0)) == []
    assert list(ScratchReader(str(tmp_path), "facts").take(0)) == [b"fact"]
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == []
