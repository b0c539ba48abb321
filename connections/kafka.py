"""Kafka's settings as librdkafka has them, from a file with its names or with those of Kafka's Java clients."""

from __future__ import annotations

import base64
import difflib
import json
import logging
import re
import time
from collections.abc import Callable, Mapping
from datetime import UTC
from importlib import import_module
from typing import Any, Final, Self

from connections import settings as files
from connections.settings import SettingsError, Watch

__all__ = ["GOOGLE", "TOKENS", "Brokers", "Connection", "kafka_file", "librdkafka", "login_of"]

_LOG = logging.getLogger(__name__)
_LOG_EVERY_S: Final = 60.0

TOKENS: Final = "streamforge.oauth.tokens"
"""Where tokens for OAUTHBEARER come from that no librdkafka method fetches: `google`, or package.module:function."""
GOOGLE: Final = "google"
_JAAS: Final = re.compile(r"([\w.]+)\s+(?:required|requisite|sufficient|optional)\s+(.*?)\s*;?\s*", re.DOTALL)
_JAAS_OPTION: Final = re.compile(
    r"([\w.]+)\s*=\s*(?:\"((?:\\.|[^\"\\])*)\"|'((?:\\.|[^'\\])*)'|([^\s;\"']+))", re.DOTALL
)
_OAUTH: Final = "sasl.oauthbearer."

# Names that librdkafka has, of those that say how to connect. What else is tuned belongs to the reader that is tuned.
_OWN: Final = frozenset(
    [
        *("security.protocol", "sasl.mechanism", "sasl.username", "sasl.password"),
        *("ssl.ca.location", "ssl.ca.pem", "ssl.certificate.location", "ssl.certificate.pem", "ssl.key.location"),
        *("ssl.key.pem", "ssl.key.password", "ssl.keystore.location", "ssl.keystore.password"),
        *("ssl.endpoint.identification.algorithm", "ssl.crl.location", "ssl.cipher.suites"),
        *("https.ca.location", "https.ca.pem"),
        *(f"{_OAUTH}{name}" for name in ("method", "client.id", "client.secret", "scope", "extensions")),
        f"{_OAUTH}token.endpoint.url",
        *("client.dns.lookup", "client.rack", "connections.max.idle.ms", "metadata.max.age.ms"),
        *("reconnect.backoff.ms", "reconnect.backoff.max.ms", "socket.connection.setup.timeout.ms"),
        TOKENS,
    ]
)
# Java's names for the same.
_JAVAS: Final = {
    "sasl.mechanisms": "sasl.mechanism",  # librdkafka's older name
    "ssl.truststore.certificates": "ssl.ca.pem",
    "ssl.keystore.certificate.chain": "ssl.certificate.pem",
    "ssl.keystore.key": "ssl.key.pem",
}
_TRANSLATED: Final = ("sasl.jaas.config", "ssl.truststore.type", "ssl.truststore.location", "ssl.keystore.type")
_IGNORED: Final = ("sasl.login.callback.handler.class", "ssl.truststore.password")
# Of errors that time does not cure; the last is what a server says of our certificate, once it has taken us in.
_CAUSES: Final = ("_AUTHENTICATION", "_SSL", "_RESOLVE", "SASL_AUTHENTICATION_FAILED", "_FATAL")
_ALERT: Final = " alert "


class Brokers(str):
    """host:port[,host:port], and the file that says how to connect to them, if there is one.

    Only its name is pickled; `Connection` reads it.
    """

    __slots__ = ("config",)
    config: str | None

    def __new__(cls, servers: str, config: str | None = None) -> Self:
        made = super().__new__(cls, servers)
        made.config = config if config is not None else getattr(servers, "config", None)
        return made

    def __reduce__(self) -> tuple[type[Self], tuple[str, str | None]]:
        return type(self), (str(self), self.config)


