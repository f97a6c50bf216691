"""The link of a run, of which nothing may be left: a service opens one for each round."""

from __future__ import annotations

import threading
from multiprocessing.connection import Listener
from pathlib import Path
from typing import Any

from sheaf.fleets.nvflare.link import FlareLink


def test_closing_ends_the_thread_that_accepts_relays(tmp_path: Path) -> None:
    session: Any = None  # it is opened by a real server only
    before = set(threading.enumerate())
    with Listener(str(tmp_path / "run"), "AF_UNIX", authkey=b"secret") as listener:
        link = FlareLink(tmp_path, session, listener, b"secret")
        (thread,) = set(threading.enumerate()) - before
        link.close()
        thread.join(10)
    assert not thread.is_alive()
