"""An address never shows what may be secret, whatever is wrong with it; and its options mean one thing."""

from __future__ import annotations

import copy
import pickle
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.addresses import Address, StoreUrl, scrub, shown

SECRET = "s3cr3t-Geheim"


def test_an_address_shows_neither_user_nor_password_nor_options() -> None:
    url = StoreUrl(f"rediss://app:{SECRET}@h:6380/2?socket_timeout=3&ssl_password={SECRET}")
    for text in (str(url), repr(url), f"{url}", f"{url!r:>5}", "%s" % url, str([url]), repr({"a": url})):  # noqa: UP031
        assert SECRET not in text
        assert "app" not in text
    assert str(url) == "rediss://h:6380/2"
    assert SECRET in url.reveal()
    for again in (pickle.loads(pickle.dumps(url)), copy.deepcopy(url)):
        assert (again, again.settings, str(again)) == (url, url.settings, str(url))


@pytest.mark.parametrize(
    ("text", "settings"),
    [
        ("redis://h", {}),
        ("redis://h:1/0", {"port": 1}),
        ("redis://h/", {}),
        ("redis://[::1]:6379/3", {"host": "::1", "db": 3}),
        ("redis://h?db=7", {"db": 7}),
        ("redis://:p%40%3A%2F%3F%23s%25@h", {"password": "p@:/?#s%"}),
        ("redis://u:p@h", {"username": "u", "password": "p"}),
        ("redis://h?password=p%26q&username=u", {"username": "u", "password": "p&q"}),
        (
            "redis://h?socket_timeout=0.5&socket_connect_timeout=2",
            {"socket_timeout": 0.5, "socket_connect_timeout": 2.0},
        ),
        (
            "rediss://h?ssl_cert_reqs=none&ssl_check_hostname=false",
            {"ssl_cert_reqs": "none", "ssl_check_hostname": False},
        ),
        ("rediss://h?ssl_ca_certs=/etc/ca.pem", {"ssl_ca_certs": "/etc/ca.pem"}),
    ],
)
def test_what_a_store_url_says_are_the_clients_settings(text: str, settings: dict[str, Any]) -> None:
    url = StoreUrl(text)
    assert url.settings == {"host": "h", "port": 6379, "db": 0} | settings
    assert url.tls == text.startswith("rediss")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("redis://h/x", "redis://h/x is not redis://host:port/db: db is not a database's number"),
        ("redis://h/-1", "db is not a database's number"),
        ("redis://h/1/2", "db is not"),
        ("redis://h?db=one", "db is not"),
        ("redis://h/1?db=2", "says db twice"),
        ("redis://u:p@h?password=q", "says password twice"),
        ("redis://h?socket_timeout=0", "socket_timeout is not seconds"),
        ("redis://h?socket_timeout=nan", "socket_timeout is not seconds"),
        ("redis://h?socket_timeout=soon", "socket_timeout is not seconds"),
        ("redis://h?max_connections=3", "has an option that is none of db, "),
        ("redis://h?ssl_ca_certs=x", "ssl_ca_certs needs rediss://"),
        ("rediss://h?ssl_cert_reqs=maybe", "ssl_cert_reqs is not none, optional or required"),
        ("rediss://h?ssl_check_hostname=2", "ssl_check_hostname is not true or false"),
        ("redis://h:0", "redis://h:0 is not redis://host:port/db"),
        ("redis://h:99999/0", "redis://h:99999/0 is not redis://host:port/db"),
        ("redis://", "redis:// is not redis://host:port/db"),
        ("redis://[::1", "is not redis://host:port/db"),
        ("http://h", "http://h is not redis://host:port/db"),
        ("h:6379", "h:6379 is not redis://host:port/db"),
        ("", "is not redis://host:port/db"),
        ("redis+cluster://h:1,h:2/3", "is not redis+cluster://host:port[,host:port]"),
        ("redis+cluster://h:1,", "is not redis+cluster://host:port[,host:port]"),
        ("redis+cluster://h:1,h:0", "is not redis+cluster://host:port[,host:port]"),
        ("redis+cluster://h:1,h:99999", "is not redis+cluster://host:port[,host:port]"),
        ("redis+sentinel://h:1,h:2", "is not redis+sentinel://host:port[,host:port]/service"),
        ("redis+sentinel://h/shop/x", "/service: db is not a database's number"),
        ("redis+other://h", "is not redis://host:port/db"),
        ("redis://h:1,h:2/0", "is not redis://host:port/db"),
        ("redis+sentinel://h/shop?ssl_ca_certs=x", "ssl_ca_certs needs rediss://"),
        ("redis://h?sentinel_password=x", "sentinel_password needs redis+sentinel://"),
        ("redis://h?wait_replicas=11", "wait_replicas is not a whole number, at most 10"),
        ("redis://h?wait_replicas=-1", "wait_replicas is not a whole number, at most 10"),
    ],
)
def test_another_url_is_refused_by_name(text: str, why: str) -> None:
    with pytest.raises(ValueError) as refused:  # noqa: PT011 - what it says is looked at
        StoreUrl(text)
    assert why in str(refused.value)


