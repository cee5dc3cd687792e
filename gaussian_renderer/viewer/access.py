"""Who may use the viewer: browsers that open the printed address, and no other page or machine.

viser answers every request.  Here, its server only sees requests with the secret path of the printed address, for a
host name of this machine, from a page of this server.  A foreign page in the same browser knows none of them: it
cannot read the path, and its requests carry its own origin (or, after DNS rebinding, its own host name).
"""

from __future__ import annotations

import errno
import hmac
import http
import ipaddress
import secrets
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

# Ports tried after the wanted one.
_PORTS = 100
_EVERYWHERE = ("0.0.0.0", "::")


def listening(host: str, port: int) -> socket.socket:
    """A socket that listens on ``host`` and ``port``, or on the next free port.

    Raises:
        ValueError: an address that this machine does not have, or no free port.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (OSError, UnicodeError) as error:
        raise ValueError(f"the viewer cannot listen on {host}: not an address ({error})") from None
    last = min(port + _PORTS, 65536) - 1
    for number in range(port, last + 1):
        made = socket.socket(family, kind, protocol)
        try:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            made.bind((address[0], number, *address[2:]))
            made.listen(128)
            return made
        except OSError as error:
            made.close()
            if error.errno == errno.EADDRINUSE:
                continue
            reason = {
                errno.EADDRNOTAVAIL: "this machine does not have that address",
                errno.EACCES: f"port {number} needs the rights of an administrator",
            }.get(error.errno or 0, error.strerror)
            raise ValueError(f"the viewer cannot listen on {host}: {reason}") from None
    ports = f"port {port} is taken" if last == port else f"ports {port} to {last} are taken"
    raise ValueError(f"the viewer cannot listen on {host}: {ports}; give another one")


class Access:
    """Decides about requests.

    Args:
        host: the address to listen on.
        full: whether no more clients are admitted.

    Attributes:
        token: the secret part of the address.
    """

    def __init__(self, host: str, full: Callable[[], bool] = lambda: False):
        self.token = secrets.token_urlsafe(16)
        self._full = full
        self._names = {"localhost", host.lower(), socket.gethostname().lower(), socket.getfqdn().lower()}
        self.host = host

    def url(self, port: int) -> str:
        """The address to open."""
        if self.host in (*_EVERYWHERE, "127.0.0.1"):
            shown = "localhost"
        else:
            shown = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{shown}:{port}/{self.token}/"

    def refusal(self, path: str, host: str | None, origin: str | None) -> str | None:
        """Why a request is refused, or None; ``host`` and ``origin`` are its headers."""
        if host is None or not self._is_ours(host):
            return "this viewer answers to the names of its own machine only"
        # "null" is the origin of sandboxed pages and files.
        if origin is not None and urlsplit(origin).netloc.lower() != host.lower():
            return "this viewer answers to its own page only"
        given = path.lstrip("/").partition("/")[0].partition("?")[0]
        if not hmac.compare_digest(given.encode(), self.token.encode()):
            return "open the whole address that the program printed"
        if self._full():
            return "too many browsers are connected to this viewer"
        return None

    def inner_path(self, path: str) -> str:
        """The path without the token, which viser sees."""
        return "/" + path.lstrip("/").removeprefix(self.token).lstrip("/")

    def _is_ours(self, host: str) -> bool:
        try:
            name = (urlsplit(f"//{host}").hostname or "").lower()
        except ValueError:
            return False
        if name in self._names:
            return True
        try:  # a numeric address is not a name that somebody else could point to this machine
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True

    @contextmanager
    def serving(self, listener: socket.socket) -> Iterator[None]:
        """Make the websocket server that is started in the ``with`` block use ``listener`` and ask ``refusal`` first.

        viser has no setting for this, but starts its server by ``websockets.asyncio.server.serve``.

        Raises:
            ValueError: no server was started in that way, so that it would be open to everybody.
        """
        import websockets.asyncio.server as module

        original, used = module.serve, []

        def serve(handler: Any, host: Any = None, port: Any = None, **more: Any) -> Any:
            del host, port
            used.append(True)
            inner = more.pop("process_request", None)

            def checked(connection: Any, request: Any) -> Any:
                headers = request.headers
                hosts, origins = headers.get_all("Host"), headers.get_all("Origin")
                host = hosts[0] if len(hosts) == 1 else None
                why = self.refusal(request.path, host, ",".join(origins) if origins else None)
                if why is not None:
                    return connection.respond(http.HTTPStatus.FORBIDDEN, why + "\n")
                request.path = self.inner_path(request.path)
                response = None if inner is None else inner(connection, request)
                if response is not None:
                    response.headers["Referrer-Policy"] = "no-referrer"
                return response

            return original(handler, sock=listener, process_request=checked, **more)

        module.serve = serve  # type: ignore[misc, assignment]
        try:
            yield
        except BaseException:
            listener.close()
            raise
        finally:
            module.serve = original  # type: ignore[misc]
        if not used:
            listener.close()
            raise ValueError("this version of viser cannot be protected from foreign pages; install viser 1.1")
