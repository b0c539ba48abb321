"""What is looked at before the server starts.

A module of its own: `door` imports prometheus_client, which decides then whether it shares its numbers between
processes, and the folder for that is not known before the server starts.
"""

from __future__ import annotations

from connections.settings import SettingsError
from serving.config import LOOPBACK, Config, ConfigError
from serving.ingest.intake import mapping_name
from serving.ingest.webhooks import Webhooks

__all__ = ["check_events"]


def check_events(config: Config, host: str) -> None:
    """What can only be judged with all settings at hand. Raises: ConfigError."""
    if config.events is None:
        return
    if not config.api_keys and host not in LOOPBACK:
        raise ConfigError(f"--events: at {host} anybody could send events: give --api_keys, with a key of scope write")
    try:
        Webhooks(config.webhooks, [mapping_name(text) for text in config.mappings])
    except SettingsError as e:
        raise ConfigError(f"--webhooks: {e}") from None
