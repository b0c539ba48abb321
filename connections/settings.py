"""A file of settings in the form of Java's properties, with secrets by reference, in the syntax of Kafka's own
ConfigProviders.

    security.protocol=SASL_SSL
    sasl.mechanism=SCRAM-SHA-512
    sasl.username=fraud-detector
    sasl.password=${file:/run/secrets/kafka-password}

    ${file:PATH}            what a file holds, without the line's end after it
    ${file:PATH:KEY}        a value in another file of properties
    ${dir:FOLDER:NAME}      what FOLDER/NAME holds
    ${env:NAME}             a variable of the environment
    ${secret:PROJECT/NAME}  the newest version of a secret in Google's Secret Manager

A file is named wherever it is used, and read where a client is opened: on the worker. So what travels (job graph, jar,
checkpoint, options) holds its name, and nothing of its contents.
"""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from connections.secrets import read_secret

__all__ = ["REFERENCE", "SettingsError", "Watch", "hide", "in_secret_manager", "parse", "raw", "read", "resolve"]

REFERENCE: Final = re.compile(r"\$\{(\w+):([^}]*)\}")
_SECRET: Final = re.compile(r"([a-z][a-z0-9-]{4,28}[a-z0-9])/([A-Za-z0-9_-]{1,255})")
_ESCAPED: Final = re.compile(r"\\(u[0-9A-Fa-f]{4}|.)", re.DOTALL)
_CONTROLS: Final = {"t": "\t", "n": "\n", "r": "\r", "f": "\f"}
_LOOK_EVERY_S: Final = 10.0
_LEAST_SECRET: Final = 4


class SettingsError(ValueError):
    """A file of settings cannot be used. The message shows names, and no value."""


def in_secret_manager(path: str) -> bool:
    """Whether a file is none, but a secret: secret://project/name. It is read where it is needed, and not before.

    Raises: SettingsError: it is not written so.
    """
    if path.startswith("secret:") and not _SECRET.fullmatch(path.removeprefix("secret://")):
        raise SettingsError("it is not secret://project/secret")
    return path.startswith("secret:")


def raw(path: str) -> dict[str, str]:
    """The settings as they are written. Raises: SettingsError."""
    return parse(_text(path), path)


def read(path: str) -> dict[str, str]:
    """The settings with what they refer to in place of the references. Raises: SettingsError."""
    return {name: resolve(value, f"{path}: {name}") for name, value in raw(path).items()}


def resolve(value: str, where: str) -> str:
    """Raises: SettingsError, which begins with `where`."""

    def referred(found: re.Match[str]) -> str:
        provider, what = found[1], found[2]
        if provider not in _PROVIDERS:
            raise SettingsError(f"{where}: ${{{provider}:…}} is none of {', '.join(f'${{{p}:…}}' for p in _PROVIDERS)}")
        try:
            return _PROVIDERS[provider](what)
        except KeyError:
            raise SettingsError(f"{where}: {found[0]} is not set") from None
        except UnicodeDecodeError:
            raise SettingsError(f"{where}: {found[0]} is not text") from None
        except OSError as e:
            raise SettingsError(f"{where}: {found[0]} cannot be read: {e.strerror or e}") from None

    return REFERENCE.sub(referred, value)


def _file(what: str) -> str:
    path, _, key = what.partition(":")
    return parse(_text(path), path)[key] if key else _without_end(Path(path).read_text())


def _dir(what: str) -> str:
    folder, _, name = what.partition(":")
    return _without_end((Path(folder) / name).read_text())


def _secret(what: str) -> str:
    found = _SECRET.fullmatch(what)
    if not found:
        raise OSError("it is not PROJECT/NAME")
    return _without_end(read_secret(found[1], found[2]))


_PROVIDERS: Final[dict[str, Callable[[str], str]]] = {
    "file": _file,
    "dir": _dir,
    "env": lambda name: os.environ[name],
    "secret": _secret,
}


def _without_end(text: str) -> str:
    return text.removesuffix("\n").removesuffix("\r")


def _text(path: str) -> str:
    try:
        return _secret(path.removeprefix("secret://")) if path.startswith("secret://") else Path(path).read_text()
    except UnicodeDecodeError:
        raise SettingsError(f"{path} is not text") from None
    except OSError as e:
        raise SettingsError(f"{path} cannot be read: {e.strerror or e}") from None


def parse(text: str, path: str) -> dict[str, str]:
    """As java.util.Properties does. Raises: SettingsError."""
    found: dict[str, str] = {}
    joined = re.sub(r"(?<!\\)((?:\\\\)*)\\\r?\n[ \t\f]*", r"\1", text)
    for number, line in enumerate(joined.splitlines(), 1):
        line = line.strip(" \t\f")
        if not line or line[0] in "#!":
            continue
        split = re.fullmatch(r"((?:\\.|[^\\=: \t])+)[ \t]*[=:][ \t]*(.*)", line, re.DOTALL)
        if not split:  # and is not shown: it may be the rest of a secret
            raise SettingsError(f"{path}: line {number} is not name=value")
        name = _unescaped(split[1])
        if name in found:
            raise SettingsError(f"{path} says {name} twice")
        found[name] = _unescaped(split[2])
    return found


def _unescaped(text: str) -> str:
    def one(found: re.Match[str]) -> str:
        what = found[1]
        return chr(int(what[1:], 16)) if len(what) > 1 else _CONTROLS.get(what, what)

    return _ESCAPED.sub(one, text)


def hide(words: object, settings: Mapping[str, object]) -> str:
    """What a client says, in one line, without what its settings hold."""
    text = " ".join(str(words).split())
    values = {str(value) for name, value in settings.items() if not name.endswith((".location", ".servers"))}
    for value in sorted((v for v in values if len(v) >= _LEAST_SECRET), key=len, reverse=True):
        text = text.replace(value, "…")
    return text


class Watch:
    """Says when what a client was opened with is there no more, so that it is opened anew.

    Args:
      look: the settings as they are now; raises SettingsError.
      clock: seconds.
    """

    def __init__(self, look: Callable[[], Mapping[str, object]], clock: Callable[[], float] = time.monotonic):
        self._look, self._clock = look, clock
        self.settings = dict(look())
        self._seen, self._next_s = _fingerprint(self.settings), clock() + _LOOK_EVERY_S

    def changed(self) -> bool:
        """Looks every ten seconds. What cannot be read is about to be written."""
        if self._clock() < self._next_s:
            return False
        self._next_s = self._clock() + _LOOK_EVERY_S
        try:
            return _fingerprint(self._look()) != self._seen
        except (SettingsError, OSError):
            return False


def _fingerprint(settings: Mapping[str, object]) -> bytes:
    """Of the settings, and of what lies in the files that they name."""
    seen = hashlib.sha256()
    for name, value in sorted(settings.items()):
        if isinstance(value, str):
            seen.update(f"{name}={value}\n".encode())
            if name.endswith(".location") and (path := Path(value)).is_file():
                seen.update(path.read_bytes())
    return seen.digest()
