import os
import socket

from stack.ports import HOST, holder, is_free, pick_free


def test_a_port_with_a_listener_is_not_free_and_its_holder_is_named() -> None:
    port = pick_free(set())
    assert is_free(port)
    with socket.create_server((HOST, port)):
        assert not is_free(port)
        assert f"pid {os.getpid()}" in holder(port)


def test_a_listener_on_all_interfaces_takes_the_port_too() -> None:
    port = pick_free(set())
    with socket.create_server(("0.0.0.0", port)):
        assert not is_free(port)


def test_picked_ports_are_not_those_already_taken() -> None:
    taken = set(range(20000, 31999))
    assert pick_free(taken) == 31999
