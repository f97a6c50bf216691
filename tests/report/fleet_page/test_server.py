"""The web server of a fleet's page: its token, its headers, its events, and its address."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientResponse
from aiohttp.test_utils import TestClient, TestServer
from made_up_fleet import write_fleet, write_presence, write_run
from support import one_line

from sheaf.core.errors import FleetError
from sheaf.report.fleet_page import server

REFUSAL = "401: the token is wrong or missing; open the address that `sheaf cloud page` prints\n"
TOKEN = "a-token-for-tests-only"
Client = TestClient[Any, Any]


@pytest.fixture
def fleet(tmp_path: Path) -> Path:
    fleet = write_fleet(tmp_path / "fleet", ["shop-1", "shop-2"])
    write_presence(fleet, {"shop-1": 1, "shop-2": 1})
    return fleet


def ask(fleet: Path, use: Callable[[Client], Awaitable[None]], login: bool = True) -> None:
    """Run a function with a client of the page's server."""

    async def main() -> None:
        async with TestClient(TestServer(server.application(fleet, TOKEN))) as client:
            if login:
                assert (await client.get("/", params={"token": TOKEN})).status == 200
            await use(client)

    asyncio.run(main())


async def event(response: ClientResponse) -> tuple[str, Any]:
    """Return the name and the data of the next event."""
    while True:
        lines = (await response.content.readuntil(b"\n\n")).decode().splitlines()
        fields = dict(line.split(": ", 1) for line in lines if ": " in line)
        if "event" in fields:
            return fields["event"], json.loads(fields["data"])


def test_without_the_token_nothing_is_shown(fleet: Path) -> None:
    async def use(client: Client) -> None:
        for path in ("/", "/events", "/page.css", "/page.js", "/nothing", "/?token=wrong", "/?token=%ff"):
            response = await client.get(path)
            assert response.status == 401
            assert await response.text() == REFUSAL
        wrong = await client.get("/", headers={"Authorization": "Bearer wrong"})
        assert wrong.status == 401
        right = await client.get("/", headers={"Authorization": f"Bearer {TOKEN}"})
        assert right.status == 200

    ask(fleet, use, login=False)


def test_the_token_becomes_a_cookie_and_leaves_the_address(fleet: Path) -> None:
    async def use(client: Client) -> None:
        response = await client.get("/", params={"token": TOKEN}, allow_redirects=False)
        assert (response.status, response.headers["Location"]) == (303, "/")
        (cookie,) = response.cookies.values()
        assert (cookie["httponly"], cookie["samesite"]) == (True, "Lax")
        page = await client.get("/")
        assert page.status == 200
        assert TOKEN not in await page.text()
        policy = page.headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'; script-src 'self'; ")
        assert (await client.get("/", params={"token": "wrong"})).status == 401

    ask(fleet, use, login=False)


def test_the_page_is_read_only(fleet: Path) -> None:
    async def use(client: Client) -> None:
        for method in ("POST", "PUT", "DELETE", "PATCH"):
            assert (await client.request(method, "/")).status == 405
        assert (await client.get("/../fleet.toml")).status == 404
        assert (await client.get("/page.token")).status == 404

    before = sorted(fleet.rglob("*"))
    ask(fleet, use)
    assert sorted(fleet.rglob("*")) == before


def test_events_have_the_changed_fragments(fleet: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "PERIOD", 0.02)

    async def use(client: Client) -> None:
        response = await client.get("/events")
        name, html = await event(response)
        assert name == "all"
        assert html.startswith("<main")
        write_run(fleet, {"shop-1": {"state": "waiting"}})
        name, fragments = await event(response)
        assert name == "changes"
        assert "waiting" in fragments["device-0"]
        assert "device-1" not in fragments
        (fleet / "fleet.toml").unlink()  # as while it is replaced
        write_fleet(fleet, ["shop-1"])
        assert (await event(response))[0] == "all"
        response.close()

    ask(fleet, use)


def test_a_comment_is_sent_while_nothing_changes(fleet: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "PERIOD", 0.02)
    monkeypatch.setattr(server, "SILENCE", 0.02)

    async def use(client: Client) -> None:
        response = await client.get("/events")
        await event(response)
        assert await response.content.readuntil(b"\n\n") == b":\n\n"
        response.close()

    ask(fleet, use)


def test_too_many_open_pages_are_refused(fleet: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "MOST_STREAMS", 1)

    async def use(client: Client) -> None:
        first = await client.get("/events")
        await event(first)
        second = await client.get("/events")
        assert second.status == 503
        assert await second.text() == "503: 1 pages are open; close one\n"
        first.close()

    ask(fleet, use)


def test_a_signal_stops_the_server(fleet: Path) -> None:
    lines: list[str] = []

    def stop(line: str) -> None:
        lines.append(line)
        os.kill(os.getpid(), signal.SIGTERM)

    server.serve(fleet, "127.0.0.1", 0, TOKEN, stop)
    (line,) = lines
    assert re.fullmatch(rf"http://127\.0\.0\.1:\d+/\?token={TOKEN}", line)


def test_a_port_in_use_is_refused(fleet: Path) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        with pytest.raises(FleetError) as error:
            server.serve(fleet, "127.0.0.1", port, TOKEN, print)
    assert f"the page cannot listen at 127.0.0.1:{port} (" in one_line(error)
    assert "name another address with --host and --port" in str(error.value)
