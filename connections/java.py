"""Kafka's settings as its Java clients have them, without a value: each is a reference, which the client follows itself
where it is opened (Kafka's ConfigProviders). So what Beam writes into the job graph names files and nothing more."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import PurePosixPath
from typing import Final

from connections import settings as files
from connections.kafka import GOOGLE, TOKENS, librdkafka, login_of
from connections.settings import REFERENCE, SettingsError

__all__ = ["java"]

_PROVIDERS: Final = {
    "config.providers": "file,dir,env",
    "config.providers.file.class": "org.apache.kafka.common.config.provider.FileConfigProvider",
    "config.providers.dir.class": "org.apache.kafka.common.config.provider.DirectoryConfigProvider",
    "config.providers.env.class": "org.apache.kafka.common.config.provider.EnvVarConfigProvider",
}
_OPEN: Final = ("security.protocol", "sasl.mechanism", "ssl.endpoint.identification.algorithm")
"""What is no secret, and is checked when the job is made."""
_SAME: Final = ("ssl.key.password", "ssl.keystore.password", "ssl.cipher.suites", "ssl.truststore.password")
_LOGINS: Final = "org.apache.kafka.common.security."
_OAUTH: Final = "sasl.oauthbearer."


def java(path: str) -> dict[str, str]:
    """For a Java client's configuration.

    Raises: SettingsError: also for what Java's client cannot be told by reference.
    """
    if path.startswith("secret://"):
        raise SettingsError(f"{path}: Java's clients read settings from files; use --kafka_read=blocks")
    found = files.raw(path)
    for name, text in found.items():
        _in_java(text, f"{path}: {name}")
    values = librdkafka(path)
    if "sasl.mechanisms" in found:
        found["sasl.mechanism"] = found.pop("sasl.mechanisms")

    def by_reference(name: str) -> str:
        """The reference that is written, or one to what is written."""
        text = found[name]
        if not REFERENCE.search(text):
            return f"${{file:{path}:{name}}}"
        parts = login_of(text, path)[1].values() if name == "sasl.jaas.config" else [text]
        if any(not REFERENCE.fullmatch(part) for part in parts):  # what is written beside it would travel
            raise SettingsError(f"{path}: {name} mixes references and text, which Java cannot be told by reference")
        return _in_java(text, f"{path}: {name}")

    made: dict[str, str] = {name: values[name] for name in _OPEN if name in values}
    if made.get("ssl.endpoint.identification.algorithm") == "none":
        made["ssl.endpoint.identification.algorithm"] = ""
    made |= {name: by_reference(name) for name in _SAME if name in found}
    made |= {n: by_reference(n) for n in found if n.startswith(("ssl.truststore.", "ssl.keystore.")) and n not in made}
    made |= _from_librdkafka(found, values, by_reference)
    if values.get("sasl.mechanism"):
        made |= _login(found, values, by_reference, path)
    return {**_PROVIDERS, **made}


def _from_librdkafka(
    found: dict[str, str], values: dict[str, str], by_reference: Callable[[str], str]
) -> dict[str, str]:
    made: dict[str, str] = {}
    if "ssl.ca.location" in found:
        made |= {"ssl.truststore.type": "PEM", "ssl.truststore.location": by_reference("ssl.ca.location")}
    if "ssl.ca.pem" in found:
        made |= {"ssl.truststore.type": "PEM", "ssl.truststore.certificates": by_reference("ssl.ca.pem")}
    for name, theirs in (("certificate", "ssl.keystore.certificate.chain"), ("key", "ssl.keystore.key")):
        if f"ssl.{name}.location" in found:
            place = PurePosixPath(values[f"ssl.{name}.location"])
            made |= {"ssl.keystore.type": "PEM", theirs: f"${{dir:{place.parent}:{place.name}}}"}
        if f"ssl.{name}.pem" in found:
            made |= {"ssl.keystore.type": "PEM", theirs: by_reference(f"ssl.{name}.pem")}
    if "ssl.keystore.location" in found and "ssl.keystore.type" not in found:  # librdkafka's is of one kind
        made["ssl.keystore.type"] = "PKCS12"
    return made


def _login(
    found: dict[str, str], values: dict[str, str], by_reference: Callable[[str], str], path: str
) -> dict[str, str]:
    made = {n: by_reference(n) for n in (f"{_OAUTH}token.endpoint.url",) if n in found}
    if values.get(TOKENS) == GOOGLE:
        handler = "com.google.cloud.hosted.kafka.auth.GcpLoginCallbackHandler"
        login = f"{_LOGINS}oauthbearer.OAuthBearerLoginModule required;"
        return {**made, "sasl.login.callback.handler.class": handler, "sasl.jaas.config": login}
    if TOKENS in values:
        raise SettingsError(f"{path}: {TOKENS} is a function in Python; use --kafka_read=blocks")
    if values["sasl.mechanism"] == "OAUTHBEARER":
        made["sasl.login.callback.handler.class"] = f"{_LOGINS}oauthbearer.OAuthBearerLoginCallbackHandler"
    if "sasl.jaas.config" in found:
        login_of(found["sasl.jaas.config"], path)
        return {**made, "sasl.jaas.config": by_reference("sasl.jaas.config")}
    options = {"username": "sasl.username", "password": "sasl.password"}
    module = "scram.ScramLoginModule" if values["sasl.mechanism"].startswith("SCRAM") else "plain.PlainLoginModule"
    if values["sasl.mechanism"] == "OAUTHBEARER":
        module = "oauthbearer.OAuthBearerLoginModule"
        options = {
            "clientId": f"{_OAUTH}client.id",
            "clientSecret": f"{_OAUTH}client.secret",
            "scope": f"{_OAUTH}scope",
        }
    said = []
    for option, name in options.items():
        if name in found:
            if re.search(r'["\\\n]', values[name]):  # Java takes the value in before it reads the quotes
                raise SettingsError(f'{path}: {name} has a ", \\ or line end, which Java cannot be told by reference')
            said.append(f'{option}="{by_reference(name)}"')
    return {**made, "sasl.jaas.config": f"{_LOGINS}{module} required {' '.join(said)};"}


def _in_java(text: str, where: str) -> str:
    """References of ours in Java's words."""

    def one(found: re.Match[str]) -> str:
        provider, what = found[1], found[2]
        if provider == "secret":
            raise SettingsError(f"{where}: Java's clients cannot read ${{secret:…}}; use --kafka_read=blocks")
        if provider == "file" and ":" not in what:
            place = PurePosixPath(what)
            return f"${{dir:{place.parent}:{place.name}}}"
        return found[0]

    return REFERENCE.sub(one, text)
