"""Google's Secret Manager. A secret is read where it is used, so that no flag, job or log ever holds it."""

from __future__ import annotations

import base64

__all__ = ["read_secret"]

_ROOT = "https://secretmanager.googleapis.com/v1"
_TIMEOUT_S = 10


def read_secret(project: str, name: str) -> str:
    """The newest version of a secret, with the rights of whoever runs this.

    Raises:
      OSError: it cannot be read.
    """
    # Here, as only jobs that name a secret need Google's libraries.
    import google.auth
    from google.auth.exceptions import GoogleAuthError
    from google.auth.transport.requests import AuthorizedSession

    try:
        credentials, _ = google.auth.default(scopes=["https://www.googleapis.com/auth/cloud-platform"])
        url = f"{_ROOT}/projects/{project}/secrets/{name}/versions/latest:access"
        answer = AuthorizedSession(credentials).get(url, timeout=_TIMEOUT_S)  # type: ignore[no-untyped-call]
        answer.raise_for_status()
        return base64.b64decode(answer.json()["payload"]["data"]).decode()
    except GoogleAuthError as e:
        raise OSError(f"secret {name} of {project} cannot be read: {e}") from e
