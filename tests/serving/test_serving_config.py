import dataclasses

import pytest

from serving import Config, ConfigError
from serving.connections import check_store, store_settings


@pytest.mark.parametrize(
    "url", ["redis://h", "redis://h:1/0", "rediss://user:p%40ss@h:6380/15", "redis://[::1]:6379/0", "redis://h/"]
)
def test_redis_urls_are_taken(url):
    assert Config(redis_url=url).redis_url == url


@pytest.mark.parametrize(
    "url",
    [
        "",
        "h:6379",
        "http://h",
        "redis://",
        "redis://h:99999",
        "redis://h:0",
        "redis://h/x",
        "redis://h/0?db=1",
        "redis://[::1",
    ],
)
def test_other_urls_are_refused_before_the_start(url):
    with pytest.raises(ConfigError, match="redis URL"):
        Config(redis_url=url)


def test_a_refused_url_does_not_show_its_password():
    with pytest.raises(ConfigError) as e:
        Config(redis_url="http://user:secret@host/0")
    assert "secret" not in str(e.value)


@pytest.mark.parametrize("field", ["redis_timeout_s", "redis_connections", "retry_after_s"])
@pytest.mark.parametrize("bad", [0, -1, 10_000, float("nan")])
def test_numbers_out_of_range_are_refused_by_name(field, bad):
    with pytest.raises(ConfigError, match=field):
        dataclasses.replace(Config(), **{field: bad})


@pytest.mark.parametrize(
    ("who", "path", "why"), [("nobody:s3cr3t@", "", "WRONGPASS"), ("", "/77", "DB index is out of range")]
)
def test_a_store_that_will_never_let_us_read_is_refused_before_the_start(valkey, who, path, why):
    with pytest.raises(ConfigError, match=why) as refused:
        check_store(Config(redis_url=f"redis://{who}{valkey.address('valkey')}{path}"))
    assert "s3cr3t" not in str(refused.value)


def test_a_store_that_does_not_answer_is_no_reason_not_to_start(valkey):
    check_store(Config(redis_url="redis://127.0.0.1:1"))
    check_store(Config(redis_url=valkey.redis_url))


def test_options_in_the_url_win_over_flags():
    settings = store_settings(Config(redis_url="redis://h:1/3?password=p&socket_timeout=7", redis_timeout_s=0.2))
    assert settings == {
        "host": "h",
        "port": 1,
        "db": 3,
        "password": "p",
        "socket_timeout": 7.0,
        "socket_connect_timeout": 0.2,
    }
