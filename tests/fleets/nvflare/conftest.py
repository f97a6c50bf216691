"""Two ends of a connection."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Iterator
from multiprocessing.connection import Client, Listener
from pathlib import Path

import pytest

from sheaf.fleets.nvflare.socket_pipe import Pipe


@pytest.fixture
def pipes(tmp_path: Path) -> Iterator[tuple[Pipe, Pipe]]:
    secret, accepted = secrets.token_bytes(32), []
    with Listener(str(tmp_path / "s"), "AF_UNIX", authkey=secret) as listener:
        thread = threading.Thread(target=lambda: accepted.append(Pipe(listener.accept())))
        thread.start()
        first = Pipe(Client(str(tmp_path / "s"), "AF_UNIX", authkey=secret))
        thread.join()
    yield first, accepted[0]
    first.close()
    accepted[0].close()
