"""Message headers from the client, and a substitute for those that it cannot return."""

from __future__ import annotations

from collections.abc import Iterable
from operator import methodcaller

from confluent_kafka import Message

from transforms.errors import UNREADABLE_HEADERS

__all__ = ["headers_of", "headers_of_message"]

_headers = methodcaller("headers")  # not `message.headers()`: see headers_of_message


def headers_of(messages: Iterable[Message]) -> dict[int, list[tuple[str, bytes | None]]]:
    """Number → headers, of the messages that have any; see `headers_of_message`."""
    return {i: headers for i, message in enumerate(messages) if (headers := headers_of_message(message))}


def headers_of_message(message: Message) -> list[tuple[str, bytes | None]] | None:
    """The headers; when a name is not UTF-8, the client gives none of them, and one of ours says so. The record may be
    good.

    confluent_kafka 2.16 returns such headers half made, and with an error set. A call through C is checked for that and
    raises SystemError; one that CPython 3.11 has specialised, as it does after eight of them, is not, and the error
    comes out of some later line. Asked again, the client returns what it has half made without an error, and whoever
    looks at that crashes the process: so ours take the place of it.
    """
    try:
        return _headers(message)  # type: ignore[no-any-return]
    except (SystemError, UnicodeDecodeError):
        message.set_headers([(UNREADABLE_HEADERS, None)])
        return message.headers()
