"""Addresses that may hold a password, and how to show what a user gave as one without revealing it.

`Address` is a URL that does not show itself: not in str, repr or format, nor in what others say of it (`hide`). Only
`reveal` gives the text, to a client. `StoreUrl` is the online store's, with its options read; jobs and API both use it,
so that they mean the same.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final, Self
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

__all__ = ["ENCODE", "Address", "StoreUrl", "nearly_url", "scrub", "shown"]

ENCODE: Final = "in a password, : / ? # @ % and spaces must be percent-encoded"

_ONE: Final = r"(?:[A-Za-z0-9_.-]+|\[[0-9A-Fa-f:.]+\])(?::(?:\d{0,5}|port))?"
_SERVER: Final = re.compile(_ONE)
_HARMLESS: Final = re.compile(rf"(?:[a-z][a-z0-9+.-]*://)?(?:{_ONE})?(?:,{_ONE})*,?(?:/[\w./*-]*)?", re.ASCII)
_MISPLACED: Final = re.compile(r"[@\\]")
_SCHEME: Final = re.compile(r"([a-z][a-z0-9+.-]*):/", re.ASCII | re.IGNORECASE)
_WITH_USER: Final = re.compile(r"[a-z][a-z0-9+.-]*:/.*@\S*|(?<!\S)\S*:\S*@\S*", re.ASCII | re.IGNORECASE | re.DOTALL)
_NEARLY: Final = re.compile(
    r"(rediss?([+]\w+)?|kafka|bigquery|secret|https?|postgres(ql)?)(:|//)|[^/]*:[^/]*@", re.IGNORECASE
)
_LEAST_SECRET: Final = 4
_WORD: Final = re.compile(r"[^\s'\"]*(?:://|@)[^\s'\";)]*")
_SHAPES: Final = re.compile(r"[a-z+]+://(host:port(/\w+|\[,host:port\](/service)?)?|project/secret\?ca=secret)[,:]?")


def shown(text: str) -> str:
    """What a user gave as an address, for an error's words: as it is where nothing in it can be a password, else `…`
    after its scheme."""
    if _HARMLESS.fullmatch(text):
        return text
    scheme = _SCHEME.match(text)
    return f"{scheme[1].lower()}://…" if scheme else "…"


def nearly_url(text: str) -> bool:
    """Whether what would do as a path looks more like a URL that went wrong."""
    return _NEARLY.match(text) is not None


def scrub(words: object) -> str:
    """Words of others, say of argparse, without what could be a password in a URL; what `Address` says stays."""
    return ENCODE.join(_scrub(part) for part in str(words).split(ENCODE))


def _scrub(words: str) -> str:
    text = _WITH_USER.sub(lambda found: shown(found[0]), words)
    return _WORD.sub(lambda found: found[0] if _SHAPES.fullmatch(found[0]) else shown(found[0]), text)


class Address:
    """A URL that does not show its user, password and options.

    Attributes:
      config: the file that says how to connect, if there is one; only its name is pickled.

    Raises: ValueError, which does not show them either.
    """

    __slots__ = ("_parts", "_text", "config")

    schemes: tuple[str, ...] = ("http", "https")
    shape = "an http:// or https:// URL"
    takes_options = False

    def __init__(self, text: str | Address, config: str | None = None):
        self._text: str = text.reveal() if isinstance(text, Address) else text
        self.config: str | None = text.config if config is None and isinstance(text, Address) else config
        self._parts = self._read()

    def _read(self) -> SplitResult:
        try:
            parts = urlsplit(self._text)
            right = (
                parts.scheme in self.schemes
                and self._fits(parts)
                and (self.takes_options or not (parts.query or parts.fragment))
                and not _MISPLACED.search(self._text.partition("://")[2][len(parts.netloc) :])
                and not re.search(r"\s", self._text)
            )
        except ValueError:  # of a port, or of brackets
            right = False
        if not right:
            raise ValueError(f"{shown(self._text)} is not {self.shape}{self._hint()}")
        return parts

    def _fits(self, parts: SplitResult) -> bool:
        """Whether the server's place is right; may raise ValueError."""
        return bool(_SERVER.fullmatch(parts.netloc.rpartition("@")[2])) and parts.port != 0

    def _hint(self) -> str:
        return "" if _HARMLESS.fullmatch(self._text) else f" ({ENCODE})"

    @property
    def scheme(self) -> str:
        return self._parts.scheme

    @property
    def host(self) -> str:
        return self._parts.hostname or ""

    @property
    def port(self) -> int | None:
        return self._parts.port

    @property
    def user(self) -> str | None:
        """user:password, for a client that is given them apart: what is in a URL it may log."""
        user, _, password = self._parts.netloc.rpartition("@")[0].partition(":")
        return f"{unquote(user)}:{unquote(password)}" if user or password else None

    def reveal(self) -> str:
        """The whole URL, for a client that is given nothing else."""
        return self._text

    def hide(self, words: object) -> str:
        """What a client says of this address, in one line, without what is secret."""
        text = " ".join(str(words).split()).replace(self._text, str(self))
        for secret in self._secrets():
            text = text.replace(secret, "…")
        return scrub(text)

    def _secrets(self) -> list[str]:
        parts = self._parts
        found = [parts.password or parts.username or ""]
        found += [value for name, value in parse_qsl(parts.query) if name != "db" and len(value) >= _LEAST_SECRET]
        return sorted({each for word in found for each in (word, unquote(word)) if each}, key=len, reverse=True)

    def __str__(self) -> str:
        return f"{self._parts.scheme}://{self._parts.netloc.rpartition('@')[2]}{self._parts.path}"

    __repr__ = __str__

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Address):
            return (self._text, self.config) == (other._text, other.config)
        return self._text == other

    def __hash__(self) -> int:
        return hash(self._text)

    def __reduce__(self) -> tuple[type[Self], tuple[str, str | None]]:
        return type(self), (self._text, self.config)


