"""Who may use the page: a one-time token in the address, then a cookie; exact Host and Origin; a token on every write.

The page is for people on this machine (or who reach it by a tunnel). What is kept out: other sites in the same browser
(CSRF, framing), names that resolve to 127.0.0.1 (DNS rebinding), other users of the machine, and scripts in captions.
"""

import hmac
import secrets
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.cookies import CookieError, SimpleCookie

from starlette.datastructures import URL, Headers, MutableHeaders, QueryParams
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

COOKIE = "georefine_review"
SAFE = ("GET", "HEAD")
HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
    ),
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    # Not no-referrer: that would turn the Origin of our own forms into "null".
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}


@dataclass
class Session:
    """One browser. `csrf` is what its writes have to carry; `reviewer` signs its decisions, `batches` are those."""

    reviewer: str
    batches: list[str] = field(default_factory=list)
    csrf: str = field(default_factory=lambda: secrets.token_urlsafe(24))


class Door:
    """The token that lets the next browser in, and the sessions of those that are in. Kept in memory only."""

    def __init__(self, token: str, reviewer: str, announce: Callable[[str], None] | None = None) -> None:
        self.token = token
        self._reviewer = reviewer
        self._announce = announce
        self._sessions: dict[str, Session] = {}
        self._lock = threading.Lock()

    def enter(self, token: str) -> str | None:
        """Exchange the token for the key of a new session; the next browser needs the next token."""
        with self._lock:
            if not hmac.compare_digest(token.encode(), self.token.encode()):
                return None
            self.token = secrets.token_urlsafe(24)
            key = secrets.token_urlsafe(32)
            self._sessions[key] = Session(self._reviewer)
        if self._announce:
            self._announce(self.token)
        return key

    def session(self, key: str) -> Session | None:
        with self._lock:
            return self._sessions.get(key)


def cookie_name(port: int) -> str:
    """Cookies of one host are shared by all its ports: two pages side by side need two names."""
    return f"{COOKIE}_{port}"


def in_address(host: str) -> str:
    """A host as it stands in an address: IPv6 in brackets."""
    return f"[{host}]" if ":" in host else host


def own_hosts(scope: Scope, served_at: str) -> set[str]:
    """What the Host header may say: the address that was connected to, the host that the page is served at, or a name
    of this machine's own loopback."""
    host, port = scope["server"] or ("127.0.0.1", 80)
    # A socket for both families names an IPv4 address so.
    names = {in_address(host.removeprefix("::ffff:")), in_address(served_at.lower()), "127.0.0.1", "localhost", "[::1]"}
    return {f"{name}:{port}" for name in names} | (names if port == 80 else set())


class Guard:
    """ASGI middleware: refuses what does not come from the page itself, and sends the headers that confine it."""

    def __init__(self, app: ASGIApp, door: Door, host: str) -> None:
        self.app = app
        self.door = door
        self.host = host

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def confined(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
                headers.setdefault("cache-control", "no-store")
            await send(message)

        refused = self._refuse(scope)
        await (refused or self.app)(scope, receive, confined)

    def _refuse(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        hosts = own_hosts(scope, self.host)
        if headers.getlist("host") != [headers.get("host")] or headers["host"].lower() not in hosts:
            return _no(421, f"This page answers to {', '.join(sorted(hosts))} only.")
        origin = headers.get("origin")
        if origin is not None and origin != f"http://{headers['host'].lower()}":
            return _no(403, "This request comes from another site and is refused.")
        if headers.get("sec-fetch-site", "none") == "cross-site" and scope["method"] not in SAFE:
            return _no(403, "This request comes from another site and is refused.")
        if scope["method"] not in (*SAFE, "POST"):
            return _no(405, "This page knows GET and POST only.")
        if scope["path"].startswith("/static/"):
            return None
        name = cookie_name((scope["server"] or ("", 80))[1])
        scope["session"] = self.door.session(_cookie(headers.get("cookie", ""), name))
        token = QueryParams(scope["query_string"]).get("token")
        if token and scope["method"] == "GET":
            return self._let_in(scope, token, name)
        if scope["session"] is None:
            return _no(403, "Open the address that `georefine review` printed last: it holds a token that works once.")
        return None

    def _let_in(self, scope: Scope, token: str, name: str) -> Response:
        url = URL(scope=scope).remove_query_params("token")
        path = "/" + url.path.lstrip("/")  # a path that begins with // would name another host
        answer = RedirectResponse(path + (f"?{url.query}" if url.query else ""), 303)
        if scope["session"] is None:
            key = self.door.enter(token)
            if key is None:
                return _no(403, "This address was used before: open the one that `georefine review` printed last.")
            answer.set_cookie(name, key, httponly=True, samesite="strict")
        return answer


def _cookie(header: str, name: str) -> str:
    try:
        found = SimpleCookie(header).get(name)
    except CookieError:
        return ""
    return found.value if found else ""


def _no(status: int, sentence: str) -> Response:
    return PlainTextResponse(sentence + "\n", status)