class Connection:
    """What a client of librdkafka is opened with, and why it cannot connect.

    Attributes:
      settings: for the client; they hold secrets.
      heard: the last error that says why there is no connection.

    Raises:
      SettingsError.
    """

    def __init__(self, servers: str, *, lasting: bool = False, clock: Callable[[], float] = time.monotonic):
        """
        Args:
          lasting: whether causes are logged, once a minute: the client tries again for ever and tells nobody else.
        """
        self._servers, self._lasting = servers, lasting
        self._watch = Watch(self._now, clock)
        self.heard: Any = None
        self._no_token = ""
        self._logged_s = float("-inf")
        self._clock = clock
        self.settings: dict[str, Any] = {"error_cb": self._hear, **self._watch.settings}
        if tokens := self.settings.pop(TOKENS, None):
            self.settings["oauth_cb"] = self._tokens(tokens)

    def _now(self) -> dict[str, str]:
        config = getattr(self._servers, "config", None)
        return {"bootstrap.servers": str(self._servers), **(librdkafka(config) if config else {})}

    def changed(self) -> bool:
        """Whether a client that is opened now would be opened otherwise. Looks every ten seconds."""
        return getattr(self._servers, "config", None) is not None and self._watch.changed()

    def why(self, error: object, client: Any = None) -> str:
        """The cause of a client's error, in one line: librdkafka tells that by its callback alone.

        Args:
          client: is asked for what it has not called back for yet.
        """
        if client is not None:
            client.poll(0)
        reason = error.args[0] if isinstance(error, Exception) and error.args else error
        said = reason.str() if hasattr(reason, "str") else str(reason)
        if self.heard is not None:
            said = re.sub(r" \(after \d+ms in state .*", "", self.heard.str())
        return files.hide(self._no_token or said or "no answer in time", self._secrets())

    def _hear(self, error: Any) -> None:
        if error.name() in _CAUSES or _ALERT in error.str():
            self.heard = error
            if self._lasting and self._clock() >= self._logged_s + _LOG_EVERY_S:
                self._logged_s = self._clock()
                _LOG.warning("Kafka at %s: %s", self._servers, self.why(error))

    def _secrets(self) -> dict[str, object]:
        return {n: v for n, v in self._watch.settings.items() if "password" in n or "secret" in n or n.endswith(".pem")}

    def _tokens(self, name: str) -> Callable[[Any], Any]:
        fetch = _google if name == GOOGLE else _function(name)

        def fetched(_config: Any) -> Any:
            try:
                token = fetch(self._now())
                self._no_token = ""
                return token
            except Exception as e:
                self._no_token = f"no token from {name}: {type(e).__name__}: {e}"
                raise

        return fetched


def kafka_file(text: str) -> str:
    """A value of --kafka_config. Raises: SettingsError."""
    if not files.in_secret_manager(text):
        librdkafka(text)
    return text


def librdkafka(path: str) -> dict[str, str]:
    """What a file says, by librdkafka's names. Raises: SettingsError."""
    found = {_JAVAS.get(name, name): value for name, value in files.read(path).items()}
    unknown = sorted(found.keys() - _OWN - set(_TRANSLATED) - set(_IGNORED))
    if unknown:
        near = difflib.get_close_matches(unknown[0], _OWN | _JAVAS.keys() | set(_TRANSLATED), n=1)
        hint = "addresses are in the flags' URLs" if unknown[0] == "bootstrap.servers" else ""
        hint = hint or (f"did you mean {near[0]}?" if near else "this file says how to connect, and nothing else")
        raise SettingsError(f"{path}: {unknown[0]} is not taken; {hint}")
    for name in _IGNORED:
        found.pop(name, None)
    _stores(found, path)
    _login(found, path)
    _check(found, path)
    return found


def _stores(found: dict[str, str], path: str) -> None:
    """Java's trust store and key store."""
    kind, place = found.pop("ssl.truststore.type", "JKS"), found.pop("ssl.truststore.location", None)
    if place is not None:
        if kind != "PEM":
            raise SettingsError(f"{path}: ssl.truststore.type is {kind}; write PEM, and have the certificates so")
        found["ssl.ca.location"] = place
    kind = found.pop("ssl.keystore.type", "")
    if kind not in ("", "PEM", "PKCS12"):
        raise SettingsError(f"{path}: ssl.keystore.type is {kind}; write PEM or PKCS12, and have the key so")
    if kind == "PEM" and "ssl.keystore.location" in found:
        found["ssl.certificate.location"] = found["ssl.key.location"] = found.pop("ssl.keystore.location")
    if found.get("ssl.endpoint.identification.algorithm") == "":  # Java's way to say none
        found["ssl.endpoint.identification.algorithm"] = "none"


