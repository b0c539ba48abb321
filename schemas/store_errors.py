"""Classifies errors that the online store answers with, for jobs and API alike; imports no client."""

from __future__ import annotations

import re
from typing import Final, Literal

__all__ = ["About", "about", "distrusted", "words_of"]

About = Literal["command", "access", "state"]

_COMMAND: Final = frozenset(
    {"ERR", "WRONGTYPE", "NOSCRIPT", "EXECABORT", "CROSSSLOT", "NOPROTO", "UNKILLABLE", "NOTBUSY"}
)
_ACCESS: Final = frozenset({"NOAUTH", "WRONGPASS", "NOPERM", "DENIED", "MOVED", "ASK"})
_NO_ACCESS: Final = re.compile(
    "invalid password|no password is set|without any password|'auth' command|DB index is out of range|"
    "SELECT is not allowed|invalid DB index|unknown command .?(AUTH|SELECT|EVAL)",
    re.IGNORECASE,
)
_BUSY: Final = re.compile("max number of clients|shutting down|problem with LDAP", re.IGNORECASE)
_CERTIFICATE: Final = re.compile(
    "certificate[_ ](verify|expired|required|unknown|revoked)|unknown[_ ]ca", re.IGNORECASE
)
_CODE: Final = re.compile(r"[A-Z][A-Z_]+(?= )")
_OF_A_SCRIPT: Final = re.compile(r"(?<=[\s:]-)[A-Z][A-Z_]+(?= )")  # as Redis before version 7 puts it


def about(reply: str) -> About:
    """Whether an error is about what we sent, about who we are or which database we named, or about the store's state.

    The store's state is whatever is not known to be one of the others: servers invent codes (NOREPLICAS, MISCONF,
    CLUSTERDOWN, …), and waiting for one that never passes does less harm than a job that ends over one that does.

    Args:
      reply: with its code first, as servers write it.
    """
    inner = _OF_A_SCRIPT.search(reply)
    code = inner or _CODE.match(reply)
    if code is None:
        return "command"
    if code[0] in _ACCESS or (code[0] == "ERR" and _NO_ACCESS.search(reply)):
        return "access"
    if code[0] in _COMMAND and not _BUSY.search(reply):
        return "command"
    return "state"


def distrusted(error: Exception) -> bool:
    """Whether there is no connection because of a certificate: one that nobody known has signed, that has expired, or
    that is another name's."""
    return _CERTIFICATE.search(str(error)) is not None


def words_of(error: Exception) -> str:
    """What the server said: redis-py takes away the codes that it knows, and keeps them beside."""
    code = getattr(error, "status_code", None)
    return f"{code} {error}" if code and not str(error).startswith(code) else str(error)
