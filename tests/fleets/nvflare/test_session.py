"""Sessions with FLARE's server, of which no thread may be left: one would block the interpreter's end."""

from __future__ import annotations

import signal
import socket
import threading
from pathlib import Path

import pytest

from sheaf.fleets.nvflare import provision
from sheaf.fleets.nvflare.session import new_session


def connecting() -> list[threading.Thread]:
    """Return FLARE's threads that connect to a server until their session is closed."""
    return [each for each in threading.enumerate() if each.name.startswith("conn_mgr") and each.is_alive()]


@pytest.mark.parametrize("delay", [0.0001, 0.05], ids=["while-it-starts", "while-it-waits"])
def test_an_interrupt_while_connecting_closes_the_session(tmp_path: Path, delay: float) -> None:
    ended = threading.Event()

    def interrupt() -> None:
        while not ended.wait(delay):
            if connecting():
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)
                return

    thread = threading.Thread(target=interrupt, daemon=True)
    default = signal.signal(signal.SIGUSR1, signal.default_int_handler)
    try:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            provision.init(tmp_path / "fleet", "localhost", silent.getsockname()[1], ["shop-1"])
            thread.start()
            with pytest.raises(KeyboardInterrupt):
                new_session(tmp_path / "fleet")
    finally:
        ended.set()
        thread.join()
        signal.signal(signal.SIGUSR1, default)
    for each in connecting():
        each.join(10)
    assert not connecting()
