"""Headers as the client gives them, and what stands for those that it cannot give."""

from __future__ import annotations

from typing import Any

import pytest

from transforms.errors import UNREADABLE_HEADERS
from transforms.io.kafka.blocks import headers_of


class Message:
    """What of a message is asked here; with a name that is not UTF-8, confluent_kafka 2.16 raises these."""

    def __init__(self, headers: Any):
        self._headers = headers

    def headers(self) -> Any:
        if isinstance(self._headers, Exception):
            raise self._headers
        return self._headers


@pytest.mark.parametrize("error", [SystemError("x"), UnicodeDecodeError("utf-8", b"\xff", 0, 1, "x")])
def test_a_message_whose_header_names_cannot_be_read_costs_no_other_its_headers(error: Exception) -> None:
    messages: Any = [Message([("a", b"1")]), Message(error), Message(None), Message([("b", None), ("b", b"\xff")])]
    assert headers_of(messages) == {
        0: [("a", b"1")],
        1: [(UNREADABLE_HEADERS, None)],
        3: [("b", None), ("b", b"\xff")],
    }
    assert headers_of(messages[1:2]) == {0: [(UNREADABLE_HEADERS, None)]}
