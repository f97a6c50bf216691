"""The web server of a fleet's page: read-only, in a process of its own, for browsers that have its token.

A browser receives the page, then the changed fragments as server-sent events. The page loads nothing else.
"""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import json
import signal
import time
from collections.abc import Callable
from pathlib import Path

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from sheaf.core.errors import FleetError
from sheaf.report.fleet_page.fragments import FleetPage, changes, script, style

PERIOD = 1.0
"""Minimum time between two looks at the fleet's files, in seconds."""

BUSY = 0.05
"""Maximum fraction of the time that the page is being rendered, within ``LONGEST``."""

LONGEST = 5.0
"""Maximum time between two looks while a page is open, in seconds."""

SILENCE = 15.0
"""Maximum time without an event, in seconds. Then a comment is sent, so that a proxy keeps the connection."""

MOST_STREAMS = 64
"""Maximum number of browsers that receive events."""

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src-elem 'self'; "
    "style-src-attr 'unsafe-inline'; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "Server": "sheaf",
}


def application(fleet: Path, token: str, service: Path | None = None) -> web.Application:
    """Return the web application.

    Args:
        fleet: the fleet's folder.
        token: the secret that a browser must have, as a cookie; ``/?token=…`` sets it.
        service: the folder of the fleet in service; by default ``service`` in the fleet's.

    Raises:
        FleetError: the folder has no fleet.
    """
    page = _Shared(FleetPage(fleet, service))

    async def show(request: web.Request) -> web.StreamResponse:
        html = await page.html()
        return web.Response(text=html, content_type="text/html")

    async def send_events(request: web.Request) -> web.StreamResponse:
        return await page.stream(request)

    async def send_style(request: web.Request) -> web.StreamResponse:
        return web.Response(text=style(), content_type="text/css")

    async def send_script(request: web.Request) -> web.StreamResponse:
        return web.Response(text=script(), content_type="text/javascript")

    async def add_headers(request: web.Request, response: web.StreamResponse) -> None:
        response.headers.update(HEADERS)

    async def end_streams(app: web.Application) -> None:
        page.end()

    app = web.Application(middlewares=[_authentication(token)])
    app.on_response_prepare.append(add_headers)
    app.on_shutdown.append(end_streams)
    app.router.add_get("/", show)
    app.router.add_get("/events", send_events)
    app.router.add_get("/page.css", send_style)
    app.router.add_get("/page.js", send_script)
    return app


def serve(
    fleet: Path, host: str, port: int, token: str, say: Callable[[str], None], service: Path | None = None
) -> None:
    """Serve the page until SIGINT or SIGTERM.

    Args:
        fleet, token, service: see ``application``.
        host, port: the address; port 0 is a free one.
        say: prints a line.

    Raises:
        FleetError: the folder has no fleet, or the address cannot be used.
    """
    asyncio.run(_serve(application(fleet, token, service), host, port, token, say))


async def _serve(app: web.Application, host: str, port: int, token: str, say: Callable[[str], None]) -> None:
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, host, port).start()
        except OSError as error:
            raise FleetError(
                f"the page cannot listen at {host}:{port} ({error.strerror or error}); "
                "name another address with --host and --port"
            ) from error
        stopped = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stopped.set)
        name = f"[{host}]" if ":" in host else host
        say(f"http://{name}:{runner.addresses[0][1]}/?token={token}")
        await stopped.wait()
    finally:
        await runner.cleanup()


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach the address ``host``."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _authentication(token: str) -> Middleware:
    def is_token(text: str) -> bool:
        return hmac.compare_digest(text.encode(errors="replace"), token.encode())

    @web.middleware
    async def authenticate(request: web.Request, handler: Handler) -> web.StreamResponse:
        # Cookies are shared by all ports of a host; another fleet's page has another port.
        cookie = f"sheaf-{request.url.port}"
        given = request.query.get("token", "")
        if is_token(given) and request.path == "/":
            response = web.Response(status=303, headers={"Location": "/"})
            response.set_cookie(cookie, token, httponly=True, samesite="Lax", max_age=30 * 24 * 3600)
            return response
        bearer = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if is_token(bearer) or (not given and is_token(request.cookies.get(cookie, ""))):
            return await handler(request)
        return web.Response(
            status=401,
            text="401: the token is wrong or missing; open the address that `sheaf cloud page` prints\n",
            headers={"WWW-Authenticate": "Bearer"},
        )

    return authenticate


class _Shared:
    """The page for all browsers: rendered once for all of them, and only while there are any."""

    def __init__(self, page: FleetPage) -> None:
        self._page = page
        self._lock = asyncio.Lock()
        self._fragments: dict[str, str] = {}
        self._next = 0.0  # when it may be rendered again
        self._streams = 0
        self._ended = asyncio.Event()

    def end(self) -> None:
        """End all streams."""
        self._ended.set()

    async def html(self) -> str:
        """Return the whole page."""
        fragments = await self._current()
        async with self._lock:
            return await asyncio.to_thread(self._page.html, fragments)

    async def stream(self, request: web.Request) -> web.StreamResponse:
        """Send events until the browser leaves: all fragments at first, then those that have changed."""
        if self._streams >= MOST_STREAMS:
            return web.Response(status=503, text=f"503: {MOST_STREAMS} pages are open; close one\n")
        self._streams += 1
        try:
            response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
            await response.prepare(request)
            await self._send(response)
        except ConnectionError:
            pass  # the browser has left
        finally:
            self._streams -= 1
        return response

    async def _send(self, response: web.StreamResponse) -> None:
        sent: dict[str, str] = {}
        last = time.monotonic()
        while not self._ended.is_set():
            new = await self._current()
            changed = changes(sent, new)
            event = b""
            if changed is None:
                event = _event("all", self._page.main(new))
            elif changed:
                event = _event("changes", changed)
            elif time.monotonic() - last > SILENCE:
                event = b":\n\n"
            if event:
                await response.write(event)
                sent, last = new, time.monotonic()
            try:
                await asyncio.wait_for(self._ended.wait(), max(PERIOD / 2, self._next - time.monotonic()))
            except asyncio.TimeoutError:
                continue

    async def _current(self) -> dict[str, str]:
        """Return the fragments, rendered at most every ``PERIOD`` seconds."""
        async with self._lock:
            start = time.monotonic()
            if start >= self._next:
                self._fragments = await asyncio.to_thread(self._page.fragments)
                end = time.monotonic()
                self._next = end + max(PERIOD, min(LONGEST, (end - start) / BUSY))
            return self._fragments


def _event(name: str, data: object) -> bytes:
    return f"retry: 2000\nevent: {name}\ndata: {json.dumps(data)}\n\n".encode()
