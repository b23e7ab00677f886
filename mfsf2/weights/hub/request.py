"""Requests to the Hub that end in time.

The Hub's client retries for a minute or more and then blames the connection, so the commit that a revision names is
asked for here, in one request with a limit on its whole duration.
"""

import threading
import time
from collections.abc import Callable
from functools import partial
from http import HTTPStatus
from typing import Any
from urllib.parse import urljoin, urlsplit

from ...version import __version__
from .errors import BusyError, answer_error

__all__ = ["ask_commit", "retry"]

_REDIRECTS = range(300, 400)
_MAX_REDIRECTS = 5


def ask_commit(url: str, what: str, token: str | bool | None, seconds: float) -> str:
    """The commit that a revision names, from the headers of one of its files.

    Args:
        url: of the file.
        what: its name in errors.
        token: access token of the Hub.
        seconds: when to give up.

    Raises:
        OSError: says what the server said.
    """
    deadline = time.monotonic() + seconds
    first = url
    for _ in range(_MAX_REDIRECTS):
        # A token is for the Hub's own host.
        allowed = token if urlsplit(url).netloc == urlsplit(first).netloc else False
        head = partial(_head, url, allowed, max(deadline - time.monotonic(), 0.1))
        response = _within(deadline, head, f"{what}: no answer from {url}", seconds)
        commit, location = response.headers.get("X-Repo-Commit"), response.headers.get("Location")
        if response.status_code < HTTPStatus.BAD_REQUEST and commit:
            return str(commit)
        if response.status_code not in _REDIRECTS or not location:
            break
        url = urljoin(url, location)
    raise answer_error(response, what, url)


def retry(function: Callable[[float], Any], timeout: float, progress: Callable[[], int] = lambda: 0) -> Any:
    """Call a function of the seconds left, again while the server is busy, until ``timeout`` without progress."""
    wait, last, seen = 0.5, time.monotonic(), progress()
    while True:
        try:
            return function(timeout - (time.monotonic() - last))
        except BusyError as error:
            now, done = time.monotonic(), progress()
            if done > seen:
                wait, last, seen = 0.5, now, done
            pause = max(wait, error.wait)
            if now - last + pause >= timeout:
                raise ConnectionError(f"{error} (asked again for {now - last:.0f} s)") from error
            time.sleep(pause)
            wait = min(2 * wait, 4.0)


def _head(url: str, token: str | bool | None, seconds: float) -> Any:
    """One HEAD request through the client's own session, which has the user's proxies and certificates."""
    from huggingface_hub.utils import build_hf_headers, get_session

    headers = build_hf_headers(token=token, library_name="mfsf2", library_version=__version__)
    session: Any = get_session()
    # Of the library requests before version 1 of the client, of httpx since then.
    follow = "allow_redirects" if type(session).__module__.startswith("requests") else "follow_redirects"
    return session.request("HEAD", url, headers=headers, timeout=seconds, **{follow: False})


def _within(deadline: float, function: Callable[[], Any], message: str, seconds: float) -> Any:
    """Call a function in a thread: limits on connecting and on reading bound neither name look-ups nor drips.

    Raises:
        TimeoutError: it has not returned at the deadline.
        ConnectionError: it failed.
    """
    results: list[Any] = []
    errors: list[Exception] = []

    def run() -> None:
        try:
            results.append(function())
        except Exception as error:
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True, name="mfsf2-hub")
    thread.start()
    thread.join(max(deadline - time.monotonic(), 0.0))
    if results:
        return results[0]
    error = errors[0] if errors else None
    if error is None or "timeout" in type(error).__name__.lower():
        raise TimeoutError(f"{message} within {seconds:.3g} s") from error
    # The last cause is the shortest: refused, unknown host, no certificate.
    cause: BaseException = error
    while (deeper := cause.__cause__ or cause.__context__) is not None:
        cause = deeper
    raise ConnectionError(f"{message}: {type(cause).__name__}: {cause}") from error