@pytest.mark.parametrize(
    ("text", "tls", "cluster", "service", "servers"),
    [
        ("redis://h:1", False, False, "", [("h", 1)]),
        ("redis+cluster://h", False, True, "", [("h", 6379)]),
        ("rediss+cluster://u:p%2C@h:1,[::1]:2,i/0", True, True, "", [("h", 1), ("::1", 2), ("i", 6379)]),
        ("redis+sentinel://h:1,i/shop-1", False, False, "shop-1", [("h", 1), ("i", 26379)]),
        ("rediss+sentinel://:p@h/shop/3?sentinel_password=q", True, False, "shop", [("h", 26379)]),
    ],
)
def test_a_store_may_be_a_cluster_or_what_sentinels_name(
    text: str, tls: bool, cluster: bool, service: str, servers: list[tuple[str, int]]
) -> None:
    url = StoreUrl(text)
    assert (url.tls, url.cluster, url.service, url.servers) == (tls, cluster, service, servers)
    assert url.settings["db"] == (3 if text.startswith("rediss+sentinel") else 0)
    assert pickle.loads(pickle.dumps(url)).servers == servers
    assert "p" not in str(url).partition("@")[2]


MALFORMED = [
    "redis+cluster://u:{}@h:1,h:port",
    "redis+cluster://u:{0}@h:1,u:{0}@h:2",
    "redis+cluster://h:1,u:{}@",
    "redis+sentinel://u:{}@h:1",
    "redis+sentinel://u:{}@h:1,i/shop/x",
    "redis+sentinel://h:1/shop?sentinel_password={}&x=1",
    "redis+sentinel:/u:{}@h:6379/shop",
    "redis://:{}@h:port/0",
    "redis://:{}/x@h:6379/0",
    "redis://:x/{}@h:6379/0",
    "redis://:x#{}@h:6379/0",
    "redis://:x?{}@h:6379/0",
    "redis://:x?{}=y@h:6379/0",
    "redis://:x@{}@h:6379/0/1",
    "redis://:[{}@h:6379/0",
    "redis://:{}@[::1",
    "redis://:a {} b@h:6379/0 1",
    "redis://h:{}/0",
    "redis://u:{}",
    "redis://u:{}:6379/0",
    "redis://h:6379/0?{}",
    "redis://h:6379/0?{}=1",
    "redis://h:6379/0?password={}&x=1",
    "redis://h:6379/0?socket_timeout={}",
    "redis://h:6379/0?db={}",
    "redis://h:6379/0#{}",
    "redis://u:{}@h:6379/0?password=x",
    "redis://u:{}@",
    "redis//u:{}@h:6379/0",
    "redis:/u:{}@h:6379/0",
    "redis:u:{}@h:6379/0",
    "u:{}@h:6379",
    ":{}@h",
    "REDIS://u:{}@h:x",
    "redis://u:{}@h:6379\\0",
    "ftp://u:{}@h:6379/0",
    "http://u:{}@h:port/x",
    "https://u:{}@h:8081/x@y",
]
"""A secret in every position of a URL that cannot be right."""


@pytest.mark.parametrize("shape", MALFORMED)
@pytest.mark.parametrize("kind", [Address, StoreUrl])
def test_no_refusal_shows_a_secret(shape: str, kind: type[Address]) -> None:
    with pytest.raises(ValueError) as refused:  # noqa: PT011
        kind(shape.format(SECRET))
    assert SECRET not in str(refused.value)
    assert scrub(f"argument --x: {refused.value}") == f"argument --x: {refused.value}", "the reason is shown whole"
    assert refused.value.__cause__ is None
    assert SECRET not in scrub(f"invalid choice: {shape.format(SECRET)!r}; see --help") or "@" not in shape
    assert SECRET not in shown(shape.format(SECRET))


@given(st.text(min_size=8), st.sampled_from([shape for shape in MALFORMED if "@" in shape]))
def test_whatever_the_password_is_no_refusal_shows_it(password: str, shape: str) -> None:
    password = f"{SECRET}{password}{SECRET}"
    try:
        said = str(StoreUrl(shape.format(password)))
    except ValueError as e:
        said = str(e)
    assert SECRET not in said


@given(st.text(min_size=1).filter(lambda text: text.isprintable()))
def test_a_password_that_is_percent_encoded_arrives_as_it_is_and_is_hidden(password: str) -> None:
    url = StoreUrl(f"redis://u:{quote(password, safe='')}@h:6379/0")
    assert url.settings["password"] == password
    again = StoreUrl(f"redis://u:{quote(SECRET + password, safe='')}@h:6379/0")
    assert SECRET not in again.hide(f"Error {SECRET}{password} and {again.reveal()}")


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("redis://h:6379/0", "redis://h:6379/0"),
        ("kafka://a:9092,b:9092/orders", "kafka://a:9092,b:9092/orders"),
        ("kafka://h:9092,/topic", "kafka://h:9092,/topic"),
        ("gs://bucket/a/*.avro", "gs://bucket/a/*.avro"),
        ("127.0.0.1:8081", "127.0.0.1:8081"),
        ("kafka://h:Secret/topic", "kafka://…"),
        ("kafka://u:p@h:1/topic", "kafka://…"),
        ("secret://shop-1/a?key=b", "secret://…"),
        ("u:p@h", "…"),
    ],
)
def test_only_what_can_hold_no_password_is_shown(text: str, wanted: str) -> None:
    assert shown(text) == wanted
    if "://" in text or "@" in text:
        assert scrub(f"unrecognized arguments: {text}") == f"unrecognized arguments: {wanted}"
