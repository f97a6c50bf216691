"""Messages between the process of a run and its relay, over a real socket."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Iterator
from multiprocessing.connection import Client, Listener
from pathlib import Path

import pytest

from sheaf.fleets.nvflare.socket_pipe import Pipe


@pytest.fixture
def ends(tmp_path: Path) -> Iterator[tuple[Pipe, Pipe]]:
    secret, found = secrets.token_bytes(32), []
    with Listener(str(tmp_path / "s"), "AF_UNIX", authkey=secret) as listener:
        waiting = threading.Thread(target=lambda: found.append(Pipe(listener.accept())))
        waiting.start()
        here = Pipe(Client(str(tmp_path / "s"), "AF_UNIX", authkey=secret))
        waiting.join()
    yield here, found[0]
    here.close()
    found[0].close()


def test_messages_come_as_they_were_sent_whatever_their_size(ends: tuple[Pipe, Pipe]) -> None:
    here, there = ends
    sent = [({"number": n}, b"h" * n, bytes([n % 251]) * (1000 * n * n)) for n in range(40)]
    threads = [threading.Thread(target=here.send, args=message) for message in sent]
    for thread in threads:  # from as many threads at once
        thread.start()
    found = [there.receive() for _ in sent]
    for thread in threads:
        thread.join()
    assert sorted(found, key=lambda message: message[0]["number"]) == sent


def test_one_that_waits_is_told_of_the_end(ends: tuple[Pipe, Pipe]) -> None:
    here, there = ends
    assert not there.is_waiting(0.01)
    raised = []

    def wait() -> None:
        with pytest.raises(OSError, match="hung up") as error:
            there.receive()
        raised.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    here.close()
    thread.join(5)
    assert len(raised) == 1
    assert there.is_waiting(0.01), "the end is news"


def test_what_is_no_message_is_refused(ends: tuple[Pipe, Pipe]) -> None:
    here, there = ends
    here._socket.sendall(b"\xff" * 12)
    with pytest.raises(ValueError, match="none"):
        there.receive()
