"""How the values of a rules file are read. What cannot be used is refused with its place and the reason."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

import yaml

from schemas import currencies
from transforms.domain.durations import parse_duration_ms

__all__ = ["Amounts", "RuleError", "amounts", "only", "risk_score", "share", "span_ms", "span_text", "whole", "yaml_of"]

Amounts = tuple[tuple[str, int], ...]
"""Currency and minor units, in the order of the currencies."""


# The last three are PyYAML's own on a tag that does not fit: `!!map [a]`, `!!bool x`, `!!timestamp x`.
_NOT_YAML = (yaml.YAMLError, RecursionError, ValueError, TypeError, LookupError, AttributeError)
_MAX_CHARS = 1 << 18
_MOST_VALUES = 20_000
_MOST_DEEP = 40


class RuleError(ValueError):
    """A rules file that cannot be used; the message names the rule and the reason."""


class _StrictLoader(yaml.SafeLoader):
    """YAML lets a later key of the same name win; here one rule would silently disappear."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        names = [key.value for key, _ in node.value]
        for name in names:
            if names.count(name) > 1:
                raise RuleError(f"{name}: is defined twice")
        return super().construct_mapping(node, deep)


def yaml_of(text: str) -> Any:
    """What a file says. Its size is bounded: with YAML's references, a few lines can stand for billions of values, or
    one for itself.

    Raises:
      RuleError: it is not YAML, says something twice or says too much.
    """
    if len(text) > _MAX_CHARS:
        raise RuleError(f"longer than {_MAX_CHARS} characters")
    try:
        said = yaml.load(text, _StrictLoader)  # noqa: S506 - derived from SafeLoader
    except RuleError:
        raise
    except _NOT_YAML as e:
        raise RuleError(f"not YAML: {' '.join(str(e).split())}") from e
    level, values = [said], 0
    for _ in range(_MOST_DEEP):
        level = [value for each in level if isinstance(each, dict | list) for value in _inside(each)]
        values += len(level)
        if not level:
            return said
        if values > _MOST_VALUES:
            raise RuleError(f"has more than {_MOST_VALUES} values")
    raise RuleError(f"values are nested more than {_MOST_DEEP} deep")


def _inside(value: dict[Any, Any] | list[Any]) -> Iterable[Any]:
    return value.values() if isinstance(value, dict) else value


def only(fields: Mapping[Any, Any], known: Collection[str], where: str) -> None:
    """Refuses fields that are not known."""
    unknown = sorted(str(key) for key in fields if key not in known)
    if unknown:
        raise RuleError(f"{where}: unknown field {unknown[0]!r}; known are {', '.join(sorted(known))}")


def risk_score(name: str, fields: Mapping[str, Any]) -> float:
    return share(f"{name}: risk_score", fields.get("risk_score"))


def share(where: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise RuleError(f"{where} {value!r} is not a number from 0 to 1")
    return float(value)


def whole(where: str, value: Any, least: int, most: int | None = None) -> int:
    good = isinstance(value, int) and not isinstance(value, bool) and value >= least
    if not good or (most is not None and value > most):
        above = f"of at least {least}" if most is None else f"from {least} to {most}"
        raise RuleError(f"{where} {value!r} is not a whole number {above}")
    return int(value)


def span_ms(name: str, fields: Mapping[str, Any]) -> int:
    try:
        span = parse_duration_ms(str(fields.get("within")))
    except ValueError as e:
        raise RuleError(f"{name}: within {e}") from e
    if span <= 0:
        raise RuleError(f"{name}: within must be above 0")
    return span


def span_text(span: int) -> str:
    """Milliseconds, as descriptions of alerts show them."""
    minutes, rest = divmod(span, 60_000)
    return f"{span / 1000:g} s" if rest else f"{minutes} min"


def amounts(where: str, above: Any, currency: str) -> Amounts:
    """A plain amount is in the default currency; a mapping has one for each of its currencies."""
    of_each = above if isinstance(above, dict) else {currency: above}
    if not of_each:
        raise RuleError(f"{where} names no currency")
    try:
        return tuple(sorted((code, currencies.minor(amount, code)) for code, amount in of_each.items()))
    except ValueError as e:
        raise RuleError(f"{where} {e}") from None
