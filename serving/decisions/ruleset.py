"""The rules' file, and which version of it this is."""

from __future__ import annotations

import hashlib
import json
from importlib.resources import files
from pathlib import Path
from typing import Any, Final, NamedTuple

import yaml

from transforms.domain.fraud_rules import Rules, parse_rules

__all__ = ["RuleSet", "read_rules", "rule_set"]

_DIGITS: Final = 12


class RuleSet(NamedTuple):
    """
    Attributes:
      version: the same for the same content, whatever its comments, spaces and the order of its keys.
    """

    rules: Rules
    version: str


def read_rules(path: str | None) -> RuleSet:
    """The rules of a file; None: those that are shipped, which the fraud job applies by default, too.

    Raises:
      OSError, UnicodeDecodeError: it cannot be read.
      RuleError: it cannot be used; the message names the rule and the reason.
    """
    file = files("transforms.domain").joinpath("fraud_rules.yaml") if path is None else Path(path)
    return rule_set(file.read_text(encoding="utf-8"))


def rule_set(text: str) -> RuleSet:
    """Raises: RuleError."""
    rules = parse_rules(text)
    canonical = json.dumps(_by_text(yaml.safe_load(text)), sort_keys=True, separators=(",", ":"), default=str)
    return RuleSet(rules, hashlib.sha256(canonical.encode()).hexdigest()[:_DIGITS])


def _by_text(value: Any) -> Any:
    """With text as keys, as rules have: YAML makes a number of the name 1, and a date of 2026-01-01."""
    if isinstance(value, dict):
        return {str(key): _by_text(each) for key, each in value.items()}
    return [_by_text(each) for each in value] if isinstance(value, list) else value
