"""The schema registry's settings as its client has them, from a file with its names, with or without the
`schema.registry.` that Java's users put before them."""

from __future__ import annotations

from typing import Final

from connections import settings as files
from connections.settings import SettingsError

__all__ = ["registry_client", "registry_file"]

_OWN: Final = frozenset(
    [
        *(
            "basic.auth.user.info",
            "ssl.ca.location",
            "ssl.certificate.location",
            "ssl.key.location",
            "ssl.key.password",
        ),
        *("bearer.auth.credentials.source", "bearer.auth.token", "bearer.auth.issuer.endpoint.url"),
        *("bearer.auth.client.id", "bearer.auth.client.secret", "bearer.auth.scope"),
        *("bearer.auth.logical.cluster", "bearer.auth.identity.pool.id"),
    ]
)
_ANY: Final = "any"


def registry_file(text: str) -> str:
    """A value of --registry_config. Raises: SettingsError."""
    if not files.in_secret_manager(text):
        registry_client(text)
    return text


def registry_client(path: str) -> dict[str, str]:
    """For the client. Raises: SettingsError."""
    found = {name.removeprefix("schema.registry."): value for name, value in files.read(path).items()}
    if (kind := found.pop("ssl.truststore.type", "PEM")) != "PEM" or found.pop("ssl.keystore.type", "PEM") != "PEM":
        raise SettingsError(f"{path}: stores of keys are read as PEM, not as {kind}")
    if place := found.pop("ssl.truststore.location", None):
        found["ssl.ca.location"] = place
    if place := found.pop("ssl.keystore.location", None):
        found["ssl.certificate.location"] = found["ssl.key.location"] = place
    if found.pop("basic.auth.credentials.source", "USER_INFO") != "USER_INFO":
        raise SettingsError(f"{path}: basic.auth.credentials.source is USER_INFO, or left out")
    if "bearer.auth.token" in found:
        found.setdefault("bearer.auth.credentials.source", "STATIC_TOKEN")
    if "bearer.auth.client.id" in found:
        found.setdefault("bearer.auth.credentials.source", "OAUTHBEARER")
    if "bearer.auth.credentials.source" in found:  # the client demands them; only Confluent Cloud reads them
        found.setdefault("bearer.auth.logical.cluster", _ANY)
        found.setdefault("bearer.auth.identity.pool.id", _ANY)
    if unknown := sorted(found.keys() - _OWN):
        raise SettingsError(f"{path}: {unknown[0]} is none of {', '.join(sorted(_OWN))}")
    if ":" not in found.get("basic.auth.user.info", ":"):
        raise SettingsError(f"{path}: basic.auth.user.info is not user:password")
    return found
