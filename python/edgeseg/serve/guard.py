"""Who may ask: requests for this machine's own names, from its own page or from no page at all.

A page elsewhere can make a visitor's browser send requests to 127.0.0.1 (CSRF), and can let its own
name point there (DNS rebinding). Browsers tell on both: by Origin and Sec-Fetch-Site, and by Host.
"""

from __future__ import annotations

import ipaddress
import socket

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

SECURITY_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cache-Control": "no-store",
}


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches what listens there."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Guard:
    """ASGI middleware: refuses what other pages send, and adds the security headers."""

    def __init__(self, app: ASGIApp, *, host: str) -> None:
        """Guard `app`, which listens at `host`."""
        self._app = app
        self._loopback = is_loopback(host)
        self._names = {"localhost", host.lower()}
        if not self._loopback:
            name = socket.gethostname().lower()
            self._names |= {name, f"{name}.local"}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or pass on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in SECURITY_HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        refusal = self._refusal(scope["method"], scope["path"], Headers(scope=scope))
        if refusal is None:
            await self._app(scope, receive, with_headers)
        else:
            response = JSONResponse({"error": refusal}, status_code=403)
            await response(scope, receive, with_headers)

    def _refusal(self, method: str, path: str, headers: Headers) -> str | None:
        """Why a request is not answered, or None."""
        host = headers.get("host", "")
        if not self._is_ours(host):
            return (
                "the Host header is no name of this server; use its IP address, as it was printed "
                "when the server started"
            )
        origin = headers.get("origin")
        if origin is not None and origin.lower() not in (
            f"http://{host.lower()}",
            f"https://{host.lower()}",  # behind a proxy that adds TLS
        ):
            return "another web page sent this request; only this server's own page may"
        if headers.get("sec-fetch-site", "none") not in ("same-origin", "none"):
            # A link to the page is fine; a picture of the camera in another page is not.
            link = method == "GET" and path == "/" and headers.get("sec-fetch-mode") == "navigate"
            if not link:
                return "another web page sent this request; open this server's own page instead"
        return None

    def _is_ours(self, host: str) -> bool:
        """An IP address cannot be rebound; names are ours or refused."""
        name = host.rsplit(":", 1)[0] if not host.endswith("]") else host
        name = name.strip("[]").lower()
        if name in self._names:
            return True
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            return False
        return address.is_loopback or not self._loopback
