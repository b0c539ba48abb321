"""How the registry is connected to, as the registry sees it."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from confluent_kafka import Consumer

from connections.kafka import Brokers, Connection
from connections.registry import registry_client
from connections.settings import SettingsError
from schemas.addresses import Address
from tests.connections.test_settings import written
from tests.live import eventually
from transforms.io.registry import Registry


class Seen:
    """A server that refuses all who ask, and remembers how they asked.

    Attributes:
      requests: path, Authorization and body of each.
    """

    def __init__(self) -> None:
        self.requests: list[tuple[str, str, str]] = []
        seen = self.requests

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
                seen.append((self.path, self.headers.get("Authorization", ""), body))
                answer = json.dumps({"error_code": 40101, "message": "no"}).encode()
                self.send_response(401)
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            do_POST = do_GET

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"


@pytest.fixture
def seen() -> Iterator[Seen]:
    made = Seen()
    thread = threading.Thread(target=made.server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield made
    made.server.shutdown()
    made.server.server_close()
    thread.join()


def basic(login: str) -> str:
    return f"Basic {base64.b64encode(login.encode()).decode()}"


@pytest.mark.parametrize(
    ("text", "header"),
    [
        ("basic.auth.user.info=fraud:${env:SF_TEST}", basic("fraud:hunter2")),
        (
            "schema.registry.basic.auth.credentials.source=USER_INFO\n"
            "schema.registry.basic.auth.user.info=fraud:hunter2",
            basic("fraud:hunter2"),
        ),
        ("bearer.auth.token=${env:SF_TEST}", "Bearer hunter2"),
    ],
)
def test_who_asks_is_who_the_file_says(
    seen: Seen, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, header: str
) -> None:
    monkeypatch.setenv("SF_TEST", "hunter2")
    with pytest.raises(OSError, match="no schema registry") as refused:
        Registry(Address(seen.url, written(tmp_path, text))).check()
    assert seen.requests[-1][1] == header
    assert "hunter2" not in str(refused.value)


def test_a_password_that_is_changed_is_taken_up(seen: Seen, tmp_path: Path) -> None:
    password = Path(written(tmp_path, "old", "password"))
    now_s = 0.0
    url = Address(seen.url, written(tmp_path, f"basic.auth.user.info=fraud:${{file:{password}}}"))
    registry = Registry(url, clock=lambda: now_s)
    password.write_text("new")
    for time_s, login in ((5.0, "fraud:old"), (11.0, "fraud:new")):
        now_s = time_s
        with pytest.raises(OSError, match="no schema registry"):
            registry.check()
        assert seen.requests[-1][1] == basic(login)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("basic.auth.user.info=hunter2", "not user:password"),
        ("sasl.password=hunter2", "sasl.password is none of"),
        ("ssl.truststore.type=JKS\nssl.truststore.location=/x", "read as PEM, not as JKS"),
    ],
)
def test_what_cannot_work_is_refused_without_a_value(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(SettingsError, match=says) as refused:
        registry_client(written(tmp_path, text))
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize(
    "text",
    [
        "sasl.oauthbearer.client.id=me\nsasl.oauthbearer.client.secret=hunter2\nsasl.oauthbearer.scope=kafka\n",
        "sasl.jaas.config=org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule required "
        'clientId="me" clientSecret="hunter2" scope="kafka";\n',
    ],
)
def test_a_token_for_kafka_is_asked_for_by_client_credentials(seen: Seen, tmp_path: Path, text: str) -> None:
    text += "security.protocol=SASL_PLAINTEXT\nsasl.mechanism=OAUTHBEARER\n"
    text += f"sasl.oauthbearer.token.endpoint.url={seen.url}/token\n"
    connection = Connection(Brokers("127.0.0.1:1", written(tmp_path, text)))
    consumer = Consumer({**connection.settings, "group.id": "g", "log_level": 0})
    try:
        path, login, body = eventually(lambda: seen.requests[:1], "a token is asked for")[0]
    finally:
        consumer.close()
    assert (path, login) == ("/token", basic("me:hunter2"))
    assert "grant_type=client_credentials" in body
    assert "scope=kafka" in body
