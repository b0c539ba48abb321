import re


def test_the_page_loads_only_what_this_server_has(client):
    page = client.get("/")
    assert page.status_code == 200
    assert page.content_type.startswith("text/html")
    addresses = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert "/page.js" in addresses
    for address in addresses:
        assert client.get(address).status_code == 200, address
    for path in ("/", "/page.js", "/page.css"):
        assert not re.search(r"https?://|//[a-z]+\.", client.get(path).text), "no other host"


def test_the_page_runs_nothing_inline_and_its_policy_forbids_it(client):
    page = client.get("/")
    policy = page.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "http" not in policy
    assert "<style" not in page.text
    assert not re.search(r"<script(?![^>]*src=)|\son\w+=|style=", page.text)
    assert "innerHTML" not in client.get("/page.js").text


def test_an_unchanged_page_is_not_sent_again(client):
    tag = client.get("/page.js").headers["ETag"]
    assert client.get("/page.js", headers={"If-None-Match": tag}).status_code == 304
