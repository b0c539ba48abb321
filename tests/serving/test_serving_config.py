import dataclasses

import pytest

from serving import Config, ConfigError


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
