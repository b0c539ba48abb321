"""Kafka's settings: librdkafka's names, Java's, and one made of the other."""

from __future__ import annotations

import base64
import json
import pickle
from datetime import UTC, datetime
from pathlib import Path

import google.auth
import google.auth.credentials
import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException

from connections.java import java
from connections.kafka import Brokers, Connection, librdkafka
from connections.settings import SettingsError
from tests.connections.test_settings import written

SCRAM = "security.protocol=SASL_SSL\nsasl.mechanism=SCRAM-SHA-512\nsasl.username=fraud\nsasl.password=hunter2\n"
SAME = {"security.protocol": "SASL_SSL", "sasl.mechanism": "SCRAM-SHA-512"}


@pytest.mark.parametrize(
    ("text", "means"),
    [
        (SCRAM, {**SAME, "sasl.username": "fraud", "sasl.password": "hunter2"}),
        (
            "security.protocol=SASL_SSL\nsasl.mechanism=SCRAM-SHA-512\nsasl.jaas.config=org.apache.kafka.common."
            'security.scram.ScramLoginModule required \\\n  username="fraud" password="hun\\\\"ter2";\n'
            "ssl.truststore.type=PEM\nssl.truststore.location=/ca.pem\n",
            {**SAME, "sasl.username": "fraud", "sasl.password": 'hun"ter2', "ssl.ca.location": "/ca.pem"},
        ),
        (
            "security.protocol=SSL\nssl.keystore.type=PEM\nssl.keystore.location=/me.pem\n"
            "ssl.endpoint.identification.algorithm=\n",
            {
                "security.protocol": "SSL",
                "ssl.certificate.location": "/me.pem",
                "ssl.key.location": "/me.pem",
                "ssl.endpoint.identification.algorithm": "none",
            },
        ),
        (
            "security.protocol=SASL_SSL\nsasl.mechanism=OAUTHBEARER\n"
            "sasl.oauthbearer.token.endpoint.url=https://idp/token\n"
            "sasl.login.callback.handler.class=org.apache.kafka.common.security.oauthbearer.X\n"
            "sasl.jaas.config=org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule required "
            'clientId="me" clientSecret="hunter2" scope="kafka" extension_logicalCluster="lkc-1";\n',
            {
                "security.protocol": "SASL_SSL",
                "sasl.mechanism": "OAUTHBEARER",
                "sasl.oauthbearer.method": "oidc",
                "sasl.oauthbearer.token.endpoint.url": "https://idp/token",
                "sasl.oauthbearer.client.id": "me",
                "sasl.oauthbearer.client.secret": "hunter2",
                "sasl.oauthbearer.scope": "kafka",
                "sasl.oauthbearer.extensions": "logicalCluster=lkc-1",
            },
        ),
    ],
)
def test_a_file_in_either_form_says_the_same_to_librdkafka(tmp_path: Path, text: str, means: dict[str, str]) -> None:
    path = written(tmp_path, text)
    assert librdkafka(path) == means


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("security.protocol=hunter2", "security.protocol is none of"),
        ("security.protocol=SASL_SSL", "sasl.mechanism is none of"),
        ("security.protocol=SASL_SSL\nsasl.mechanism=PLAIN\nsasl.username=hunter2", "sasl.password is missing"),
        ("sasl.mechanism=PLAIN", "needs security.protocol SASL_SSL"),
        ("ssl.ca.location=/ca.pem", "needs security.protocol SSL"),
        ("security.protocl=SSL", "security.protocl is not taken; did you mean security.protocol"),
        ("bootstrap.servers=b:9092", "bootstrap.servers is not taken; addresses are in"),
        ("security.protocol=SSL\nssl.truststore.location=/a.jks", "ssl.truststore.type is JKS; write PEM"),
        ("sasl.jaas.config=hunter2", "is not Module required"),
    ],
)
def test_what_cannot_work_is_refused_without_a_value(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(SettingsError, match=says) as refused:
        librdkafka(written(tmp_path, text))
    assert "hunter2" not in str(refused.value)


def test_only_the_files_name_travels(tmp_path: Path) -> None:
    brokers = Brokers("a:1,b:2", written(tmp_path, SCRAM))
    travelled = pickle.loads(pickle.dumps(brokers))
    assert (travelled, travelled.config) == ("a:1,b:2", brokers.config)
    assert b"hunter2" not in pickle.dumps(brokers)
    assert Connection(travelled).settings["sasl.password"] == "hunter2"


def test_plain_servers_are_connected_to_without_a_file() -> None:
    settings = Connection("a:1").settings
    assert {name: value for name, value in settings.items() if name != "error_cb"} == {"bootstrap.servers": "a:1"}


def test_a_token_comes_from_a_function_that_is_named_and_its_failure_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "shop_tokens.py").write_text("def fetch(settings):\n    raise OSError('the door is closed')\n")
    monkeypatch.syspath_prepend(tmp_path)
    text = "security.protocol=SASL_SSL\nsasl.mechanism=OAUTHBEARER\nstreamforge.oauth.tokens=shop_tokens:fetch\n"
    connection = Connection(Brokers("a:1", written(tmp_path, text)))
    with pytest.raises(OSError, match="closed"):
        connection.settings["oauth_cb"]("")
    error = KafkaException(KafkaError(KafkaError._TRANSPORT, "no more than that"))
    assert connection.why(error) == "no token from shop_tokens:fetch: OSError: the door is closed"


