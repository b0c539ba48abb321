"""The options of a store's URL reach the client of jobs and that of the API, under the same names."""

from __future__ import annotations

import pytest

from connections.store_node import Node
from schemas.addresses import _OPTIONS, StoreUrl
from serving import Config
from serving.connections import connect
from transforms.io.redis import _open

SAID = {
    "db": ("3", 3),
    "username": ("u", "u"),
    "password": ("p%26", "p&"),
    "socket_timeout": ("7", 7.0),
    "socket_connect_timeout": ("0.25", 0.25),
    "socket_keepalive": ("true", True),
    "ssl_ca_certs": ("/ca.pem", "/ca.pem"),
    "ssl_ca_path": ("/ca", "/ca"),
    "ssl_certfile": ("/c.pem", "/c.pem"),
    "ssl_keyfile": ("/k.pem", "/k.pem"),
    "ssl_password": ("q", "q"),
    "ssl_check_hostname": ("false", False),
    "ssl_cert_reqs": ("required", "required"),
}
AS = {
    "ssl_ca_certs": "ca_certs",
    "ssl_ca_path": "ca_path",
    "ssl_certfile": "certfile",
    "ssl_keyfile": "keyfile",
    "ssl_password": "certificate_password",
    "ssl_check_hostname": "check_hostname",
}


ELSEWHERE = {"wait_replicas", "sentinel_username", "sentinel_password"}  # of no connection to the store


def test_every_option_is_here() -> None:
    assert SAID.keys() == _OPTIONS.keys() - ELSEWHERE


@pytest.mark.parametrize("name", sorted(SAID.keys() - {"ssl_cert_reqs"}))
def test_an_option_means_the_same_in_jobs_and_api(name: str) -> None:
    text, wanted = SAID[name]
    url = f"rediss://h?{name}={text}"
    ours = connect(Config(redis_url=StoreUrl(url)), lambda _: None)
    assert isinstance(ours, Node)
    for connection in (_open(StoreUrl(url)).connection_pool.make_connection(), ours._kind(**ours._settings)):
        assert getattr(connection, AS.get(name, name)) == wanted


def test_certificates_are_asked_for_as_the_url_says() -> None:
    for text in ("none", "required"):
        url = f"rediss://h?ssl_cert_reqs={text}&ssl_check_hostname=false"
        ours = connect(Config(redis_url=StoreUrl(url)), lambda _: None)
        assert isinstance(ours, Node)
        job = _open(StoreUrl(url)).connection_pool.make_connection()
        assert job.cert_reqs == ours._kind(**ours._settings).cert_reqs  # type: ignore[attr-defined]
