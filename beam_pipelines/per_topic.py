"""A flag's value that may differ from topic to topic: `json` for all, `json,clicks=confluent` for all but one."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

__all__ = ["NamedTwiceError", "PerTopic", "pattern", "per_topic"]

T = TypeVar("T")
U = TypeVar("U")

_TOPIC = "[A-Za-z0-9._-]+"
# A comma may also be part of a path.
_BETWEEN = re.compile(rf",(?={_TOPIC}=)")
_NAMED = re.compile(rf"({_TOPIC})=(.*)", re.DOTALL)


class NamedTwiceError(ValueError):
    """What no regular expression can tell."""


@dataclass(frozen=True)
class PerTopic(Generic[T]):
    """
    Attributes:
      rest: for files and for topics that are not named; None: nothing was said.
    """

    rest: T | None = None
    named: dict[str, T] = field(default_factory=dict)

    def of(self, topic: str | None) -> T | None:
        return self.rest if topic is None else self.named.get(topic, self.rest)

    def each(self, convert: Callable[[T], U]) -> PerTopic[U]:
        rest = None if self.rest is None else convert(self.rest)
        return PerTopic(rest, {topic: convert(value) for topic, value in self.named.items()})

    def check(self, topics: Iterable[str]) -> None:
        """Raises: ValueError: a topic is named that is none of these."""
        if unknown := sorted(self.named.keys() - set(topics)):
            raise ValueError(f"names the topic {unknown[0]}, which is not an --input")


def per_topic(text: str, choices: tuple[str, ...] = ()) -> PerTopic[str]:
    """Raises: ValueError."""
    rest, named = None, dict[str, str]()
    for number, part in enumerate(_BETWEEN.split(text)):
        found = _NAMED.fullmatch(part)
        topic, value = found.groups() if found else (None, part)
        if topic is None and number:
            raise ValueError(f"{part!r}: what is for all topics comes first")
        if topic in named:
            raise NamedTwiceError(f"names the topic {topic} twice")
        if not value or (choices and value not in choices):
            raise ValueError(f"{value!r} is not one of {', '.join(choices)}" if choices else "is empty")
        if topic is None:
            rest = value
        else:
            named[topic] = value
    return PerTopic(rest, named)


def pattern(value: str) -> str:
    """Of such a flag in a template."""
    one = f"{_TOPIC}=({value})"
    return f"(({value})|{one})(,{one})*"
