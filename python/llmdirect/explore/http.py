"""HTTP server: uvicorn with a time limit for the head of a request, and a quiet end."""

import asyncio
import logging
from types import FrameType

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD_SECONDS = 10.0
"""Seconds in which the head of a request has to arrive."""


class TimedProtocol(H11Protocol):
    """HTTP/1.1 connection that is closed where the head of a request does not arrive in time.

    Uvicorn limits only the time between requests, and a single byte ends that.
    """

    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the time of the first request."""
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        """Read data; the time ends with the head of the request."""
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """End the time with the connection."""
        self._cancel()
        super().connection_lost(exc)

    def _watch(self) -> None:
        if self.cycle is not None and not self.cycle.response_complete:
            self._cancel()  # the application reads the rest
        elif self._deadline is None and not self.transport.is_closing():
            self._deadline = self.loop.call_later(HEAD_SECONDS, self.transport.close)

    def _cancel(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


class QuietServer(uvicorn.Server):
    """Server that Ctrl-C ends without messages about the requests that it cuts off."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """End after the present requests; at once on the second signal."""
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
        super().handle_exit(sig, frame)
