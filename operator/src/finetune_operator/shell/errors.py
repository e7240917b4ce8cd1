"""What the API server answers when it refuses, and what each refusal means for a reconcile. The only place that reads status codes."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError


@dataclass(frozen=True, slots=True)
class Request:
    """What was asked, for messages."""

    method: str
    path: str

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


class ApiError(Exception):
    """The API server refused a request, or could not be reached (status 0)."""

    def __init__(
        self, request: Request, status: int, reason: str, message: str, retry_after: float | None = None
    ) -> None:
        super().__init__(f"{request}: {status or 'no answer'} {reason}: {message}".rstrip(": "))
        self.request = request
        self.status = status
        self.reason = reason
        self.message = message
        self.retry_after = retry_after

    @property
    def is_absent(self) -> bool:
        """The object, or its kind, does not exist."""
        return self.status == 404

    @property
    def is_taken(self) -> bool:
        """An object of that name exists already."""
        return self.status == 409 and self.reason == "AlreadyExists"

    @property
    def is_conflict(self) -> bool:
        """Somebody else changed the object since it was read."""
        return self.status == 409

    @property
    def is_forbidden(self) -> bool:
        """A right is missing, a quota is used up, or a policy says no."""
        return self.status == 403

    @property
    def is_refused(self) -> bool:
        """The same request will be refused again until somebody changes the job, a quota, a policy or a right."""
        return self.status in (400, 403, 413, 422)


def api_error(request: Request, status: int, body: bytes, retry_after: str | None) -> ApiError:
    """The refusal in an HTTP answer, from the Status object in its body where there is one."""
    details = _status_object(body)
    message = str(details.get("message") or body[:300].decode(errors="replace")).strip()
    return ApiError(request, status, str(details.get("reason", "")), message, _seconds(retry_after))


def no_answer(request: Request, error: BaseException) -> ApiError:
    """The API server did not answer: broken connection, TLS, or time-out."""
    return ApiError(request, 0, type(error).__name__, str(error))


def wrong_fields(error: ValidationError) -> list[str]:
    """One line for each wrong field of a settings file, spec or body: its path, what is wrong, and what was found."""
    return [_wrong_field(entry["loc"], entry["msg"], entry.get("input")) for entry in error.errors(include_url=False)]


def _wrong_field(location: tuple[int | str, ...], problem: str, found: Any) -> str:
    path = ".".join(str(part) for part in location) or "(top)"
    shown = repr(found)
    return f"{path}: {problem} (found {shown if len(shown) <= 60 else shown[:57] + '...'})"


def _status_object(body: bytes) -> dict[str, Any]:
    try:
        parsed = json.loads(body)
    except ValueError:
        return {}
    return parsed if isinstance(parsed, dict) else {}


def _seconds(retry_after: str | None) -> float | None:
    # The header may also hold a date, which API servers do not send
    return float(retry_after) if retry_after and retry_after.isdigit() else None
