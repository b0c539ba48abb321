"""What must not be granted, found in a configuration."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from tests.terraform.configuration import Resource

__all__ = ["forbidden"]

_KEYS = re.compile(r"^google_(service_account|storage_hmac|apikeys)_key$")
# These replace what others granted, also what Google needs itself.
_AUTHORITATIVE = re.compile(r"_iam_(policy|binding)$")
_BASIC = {"roles/owner", "roles/editor", "roles/viewer"}
_EVERYBODY = {"allUsers", "allAuthenticatedUsers"}
_SECRET = re.compile(r"BEGIN [A-Z ]*PRIVATE KEY|AIza[0-9A-Za-z_-]{35}|ya29\.")


def forbidden(resources: Iterable[Resource], values: Iterable[Any] = ()) -> list[str]:
    """What is wrong, one line each.

    Args:
      values: what resources take from elsewhere: locals and the defaults of variables.
    """
    wrong = []
    texts = [(f"{r.type}.{r.name}", text) for r in resources for text in _texts(r.body)]
    texts += [("a local or a default", text) for value in values for text in _texts(value)]
    for where, text in texts:
        if text in _BASIC:
            wrong.append(f"{where}: {text} is one of the basic roles")
        elif text.startswith("roles/") and text.lower().endswith("admin"):
            wrong.append(f"{where}: {text} may change who may do what")
        elif text in _EVERYBODY:
            wrong.append(f"{where}: {text} is everybody")
        elif _SECRET.search(text):
            wrong.append(f"{where}: holds a secret")
    for resource in resources:
        if _KEYS.search(resource.type):
            wrong.append(f"{resource.type}.{resource.name} is a key that lives for years")
        if _AUTHORITATIVE.search(resource.type):
            wrong.append(f"{resource.type}.{resource.name} takes away what others granted")
    return wrong


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
        # Inside an expression: "${condition ? \"roles/owner\" : null}"
        yield from re.findall(r'"([^"$]+)"', value)
    elif isinstance(value, dict):
        for inner in value.values():
            yield from _texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner)
