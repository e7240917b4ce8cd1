"""`finetune-operator check`: asks a running operator whether it is ready. The chart's `helm test` runs it in a pod."""

from __future__ import annotations

import urllib.error
import urllib.request

_SECONDS = 10


def problem(url: str) -> str:
    """What is wrong with the operator whose plain HTTP server is at ``url``; empty where nothing is."""
    # An HTTP proxy in the environment is for the world outside the cluster
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"{url.rstrip('/')}/readyz", timeout=_SECONDS):
            return ""
    except urllib.error.HTTPError as error:
        return f"{url} is not ready: {error.read().decode(errors='replace')} (HTTP {error.code})"
    except OSError as error:
        return f"{url} does not answer: {error}. Look at the operator's pod, its Service, and the NetworkPolicies."
