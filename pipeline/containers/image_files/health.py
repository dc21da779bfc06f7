"""The image's health check: the model itself must answer. /ping is 200 even while it is still loading."""

from __future__ import annotations

import os
import sys
import urllib.request

TIMEOUT_SECONDS = 15
BODY = b'{"instances": [{"describe": true}]}'


def is_healthy(port: str) -> bool:
    """Whether the model describes itself on that port of this machine."""
    url = f"http://127.0.0.1:{port}/predictions/model"
    request = urllib.request.Request(url, BODY, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


if __name__ == "__main__":
    sys.exit(0 if is_healthy(os.environ.get("AIP_HTTP_PORT", "8080")) else 1)
