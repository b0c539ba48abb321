"""An address that Secret Manager keeps: read by the worker, and in nothing that is submitted or logged."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import google.auth
import pytest
import redis
from google.auth.credentials import AnonymousCredentials
from google.auth.exceptions import DefaultCredentialsError

from connections import secrets
from connections.secrets import read_secret
from stack import Stack
from transforms.io.redis import RedisFn, _connect

CERTIFICATES = "-----BEGIN CERTIFICATE-----\nnobody's\n-----END CERTIFICATE-----"


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """What a Secret Manager of our own keeps, by project/name."""
    of_name: dict[str, str] = {}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            _, projects, project, kind, name, *version = self.path.split("/")
            found = of_name.get(f"{project}/{name}")
            if (projects, kind, version) != ("projects", "secrets", ["versions", "latest:access"]) or found is None:
                self.send_error(404)
                return
            body = json.dumps({"payload": {"data": base64.b64encode(found.encode()).decode()}}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        monkeypatch.setattr(secrets, "_ROOT", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setattr(google.auth, "default", lambda **_: (AnonymousCredentials(), None))
        yield of_name
        server.shutdown()
        thread.join()


def test_a_worker_finds_the_store_by_the_secrets_name(kept: dict[str, str], valkey: Stack, db: redis.Redis) -> None:
    kept["shop-1/redis-url"] = f"{valkey.redis_url}\n"
    fn = RedisFn("secret://shop-1/redis-url")
    fn.setup()
    assert fn._run("return redis.call('SET', KEYS[1], ARGV[1])", ["found"], ["yes"]) == b"OK"
    fn.teardown()
    assert db.get("found") == b"yes"


def test_certificates_are_those_of_the_other_secret(kept: dict[str, str]) -> None:
    kept["shop-1/redis-url"] = "rediss://:drawn@10.0.0.3:6378/0"
    kept["shop-1/redis-ca"] = CERTIFICATES
    _, client = _connect("secret://shop-1/redis-url?ca=redis-ca")
    with client:
        found = client.connection_pool.connection_kwargs
        assert (found["host"], found["port"], found["password"]) == ("10.0.0.3", 6378, "drawn")
        assert found["ssl_ca_data"] == CERTIFICATES


@pytest.mark.parametrize("name", ["redis-ca", "redis-url"])
def test_a_secret_that_is_not_there_is_an_error_that_the_runner_tries_again(kept: dict[str, str], name: str) -> None:
    kept.update({"shop-1/redis-url": "rediss://h:1/0", "shop-1/redis-ca": CERTIFICATES})
    del kept[f"shop-1/{name}"]
    with pytest.raises(OSError, match=f"404 .*{name}"):
        _connect("secret://shop-1/redis-url?ca=redis-ca")


def test_no_credentials_are_an_error_that_names_the_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(scopes: list[str]) -> None:
        raise DefaultCredentialsError("there are none")

    monkeypatch.setattr(google.auth, "default", refuse)
    with pytest.raises(OSError, match="secret redis-url of shop-1 cannot be read: there are none"):
        read_secret("shop-1", "redis-url")
