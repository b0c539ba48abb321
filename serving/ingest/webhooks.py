"""Requests that a shop system signed: base64 of the HMAC-SHA256 of the body, in a header.

The secrets are in a file of settings (`connections.settings`), which is read again when it changes:

    shopify.secret=${file:/run/secrets/shopify}
    shopify.secret.previous=${file:/run/secrets/shopify-previous}
    ours.secret=${env:OURS}
    ours.header=X-Shopify-Hmac-Sha256

A replayed request does no harm: its events have the ids that they had.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Collection, Mapping
from typing import Final, NamedTuple

from connections import settings as files
from connections.settings import SettingsError, Watch

__all__ = ["HEADERS", "Webhooks"]

# https://shopify.dev/docs/apps/build/webhooks/subscribe/https
# https://woocommerce.github.io/woocommerce-rest-api-docs/#webhooks
HEADERS: Final = {"shopify": "X-Shopify-Hmac-Sha256", "woocommerce": "X-WC-Webhook-Signature"}
"""Where the signature is, by mapping."""

_NAMES: Final = ("secret", "secret.previous", "header")


class _Signed(NamedTuple):
    header: str
    secrets: tuple[bytes, ...]


class Webhooks:
    """
    Args:
      path: the file; None: nobody signs.
      mappings: that there are.

    Raises: SettingsError.
    """

    def __init__(self, path: str | None, mappings: Collection[str]):
        self._path, self._mappings = path, mappings
        self._watch = None if path is None else Watch(self._look)
        self._signed = {} if self._watch is None else _signed(self._watch.settings, str(path), mappings)

    def _look(self) -> Mapping[str, object]:
        found = files.read(str(self._path))
        _signed(found, str(self._path), self._mappings)
        return found

    def header(self, mapping: str) -> str | None:
        """Where a signature of requests for this mapping is; None: they have none."""
        if self._watch is not None and self._watch.changed():
            self._watch = Watch(self._look)
            self._signed = _signed(self._watch.settings, str(self._path), self._mappings)
        return self._signed[mapping].header if mapping in self._signed else None

    def is_right(self, mapping: str, signature: str, body: bytes) -> bool:
        """Whether one of the mapping's secrets made it. Takes as long wherever it is wrong."""
        given, right = signature.encode("utf-8", "surrogateescape"), False
        for secret in self._signed[mapping].secrets:
            made = base64.b64encode(hmac.new(secret, body, hashlib.sha256).digest())
            right |= hmac.compare_digest(made, given)
        return right


def _signed(settings: Mapping[str, object], path: str, known: Collection[str]) -> dict[str, _Signed]:
    """Raises: SettingsError."""
    mappings = []
    for setting in settings:
        mapping, _, name = setting.partition(".")
        if name not in _NAMES:
            raise SettingsError(f"{path}: {setting} is none of {', '.join(f'MAPPING.{n}' for n in _NAMES)}")
        if mapping not in known:
            raise SettingsError(f"{path}: {setting}: there is no --mapping of that name")
        mappings.append(mapping)
    found = {}
    for mapping in dict.fromkeys(mappings):
        secrets = [settings[key] for n in _NAMES[:2] if (key := f"{mapping}.{n}") in settings]
        if f"{mapping}.secret" not in settings or not all(secrets):
            raise SettingsError(f"{path}: {mapping}.secret is missing, or a secret is empty")
        header = settings.get(f"{mapping}.header", HEADERS.get(mapping))
        if not header:
            raise SettingsError(f"{path}: {mapping}.header is missing: which header has the signature?")
        found[mapping] = _Signed(str(header), tuple(str(secret).encode() for secret in secrets))
    return found
