"""What Kafka's Java client makes of the references that the native read gives it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from connections.java import java
from schemas.jobs import JOBS
from stack.java import jvm
from stack.job_server import built_job_server_jar
from stack.secure import Secure
from tests.connections.test_settings import written

pytestmark = pytest.mark.stack

# Opens a consumer, which logs in and reads its certificates before it looks for a broker, and says what it was told.
OPEN = """
import java.nio.file.*;
import java.util.*;
import org.apache.kafka.clients.consumer.*;
import org.apache.kafka.common.config.types.Password;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;

public class Open {
  public static void main(String[] arguments) throws Exception {
    Map<String, Object> given = new HashMap<>();
    for (String line : Files.readAllLines(Path.of(arguments[0]))) {
      given.put(line.substring(0, line.indexOf('\\t')), line.substring(line.indexOf('\\t') + 1));
    }
    given.put("bootstrap.servers", "127.0.0.1:1");
    given.put("key.deserializer", ByteArrayDeserializer.class);
    given.put("value.deserializer", ByteArrayDeserializer.class);
    ConsumerConfig read = new ConsumerConfig(given);
    for (String name : List.of("sasl.jaas.config", "ssl.keystore.key", "ssl.key.password")) {
      Password value = read.getPassword(name);
      System.out.println(name + "\\t" + (value == null ? "" : value.value().replace("\\n", "|")));
    }
    System.out.println("ssl.truststore.location\\t" + read.getString("ssl.truststore.location"));
    new KafkaConsumer<byte[], byte[]>(given).close();
  }
}
"""


def opened(folder: Path, settings: dict[str, str]) -> dict[str, str]:
    """What the client found, by name."""
    given = written(folder, "".join(f"{name}\t{value}\n" for name, value in settings.items()), "given")
    source = written(folder, OPEN, "Open.java")
    command = [*jvm("128m"), "-cp", str(built_job_server_jar()), source, given]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return dict(line.split("\t", 1) for line in done.stdout.splitlines() if "\t" in line)


@pytest.fixture
def secure(tmp_path: Path) -> Secure:
    made = Secure(tmp_path / "secure")
    made.make()
    return made


def test_a_password_is_followed_to_its_file(secure: Secure, tmp_path: Path) -> None:
    name = JOBS["fraud"].name
    found = opened(tmp_path, java(str(secure.kafka(name))))
    assert f'username="{name}" password="{secure.password(name)}"' in found["sasl.jaas.config"]
    assert found["ssl.truststore.location"] == str(secure.ca)


def test_a_certificate_and_its_key_are_followed_to_theirs(secure: Secure, tmp_path: Path) -> None:
    name = JOBS["fraud"].name
    found = opened(tmp_path, java(str(secure.kafka(name, mutual=True))))
    assert found["ssl.keystore.key"].replace("|", "\n").strip() == secure.key(name).read_text().strip()


def test_javas_own_names_and_the_environment_work_too(
    secure: Secure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SF_TEST", "hunter2")
    settings = (
        "security.protocol=SASL_SSL\nsasl.mechanism=PLAIN\nssl.truststore.type=PEM\n"
        f"ssl.truststore.location={secure.ca}\nsasl.jaas.config=org.apache.kafka.common.security.plain."
        'PlainLoginModule required username="${env:SF_TEST}" password="${env:SF_TEST}";\n'
    )
    made = java(written(tmp_path, settings))
    assert not any("hunter2" in value for value in made.values())
    assert 'password="hunter2"' in opened(tmp_path, made)["sasl.jaas.config"]
