"""Makes a file with a new random password for each path that is given and not there yet (docker/compose.yaml)."""

import secrets
import sys
from pathlib import Path

for path in map(Path, sys.argv[1:]):
    if not path.exists():
        # For readers of several user ids; the folder is a volume that only they mount.
        path.write_text(secrets.token_urlsafe(24))
        path.chmod(0o644)
