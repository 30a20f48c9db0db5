"""The server of the page: three files, the names of the runs, and their answers.

    server = DemoServer(Answers({"mnist": network}), port=0)
    print(server.url)
    server.serve_forever()

GET / and its two files, GET /runs, and POST /classify with a PNG picture. Errors are
JSON, {"error": "one line"}. Nothing else of the machine can be read, and other sites
that are open in the same browser can ask for nothing.
"""

from __future__ import annotations

import errno
import importlib.resources
import ipaddress
import json
import socket
import socketserver
import sys
import time
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

from lenet_tf.demo.answers import Answers
from lenet_tf.errors import UsageError
from lenet_tf.pictures import PictureError

MOST_BYTES = 2**20
_READ_AWAY = 8 * 2**20  # of a longer body, so that its sender sees the answer
_FILES = {
    "/": ("page.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
}
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class DemoServer(ThreadingHTTPServer):
    """Server of the page; it listens when it is made.

    Args:
      answers: What answers a picture.
      host: Name or address to listen on.
      port: Port; 0 chooses a free one.
      patience: Seconds that a client may take for a request.

    Attributes:
      url: Address of the page.
      loopback: Whether only this machine can reach it.

    Raises:
      UsageError: The server cannot listen there.
    """

    daemon_threads = True  # An open connection does not keep the program alive.

    def __init__(
        self,
        answers: Answers,
        host: str = "127.0.0.1",
        port: int = 8000,
        patience: float = 10.0,
    ) -> None:
        self.answers, self.host, self.patience = answers, host, patience
        folder = importlib.resources.files("lenet_tf.demo")
        self.files = {
            path: (kind, folder.joinpath(name).read_bytes())
            for path, (name, kind) in _FILES.items()
        }
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            self.address_family, _, _, _, address = found[0]
        except (OSError, UnicodeError):
            raise UsageError(
                f"host is {host}: it must be a name or an address of this machine"
            ) from None
        try:
            super().__init__(address[:2], _Handler)  # type: ignore[arg-type]
        except OSError as error:
            if error.errno == errno.EADDRNOTAVAIL:
                raise UsageError(
                    f"host is {host}: it is no address of this machine"
                ) from None
            raise UsageError(
                f"port is {port}: {host} cannot listen there "
                f"({error.strerror}); 0 chooses a free one"
            ) from None
        self.loopback = _is_loopback(str(address[0]))
        shown = f"[{host}]" if ":" in host else host
        self.url = f"http://{shown}:{self.server_address[1]}/"

    def server_bind(self) -> None:
        """Binds, without asking the DNS for this machine's name."""
        socketserver.TCPServer.server_bind(self)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Reports what went wrong, unless a client has just gone away."""
        if not isinstance(sys.exc_info()[1], ConnectionError | TimeoutError):
            super().handle_error(request, client_address)


class _Refused(Exception):  # noqa: N818 - nothing of ours went wrong
    """A request that is answered by an error."""

    def __init__(self, status: HTTPStatus, message: str) -> None:
        super().__init__(message)
        self.status = status


class _Handler(BaseHTTPRequestHandler):
    """Answers the requests of one connection."""

    server: DemoServer
    protocol_version = "HTTP/1.1"  # The connection stays open between two pictures.
    disable_nagle_algorithm = True

    def setup(self) -> None:
        super().setup()
        self.connection.settimeout(self.server.patience)

    def do_GET(self) -> None:
        try:
            self._check_host()
            path = urlsplit(self.path).path
            if path == "/runs":
                self._send_json(HTTPStatus.OK, self.server.answers.runs())
            elif path in self.server.files:
                self._send(HTTPStatus.OK, *self.server.files[path])
            else:
                raise _Refused(HTTPStatus.NOT_FOUND, "there is no such page")
        except _Refused as refused:
            self.send_error(refused.status, str(refused))

    def do_HEAD(self) -> None:
        self.do_GET()  # `_send` leaves the body out.

    def do_POST(self) -> None:
        try:
            # Read first: closed with a body unread, a client might not get the answer.
            body = self._body()
            self._check_host()
            self._check_origin()
            if urlsplit(self.path).path != "/classify":
                raise _Refused(HTTPStatus.NOT_FOUND, "there is no such page")
            self._send_json(HTTPStatus.OK, self.server.answers.answer(body))
        except _Refused as refused:
            self.send_error(refused.status, str(refused))
        except PictureError as error:
            self.send_error(HTTPStatus.BAD_REQUEST, str(error))

    def _check_host(self) -> None:
        """Refuses names of foreign sites that lead to this machine (DNS rebinding)."""
        name = _host_name(self.headers.get("Host", ""))
        known = name in ("localhost", self.server.host.lower()) or _is_loopback(name)
        if self.server.loopback and not known:
            raise _Refused(HTTPStatus.FORBIDDEN, f"this is not the server of {name!r}")

    def _check_origin(self) -> None:
        """Refuses what other sites send; a picture as such they cannot send unasked."""
        origin = self.headers.get("Origin")
        own = f"http://{self.headers.get('Host', '')}"
        if origin not in (None, own):
            raise _Refused(HTTPStatus.FORBIDDEN, "other sites may not ask")
        if self.headers.get("Content-Type") != "image/png":
            raise _Refused(
                HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "Content-Type must be image/png"
            )

    def _body(self) -> bytes:
        text = self.headers.get("Content-Length")
        if text is None:
            raise _Refused(HTTPStatus.LENGTH_REQUIRED, "Content-Length is missing")
        if not (text.isascii() and text.isdigit() and len(text) < 20):
            raise _Refused(HTTPStatus.BAD_REQUEST, "Content-Length is not a number")
        length = int(text)
        if length <= MOST_BYTES:
            return self._read(length)
        if length <= _READ_AWAY:
            self._read(length)
        raise _Refused(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            f"the picture has {length:,} bytes: at most {MOST_BYTES:,} are read",
        )

    def _read(self, length: int) -> bytes:
        """Reads a body; all of it must come within the server's patience."""
        end = time.monotonic() + self.server.patience
        body = bytearray()
        while len(body) < length:
            left = end - time.monotonic()
            if left <= 0:
                raise TimeoutError
            self.connection.settimeout(left)
            part = self.rfile.read1(min(length - len(body), 2**16))
            if not part:
                raise ConnectionResetError("the client went away")
            body += part
        self.connection.settimeout(self.server.patience)
        return bytes(body)

    def send_error(
        self, code: int, message: str | None = None, explain: str | None = None
    ) -> None:
        """Answers by an error in JSON, and closes the connection."""
        self.close_connection = True
        self._send_json(code, {"error": message or HTTPStatus(code).phrase})

    def _send_json(self, status: int, value: Any) -> None:
        self._send(status, "application/json", json.dumps(value).encode())

    def _send(self, status: int, kind: str, body: bytes) -> None:
        self.send_response(status)
        for name, value in _HEADERS.items():
            self.send_header(name, value)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def version_string(self) -> str:
        return "lenet_tf"

    def log_message(self, *_: object) -> None:
        """Keeps the terminal free of requests."""


def _host_name(host: str) -> str:
    """Returns the name in a Host header, without the port."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _is_loopback(name: str) -> bool:
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
