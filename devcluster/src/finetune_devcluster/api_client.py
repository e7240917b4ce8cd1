"""The few reads that starting a cluster needs, without the second that importing a full client takes."""

import http.client
import json
import ssl
from pathlib import Path
from typing import Any

from finetune_devcluster.certificates import KeyPair


class ApiClient:
    """Reads from one API server as the cluster's administrator; knows no proxies."""

    def __init__(self, host: str, port: int, certificates: Path) -> None:
        self._host, self._port = host, port
        self._authority = KeyPair.named(certificates, "ca")
        self._user = KeyPair.named(certificates, "admin")

    def get(self, path: str) -> bytes | None:
        """The body of a 200 answer; None where there is no such object or nobody answers (yet)."""
        tls = ssl.create_default_context(cafile=str(self._authority.certificate))
        tls.load_cert_chain(self._user.certificate, self._user.key)
        connection = http.client.HTTPSConnection(self._host, self._port, context=tls, timeout=5)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            body = response.read()
            return body if response.status == http.HTTPStatus.OK else None
        except (OSError, http.client.HTTPException):
            return None
        finally:
            connection.close()

    def is_ready(self) -> bool:
        return self.get("/readyz") is not None

    def has_default_service_account(self) -> bool:
        """Without it, no pod is admitted to the namespace."""
        return self.get("/api/v1/namespaces/default/serviceaccounts/default") is not None

    def node_is_ready(self, name: str) -> bool:
        body = self.get(f"/api/v1/nodes/{name}")
        node: dict[str, Any] = json.loads(body) if body else {}
        conditions = node.get("status", {}).get("conditions", [])
        return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)
