"""The online store's settings: the options of its URL, in a file. User and password are read again whenever a
connection is opened, certificates too; so that they can be changed while a job runs."""

from __future__ import annotations

from typing import Any

from connections import settings as files
from connections.settings import SettingsError
from schemas.addresses import StoreUrl

__all__ = ["store_file", "store_options"]


def store_file(text: str) -> str:
    """A value of --store_config. Raises: SettingsError."""
    if not files.in_secret_manager(text):
        _read(text, StoreUrl("rediss://store"))
    return text


def store_options(url: StoreUrl) -> dict[str, Any]:
    """How redis-py connects: what the URL says, then what its file says.

    Raises: SettingsError.
    """
    if url.config is None:
        return dict(url.settings)
    options = {**url.settings, **_read(url.config, url)}
    for whose in ("", "sentinel_"):
        if f"{whose}password" in options:
            for name in ("username", "password"):
                options.pop(whose + name, None)
            options[f"{whose}credential_provider"] = _provider(url, whose)
    return options


def _read(path: str, url: StoreUrl) -> dict[str, Any]:
    found = {}
    for name, text in files.read(path).items():
        try:
            found[name] = url.option(name, text)
        except ValueError as e:
            raise SettingsError(f"{path}: {e}") from None
    return found


def _provider(url: StoreUrl, whose: str) -> Any:
    from redis.credentials import CredentialProvider  # here, as launchers that only check a file need no client

    class _FromFile(CredentialProvider):
        def get_credentials(self) -> tuple[str] | tuple[str, str]:
            options = {**url.settings, **_read(str(url.config), url)}
            user, password = options.get(f"{whose}username"), options[f"{whose}password"]
            return (user, password) if user else (password,)

    return _FromFile()
