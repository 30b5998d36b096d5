"""Refusals: why a request is not answered, as clients read it."""

from __future__ import annotations

from starlette.responses import JSONResponse

FAULT = "the service: expected to answer, found a fault of its own; its log tells what"

FULL = "the service: expected room for one more request, found none; try again later"

PROXY_ERRORS = {
    404: "the service: expected to be running, found it starting or stopping; try again later",
    408: "the service: expected an answer within the time that the request allows, found none; allow more",
    503: FULL,
}
"""What is said in the place of Serve's own errors, which are plain text."""

SHOWN_CHARACTERS = 60
"""Of what a client sent, that are repeated to it."""


class RequestRefusedError(Exception):
    """A request that is not answered: an HTTP status, and a line that says what was expected and what was found."""

    def __init__(self, status: int, message: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(status, message, headers)
        self.status = status
        self.message = message
        self.headers = headers

    def respond(self) -> JSONResponse:
        """Return what the client gets."""
        told = {"error": {"status": self.status, "message": self.message}}
        return JSONResponse(told, status_code=self.status, headers=self.headers)


def shorten(text: str) -> str:
    """Return what a client sent so that it fits into a line."""
    line = " ".join(text.split())
    return line if len(line) <= SHOWN_CHARACTERS else f"{line[:SHOWN_CHARACTERS]}..."
