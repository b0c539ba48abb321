from __future__ import annotations

import pytest

from transforms.domain.sizes import parse_size_bytes


@pytest.mark.parametrize(("text", "size"), [("1KiB", 1_024), ("64MiB", 64 << 20), (" 2GiB ", 2 << 30)])
def test_a_size_is_a_whole_number_with_a_unit(text: str, size: int) -> None:
    assert parse_size_bytes(text) == size


@pytest.mark.parametrize("text", ["", "64", "64MB", "0MiB", "-1MiB", "1.5MiB", "٣MiB", "MiB", "1 MiB"])
def test_anything_else_is_refused_by_name(text: str) -> None:
    with pytest.raises(ValueError, match="is not a size"):
        parse_size_bytes(text)
