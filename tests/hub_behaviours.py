"""What a Hub on 127.0.0.1 can do instead of answering, see :meth:`hub_server.HubServer.misbehave`."""

from typing import Any

from hub_server import Behaviour, Handler


def status(code: int, body: bytes = b"", **headers: str) -> Behaviour:
    """An answer without any of the Hub's headers."""
    return lambda handler: handler.send(code, body, headers)


def page(title: str, code: int = 200) -> Behaviour:
    """A web page, like the one that a hotel's network sends in place of everything."""
    html = f"<!DOCTYPE html><html><head><title>{title}</title></head><body><h1>{title}</h1></body></html>"
    return status(code, html.encode(), **{"Content-Type": "text/html; charset=utf-8"})


def hang() -> Behaviour:
    """No answer at all until the server is told to behave or closed."""

    def wait(handler: Handler) -> None:
        handler.released.wait()
        handler.close_connection = True

    return wait


def _hampered(**how: Any) -> Behaviour:
    def serve(handler: Handler) -> None:
        vars(handler).update(how)
        handler.serve()

    return serve


def drip(interval: float) -> Behaviour:
    """The right answer, but status line and headers come one byte every ``interval`` seconds."""
    return _hampered(interval=interval)


def cut(after_bytes: int) -> Behaviour:
    """The right headers, but the connection ends after so many bytes of the body."""
    return _hampered(limit=after_bytes)


def stall(after_bytes: int) -> Behaviour:
    """The right headers, but nothing follows after so many bytes of the body."""
    return _hampered(limit=after_bytes, stalls=True)
