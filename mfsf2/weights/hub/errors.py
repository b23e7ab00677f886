"""Errors for what the Hub's server answers; they say what it said."""

from http import HTTPStatus
from typing import Any

__all__ = ["BusyError", "MissingFileError", "answer_error", "download_error"]

_BUSY = (408, 429, 500, 502, 503, 504)
"""Answers that may be another one a moment later."""


class BusyError(ConnectionError):
    """An answer that may be another one a moment later.

    Attributes:
        wait: seconds that the server asks to wait; 0 if it does not say.
    """

    def __init__(self, message: str, wait: float = 0.0) -> None:
        super().__init__(message)
        self.wait = wait


class MissingFileError(FileNotFoundError):
    """The repository is there, but has no such file."""


def answer_error(response: Any, what: str, url: str) -> OSError:
    """The error for an answer that is not what was asked for; it says what the server said."""
    status, headers = response.status_code, response.headers
    phrase = f"{status} {HTTPStatus(status).phrase}" if status in HTTPStatus.__members__.values() else str(status)
    code, message = headers.get("X-Error-Code", ""), headers.get("X-Error-Message", "")
    said = f"{phrase}{f' ({message or code})' if message or code else ''}"
    if status in _BUSY:
        after = headers.get("Retry-After", "")
        return BusyError(f"{what}: {url} answered {said}", float(after) if after.isdigit() else 0.0)
    if code == "EntryNotFound":
        return MissingFileError(f"{what}: the repository has no such file: {url} answered {said}")
    if code == "RevisionNotFound":
        return FileNotFoundError(f"{what}: the repository has no such revision: {url} answered {said}")
    if code == "RepoNotFound":
        return FileNotFoundError(
            f"{what}: there is no such repository, or it is private: {url} answered {said}; check the name, or pass "
            "token=..."
        )
    if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        return PermissionError(f"{what}: {url} answered {said}: you may need access to the repository, and token=...")
    kind = headers.get("Content-Type", "no type")
    return ConnectionError(
        f"{what}: {url} answered {said} with {kind}, which is not a Hub response: check HF_ENDPOINT, proxies, "
        "and whether the network wants you to log in"
    )


def download_error(error: Exception, what: str) -> Exception:
    """The error for a failed download: busy if the connection was lost, else what the server or the disk said."""
    response = _response_of(error)
    if response is not None:
        return answer_error(response, what, f"its download from {response.request.url}")
    message = f"{what} could not be downloaded: {type(error).__name__}: {error}"
    if isinstance(error, OSError) and error.errno is not None:
        # The disk is full, or the cache must not be written to.
        return OSError(error.errno, message)
    # Of requests (an OSError) or httpx, whose errors have no common base.
    is_network = isinstance(error, OSError) or type(error).__module__.startswith("httpx")
    return BusyError(message) if is_network else error


def _response_of(error: BaseException | None) -> Any:
    """The answer that made the client fail, if there was one."""
    while error is not None:
        response = getattr(error, "response", None)
        if response is not None and hasattr(response, "status_code"):
            return response
        error = error.__cause__ or error.__context__
    return None