def _login(found: dict[str, str], path: str) -> None:
    """Java's login, which is one value with all in it."""
    config = found.pop("sasl.jaas.config", None)
    if config is None:
        if found.get("sasl.mechanism") == "OAUTHBEARER" and f"{_OAUTH}client.id" in found:
            found.setdefault(f"{_OAUTH}method", "oidc")
        return
    module, options = login_of(config, path)
    if module.endswith("OAuthBearerLoginModule"):
        names = {"clientId": "client.id", "clientSecret": "client.secret", "scope": "scope"}
        found |= {f"{_OAUTH}{names[name]}": value for name, value in options.items() if name in names}
        extensions = {n.removeprefix("extension_"): v for n, v in options.items() if n.startswith("extension_")}
        if extensions:
            found[f"{_OAUTH}extensions"] = ",".join(f"{name}={value}" for name, value in extensions.items())
        if TOKENS not in found:
            found[f"{_OAUTH}method"] = "oidc"
    elif module.endswith(("PlainLoginModule", "ScramLoginModule")):
        found |= {f"sasl.{name}": options[name] for name in ("username", "password") if name in options}
    else:
        raise SettingsError(f"{path}: sasl.jaas.config names {module}; Plain, Scram and OAuthBearer are taken")


def login_of(config: str, path: str) -> tuple[str, dict[str, str]]:
    """Module and options of a sasl.jaas.config. Raises: SettingsError."""
    found = _JAAS.fullmatch(config.strip())
    if not found or _JAAS_OPTION.sub("", found[2]).strip():
        raise SettingsError(f'{path}: sasl.jaas.config is not Module required name="value" …;')
    options = {o[1]: re.sub(r"\\(.)", r"\1", o[2] or o[3] or o[4] or "") for o in _JAAS_OPTION.finditer(found[2])}
    return found[1], options


def _check(found: Mapping[str, str], path: str) -> None:
    protocol = found.get("security.protocol", "PLAINTEXT").upper()
    if protocol not in ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"):
        raise SettingsError(f"{path}: security.protocol is none of PLAINTEXT, SSL, SASL_PLAINTEXT, SASL_SSL")
    mechanism = found.get("sasl.mechanism")
    if protocol.startswith("SASL"):
        if mechanism not in ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"):
            raise SettingsError(f"{path}: sasl.mechanism is none of PLAIN, SCRAM-SHA-256, SCRAM-SHA-512, OAUTHBEARER")
        wanted: tuple[str, ...] = ("sasl.username", "sasl.password")
        if mechanism == "OAUTHBEARER":
            needed = ("client.id", "client.secret", "token.endpoint.url")
            wanted = () if TOKENS in found else tuple(f"{_OAUTH}{name}" for name in needed)
        for name in wanted:
            if not found.get(name):
                raise SettingsError(f"{path}: {name} is missing, which {mechanism} needs")
    elif mechanism is not None:
        raise SettingsError(f"{path}: sasl.mechanism needs security.protocol SASL_SSL or SASL_PLAINTEXT")
    if protocol in ("PLAINTEXT", "SASL_PLAINTEXT") and (tls := sorted(n for n in found if n.startswith("ssl."))):
        raise SettingsError(f"{path}: {tls[0]} needs security.protocol SSL or SASL_SSL")


def _function(name: str) -> Callable[[Mapping[str, str]], tuple[str, float]]:
    """Raises: SettingsError."""
    module, _, function = name.partition(":")
    try:
        return getattr(import_module(module), function)  # type: ignore[no-any-return]
    except (ImportError, AttributeError, ValueError) as e:
        raise SettingsError(f"{TOKENS} is neither {GOOGLE} nor package.module:function: {e}") from None


def _google(_settings: Mapping[str, str]) -> tuple[str, float]:
    """A token for Google's Managed Service for Apache Kafka, of whoever runs this: on GKE and Dataflow, its service
    account, without a key. The token's form is that of Google's own GcpLoginCallbackHandler."""
    import google.auth  # here, as only a cluster of Google's needs it
    from google.auth.transport.requests import Request

    credentials, _ = google.auth.default(scopes=["https://www.googleapis.com/auth/cloud-platform"])
    credentials.refresh(Request())  # type: ignore[no-untyped-call]
    token, expiry = credentials.token, credentials.expiry
    assert token
    assert expiry
    expiry_s = expiry.replace(tzinfo=UTC).timestamp()  # naive, and of UTC
    subject = getattr(credentials, "service_account_email", None) or "streamforge"
    claims = {"exp": int(expiry_s), "iat": int(time.time()), "iss": "Google", "sub": subject}
    parts = (json.dumps({"typ": "JWT", "alg": "GOOG_OAUTH2_TOKEN"}), json.dumps(claims), str(token))
    return ".".join(base64.urlsafe_b64encode(part.encode()).decode().rstrip("=") for part in parts), expiry_s