def _seconds(text: str) -> float:
    number = float(text)
    if not 0 < number <= 3600:
        raise ValueError
    return number


def _database(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 9):
        raise ValueError
    return int(text)


def _replicas(text: str) -> int:
    return {str(number): number for number in range(11)}[text]


def _truth(text: str) -> bool:
    return {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}[text.lower()]


def _one_of(*names: str) -> Callable[[str], str]:
    return lambda text: {name: name for name in names}[text.lower()]


_OPTIONS: Final[dict[str, tuple[Callable[[str], Any], str]]] = {
    "db": (_database, "a database's number"),
    "username": (str, "a name"),
    "password": (str, "a password"),
    "socket_timeout": (_seconds, "seconds above 0, at most 3600"),
    "socket_connect_timeout": (_seconds, "seconds above 0, at most 3600"),
    "socket_keepalive": (_truth, "true or false"),
    "ssl_ca_certs": (str, "a file"),
    "ssl_ca_path": (str, "a folder"),
    "ssl_certfile": (str, "a file"),
    "ssl_keyfile": (str, "a file"),
    "ssl_password": (str, "a password"),
    "ssl_check_hostname": (_truth, "true or false"),
    "wait_replicas": (_replicas, "a whole number, at most 10"),
    "sentinel_username": (str, "a name"),
    "sentinel_password": (str, "a password"),
    "ssl_cert_reqs": (_one_of("none", "optional", "required"), "none, optional or required"),
}


_SHAPE_OF: Final = {
    "cluster": "redis+cluster://host:port[,host:port]",
    "sentinel": "redis+sentinel://host:port[,host:port]/service",
}


def _servers(parts: SplitResult) -> list[str]:
    return parts.netloc.rpartition("@")[2].split(",")


def _place(server: str, port: int) -> tuple[str, int]:
    """Raises: ValueError."""
    one = urlsplit(f"//{server}")
    return one.hostname or "", port if one.port is None else one.port


class StoreUrl(Address):
    """redis://[user:password@]host[:port][/db][?option=value&…], or rediss:// for TLS.

    redis+cluster://host[:port][,host[:port]…] is a cluster, by some of its nodes; redis+sentinel://host[:port][,…]/service
    [/db] what sentinels know as a service; rediss+… both with TLS.

    Attributes:
      tls: whether the connection is encrypted.
      cluster: whether it is one.
      service: what the sentinels call the store; empty where there are none.
      servers: host and port of the store, of some nodes of the cluster, or of the sentinels.
      settings: host, port, db, user, password and options, by the names that redis-py has for them.
    """

    __slots__ = ("cluster", "servers", "service", "settings", "tls")

    schemes = ("redis", "rediss", "redis+cluster", "rediss+cluster", "redis+sentinel", "rediss+sentinel")
    takes_options = True

    def __init__(self, text: str | Address, config: str | None = None):
        super().__init__(text, config)
        parts = self._parts
        if parts.fragment or "#" in self._text:
            raise ValueError(f"{shown(self._text)} is not {self.shape}{self._hint()}")
        kind = parts.scheme.partition("+")[2]
        self.tls = parts.scheme.startswith("rediss")
        self.cluster = kind == "cluster"
        self.service, _, db = (
            parts.path.strip("/").partition("/") if kind == "sentinel" else ("", "", parts.path.strip("/"))
        )
        self.servers = [_place(server, 26379 if self.service else 6379) for server in _servers(parts)]
        if bool(self.service) != (kind == "sentinel") or (self.cluster and db not in ("", "0")):
            raise ValueError(f"{shown(self._text)} is not {self.shape}{self._hint()}")
        said = [("username", unquote(parts.username or "")), ("password", unquote(parts.password or ""))]
        said.append(("db", db))
        said = [(name, value) for name, value in said if value] + parse_qsl(parts.query, keep_blank_values=True)
        self.settings: dict[str, Any] = {"host": self.servers[0][0], "port": self.servers[0][1], "db": 0}
        for name, value in said:
            self.settings[name] = self.option(name, value)
        for name in _OPTIONS:
            if sum(name == each for each, _ in said) > 1:
                raise ValueError(f"{shown(self._text)} says {name} twice")

    @property
    def shape(self) -> str:  # type: ignore[override]
        kind = self._text.partition(":")[0].partition("+")[2]
        return _SHAPE_OF.get(kind, "redis://host:port/db")

    def _fits(self, parts: SplitResult) -> bool:
        if "+" not in parts.scheme:
            return super()._fits(parts)
        user = parts.netloc.rpartition("@")[0]  # once for all servers
        return "@" not in user and all(_SERVER.fullmatch(each) and _place(each, 1)[1] for each in _servers(parts))

    def option(self, name: str, value: str) -> Any:
        """An option as redis-py takes it. Raises: ValueError, which does not show the value."""
        if name not in _OPTIONS:  # and is not shown: it may be the rest of a password
            raise ValueError(f"{shown(self._text)} has an option that is none of {', '.join(_OPTIONS)} ({ENCODE})")
        if name.startswith("ssl_") and not self.tls:
            raise ValueError(f"{shown(self._text)}: {name} needs rediss://")
        if name.startswith("sentinel_") and not self.service:
            raise ValueError(f"{shown(self._text)}: {name} needs redis+sentinel://")
        read, what = _OPTIONS[name]
        try:
            return read(value)
        except (ValueError, KeyError):
            raise ValueError(f"{shown(self._text)} is not {self.shape}: {name} is not {what}{self._hint()}") from None