def test_googles_token_is_that_of_whoever_runs_this(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the form that Google's own handler for Java's clients makes: three parts, each in base64url."""

    class Credentials(google.auth.credentials.Credentials):
        service_account_email = "jobs@shop.example"

        def refresh(self, request: object) -> None:  # noqa: ARG002
            self.token, self.expiry = "access-token", datetime(2030, 1, 1)

    monkeypatch.setattr(google.auth, "default", lambda **_: (Credentials(), "shop"))
    text = "security.protocol=SASL_SSL\nsasl.mechanism=OAUTHBEARER\nstreamforge.oauth.tokens=google\n"
    path = written(tmp_path, text)
    token, expiry_s = Connection(Brokers("a:1", path)).settings["oauth_cb"]("")
    head, claims, access = (base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)) for part in token.split("."))
    assert json.loads(head) == {"typ": "JWT", "alg": "GOOG_OAUTH2_TOKEN"}
    assert json.loads(claims)["sub"] == "jobs@shop.example"
    assert json.loads(claims)["exp"] == expiry_s == datetime(2030, 1, 1, tzinfo=UTC).timestamp()
    assert access == b"access-token"
    assert java(path)["sasl.login.callback.handler.class"].endswith("GcpLoginCallbackHandler")


def test_librdkafka_takes_what_is_made_for_it(tmp_path: Path) -> None:
    Consumer({**Connection(Brokers("127.0.0.1:1", written(tmp_path, SCRAM))).settings, "group.id": "g"}).close()


def test_java_is_told_where_values_are_and_never_what_they_are(tmp_path: Path) -> None:
    written(tmp_path, "hunter2", "password")
    path = written(
        tmp_path,
        "security.protocol=SASL_SSL\nsasl.mechanism=SCRAM-SHA-512\nsasl.username=fraud-of-shop\n"
        f"sasl.password=${{file:{tmp_path}/password}}\nssl.ca.location=/ca.pem\n"
        "ssl.certificate.location=/tls/tls.crt\nssl.key.location=/tls/tls.key\nssl.key.password=hunter3\n",
    )
    made = java(path)
    assert not any(secret in value for value in made.values() for secret in ("hunter", "fraud-of-shop"))
    assert made["sasl.jaas.config"] == (
        "org.apache.kafka.common.security.scram.ScramLoginModule required "
        f'username="${{file:{path}:sasl.username}}" password="${{dir:{tmp_path}:password}}";'
    )
    assert made["ssl.truststore.location"] == f"${{file:{path}:ssl.ca.location}}"
    assert made["ssl.keystore.key"] == "${dir:/tls:tls.key}"
    assert made["ssl.key.password"] == f"${{file:{path}:ssl.key.password}}"
    assert made["config.providers"] == "file,dir,env"


@pytest.mark.parametrize(
    ("password", "says"),
    [
        ('a\\"b', 'has a "'),
        ("${secret:a-project/b}", r"cannot read \$\{secret:…\}"),
        ("a${env:HOME}", "mixes references and text"),
    ],
)
def test_what_java_cannot_be_told_by_reference_is_refused(tmp_path: Path, password: str, says: str) -> None:
    with pytest.raises(SettingsError, match=says):
        java(written(tmp_path, SCRAM.replace("hunter2", password)))
