"""The settings of the API, checked before anything starts."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from connections.kafka import Brokers
from schemas import currencies, times
from schemas.addresses import Address, StoreUrl, shown
from schemas.store_keys import PREFIX, store_prefix
from serving.api_keys import ApiKey

__all__ = ["LOOPBACK", "WHEN_DOWN", "Config", "ConfigError"]


_LOCAL = StoreUrl("redis://127.0.0.1:6379/0")
_LOCAL_REGISTRY = Address("http://127.0.0.1:8081/apis/ccompat/v7")
LOOPBACK = ("127.0.0.1", "::1", "localhost")
WHEN_DOWN = ("allow", "review", "503")
_RATE = re.compile(r"[1-9]\d{0,8}/(second|minute|hour|day)")
_SERVERS = re.compile(r"[^\s,:/@]+:\d{1,5}(,[^\s,:/@]+:\d{1,5})*")
_EVENTS = re.compile(rf"kafka://{_SERVERS.pattern}")
_FOLDER = re.compile(r"gs://[a-z0-9][a-z0-9._-]+[a-z0-9](/[^\s?#]*)?|file:///\S+|[^:]+")
_ORIGIN = re.compile(r"https?://[a-z0-9.-]+(:\d{1,5})?|https?://\[[0-9a-f:.]+\](:\d{1,5})?")


class ConfigError(ValueError):
    """A setting is invalid; the message names it and says why."""


@dataclass(frozen=True)
class Config:
    """How the API reaches its store.

    Attributes:
      redis_url: redis:// or rediss:// (TLS), with user, password and options as `StoreUrl` reads them; may be text.
      store_config: file that says how to connect to it, with secrets by reference.
      store_prefix: what the installation's keys begin with, before a colon.
      redis_timeout_s: timeout for connecting and for an answer, unless `redis_url` sets others. A request waits at most
        twice this long.
      redis_connections: requests answered at once per process, each with a thread and a connection. More threads would
        wait for the interpreter rather than for Redis, unless Redis is a millisecond away.
      retry_after_s: how long a 503 tells clients to wait, and how long a store that timed out is left alone.
      currency: the shop's: of revenue, unless a caller asks for another.
      time_zone: where the shop's days begin and end, as an IANA name.
      kafka: host:port of the broker to ask for the jobs' progress, several separated by commas; None: do not ask.
      kafka_config: file that says how to connect to it, with secrets by reference.
      events: kafka://host:port[,host:port] of the cluster that takes events sent over HTTP, with `kafka_config`; None:
        nobody can send any.
      registry, registry_config: of that cluster's schemas.
      mappings: by which events of others are read: shipped names, or YAML files.
      decisions: whether orders that are not placed yet are judged.
      rules: file of the rules that they are judged by; None: those that are shipped.
      when_down: what is said of them while the store does not answer: allow, review, or 503, which is no decision.
      webhooks: file of the secrets that requests are signed with.
      event_rate: events that each caller may send to each process.
      group_prefix: what stands before the jobs' names in those of their consumer groups.
      batch_report: folder of the daily batch's reports, local or gs://, for metrics; None: no such metrics.
      metrics_dir: folder in which worker processes share their metrics; None for a single process.
      metrics_route: whether the app serves /metrics itself, not on a separate port.
      streams: maximum open event streams per process; 0 for none. Each has a thread, which serves other requests while
        no stream uses it.
      api_keys: the accepted keys; empty: no key is needed.
      keyless_labels: whether anybody may label alerts where no key is needed.
      rate_limit: requests per caller, such as 1000/second; None for no limit.
      access_log: a line per request on standard output: off, route, or path, which reveals user ids.
      log_format: format of log lines on standard error: text or json.
      cors_origins: origins whose web pages may call, such as https://shop.example; no wildcard.
    """

    redis_url: StoreUrl = _LOCAL
    store_config: str | None = None
    store_prefix: str = PREFIX
    redis_timeout_s: float = 0.5
    redis_connections: int = 4
    retry_after_s: float = 1.0
    currency: str = currencies.DEFAULT
    time_zone: str = "UTC"
    kafka: str | None = None
    kafka_config: str | None = None
    events: str | None = None
    registry: Address = _LOCAL_REGISTRY
    registry_config: str | None = None
    mappings: tuple[str, ...] = ()
    webhooks: str | None = None
    event_rate: str = "1000/second"
    decisions: bool = False
    rules: str | None = None
    when_down: str = "503"
    group_prefix: str = ""
    batch_report: str | None = None
    metrics_dir: Path | None = None
    metrics_route: bool = True
    streams: int = 8
    api_keys: tuple[ApiKey, ...] = field(default=(), repr=False)
    keyless_labels: bool = True
    rate_limit: str | None = None
    cors_origins: tuple[str, ...] = ()
    access_log: str = "off"
    log_format: str = "text"

    def __post_init__(self) -> None:
        object.__setattr__(self, "redis_url", _store_url(self.redis_url, self.store_config))
        if self.kafka is not None and self.kafka_config is not None:
            object.__setattr__(self, "kafka", Brokers(self.kafka, self.kafka_config))
        if not 0 < self.redis_timeout_s <= 60:
            raise ConfigError(f"redis_timeout_s must be above 0 and at most 60 seconds, not {self.redis_timeout_s}")
        if not 1 <= self.redis_connections <= 1000:
            raise ConfigError(f"redis_connections must be between 1 and 1000, not {self.redis_connections}")
        if not 0 < self.retry_after_s <= 60:
            raise ConfigError(f"retry_after_s must be above 0 and at most 60 seconds, not {self.retry_after_s}")
        try:
            currencies.currency(self.currency)
        except ValueError as e:
            raise ConfigError(f"currency {e}") from None
        try:
            store_prefix(self.store_prefix)
        except ValueError as e:
            raise ConfigError(f"store_prefix {e}") from None
        try:
            times.time_zone(self.time_zone)
        except ValueError as e:
            raise ConfigError(f"time_zone {e}") from None
        if self.kafka is not None and not _SERVERS.fullmatch(self.kafka):
            raise ConfigError(f"kafka must be host:port, with commas between several, not {self.kafka!r}")
        if self.events is not None and not _EVENTS.fullmatch(self.events):
            raise ConfigError(
                f"events must be kafka://host:port, with commas between several, not {shown(self.events)}"
            )
        if self.mappings:
            _check_mappings(self.mappings)
        if self.when_down not in WHEN_DOWN:
            raise ConfigError(
                f"when_down must be {', '.join(WHEN_DOWN[:-1])} or {WHEN_DOWN[-1]}, not {self.when_down!r}"
            )
        if self.rules is not None:
            _check_rules(self.rules)
        if self.batch_report is not None and not _FOLDER.fullmatch(self.batch_report):
            raise ConfigError(f"batch_report must be a folder or gs://bucket/path, not {self.batch_report!r}")
        if not 0 <= self.streams <= 1000:
            raise ConfigError(f"streams must be between 0 and 1000, not {self.streams}")
        for name, rate in (("rate_limit", self.rate_limit), ("event_rate", self.event_rate)):
            if rate is not None and not _RATE.fullmatch(rate):
                raise ConfigError(f"{name} must be such as 1000/second, 50/minute or 10/hour, not {rate!r}")
        if self.access_log not in ("off", "route", "path"):
            raise ConfigError(f"access_log must be off, route or path, not {self.access_log!r}")
        for origin in self.cors_origins:
            if not _ORIGIN.fullmatch(origin):
                raise ConfigError(f"cors_origins must be such as https://shop.example, without a path, not {origin!r}")


def _check_rules(path: str) -> None:
    # Here, as only a server that decides needs it.
    from serving.decisions.ruleset import read_rules

    try:
        read_rules(path)
    except OSError as e:
        raise ConfigError(f"{path} cannot be read: {e.strerror or e}") from None
    except ValueError as e:
        raise ConfigError(f"{path}: {e}") from None


def _check_mappings(mappings: tuple[str, ...]) -> None:
    # Here, as only a server that takes events needs it.
    from serving.ingest.intake import mapping_name, read_mapping

    names = []
    for text in mappings:
        try:
            names.append(mapping_name(text))
            read_mapping(text)
        except OSError as e:
            raise ConfigError(f"mapping {text} cannot be read: {e.strerror or e}") from None
        except ValueError as e:
            raise ConfigError(f"mapping {text}: {e}") from None
        if names[-1] in names[:-1]:
            raise ConfigError(f"mapping {names[-1]} is there twice")


def _store_url(url: StoreUrl | str, config: str | None) -> StoreUrl:
    try:
        return StoreUrl(url, config)
    except ValueError as e:
        raise ConfigError(f"redis URL {e}") from None
