"""Which errors of a store are waited for: its state, whatever it is called, never what is wrong with our command."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.store_errors import _ACCESS, _COMMAND, about

STATE = [
    "LOADING Redis is loading the dataset in memory",
    "READONLY You can't write against a read only replica.",
    "NOREPLICAS Not enough good replicas to write.",
    "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
    "CLUSTERDOWN Hash slot not served",
    "TRYAGAIN Multiple keys request during rehashing of slot",
    "MISCONF Errors writing to the AOF file: No space left on device",
    "OOM command not allowed when used memory > 'maxmemory'. script: abc, on @user_script:1.",
    "BUSY Redis is busy running a script.",
    "IOERR error or timeout reading to target instance",
    "ERR max number of clients reached",
    "ERR Error running script (call to f_1): @user_script:1: @user_script: 1: -OOM command not allowed when used",
    "ERR Error running script (call to f_1): @user_script:1: -READONLY You can't write against a read only replica.",
]
ACCESS = [
    "NOAUTH Authentication required.",
    "WRONGPASS invalid username-password pair or user is disabled.",
    "NOPERM User app has no permissions to run the 'eval' command",
    "ERR invalid password",
    "ERR Client sent AUTH, but no password is set",
    "ERR AUTH <password> called without any password configured for the default user. Are you sure?",
    "ERR DB index is out of range",
    "ERR unknown command 'EVAL', with args beginning with: ",
    "DENIED Redis is running in protected mode because protected mode is enabled",
    "MOVED 3999 127.0.0.1:6381",
]
COMMAND = [
    "ERR wrong number of arguments for 'hset' command",
    "WRONGTYPE Operation against a key holding the wrong kind of value",
    "ERR user_script:1: attempt to compare nil with number script: abc, on @user_script:1.",
    "ERR Error running script (call to f_1): @user_script:3: user_script:3: attempt to index a nil value",
    "NOSCRIPT No matching script.",
    "CROSSSLOT Keys in request don't hash to the same slot",
    "something else",
]


@pytest.mark.parametrize(
    ("reply", "wanted"),
    [(r, "state") for r in STATE] + [(r, "access") for r in ACCESS] + [(r, "command") for r in COMMAND],
)
def test_an_error_is_about_the_store_its_door_or_our_command(reply: str, wanted: str) -> None:
    assert about(reply) == wanted


@given(
    st.text("ABCDEFGHIJKLMNOPQRSTUVWXYZ", min_size=2, max_size=14).filter(lambda code: code not in _ACCESS | _COMMAND)
)
def test_a_code_that_nobody_knows_yet_is_waited_for(code: str) -> None:
    assert about(f"{code} something is the matter") == "state"
