"""What `helm test` runs: python -c THIS http://streamforge-api [--keys]. Nothing but Python's own library."""

import json
import os
import sys
import time
import urllib.error
import urllib.request

WITHIN_S = 60  # a rollout may be under way


def ask(path, body=None, key=None):
    """Status and JSON of an answer."""
    headers = {"Content-Type": "application/json"} | ({"X-API-Key": key} if key else {})
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"{sys.argv[1]}/api/v1{path}", data, headers)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as e:
        with e:
            return e.code, json.load(e)


def expect(what, is_so, answer):
    if not is_so:
        sys.exit(f"{what}: not so, the answer was {answer}")
    print(f"{what}: yes")


def ready():
    give_up = time.monotonic() + WITHIN_S
    while True:
        try:
            answer = ask("/health/ready")
        except OSError as e:
            answer = None, str(e)
        if answer[0] == 200 or time.monotonic() > give_up:
            return answer
        time.sleep(1)


def main():
    # A Secret that was made of a file ends with its newline, which no header may hold.
    keys, key = "--keys" in sys.argv, os.environ.get("API_KEY", "").strip()
    answer = ready()
    expect("the API is there and reaches its store", answer[0] == 200, answer)
    users = {"user_ids": ["helm-test"]}
    if keys:
        answer = ask("/features", users)
        expect("without a key it is closed", answer[0] == 401, answer)
        if not key:
            return
    answer = ask("/features", users, key)
    # Nothing is known of this user: the store was asked, and had an answer.
    known = answer[1].get("missing") == ["helm-test"] and answer[1].get("data") == []
    expect("it answers for many users at once", answer[0] == 200 and known, answer)


main()
