"""Messages between the process of a run and its relay, over a real socket."""

from __future__ import annotations

import threading

import pytest

from sheaf.fleets.nvflare.socket_pipe import Pipe


def test_messages_of_any_size_arrive_unchanged(pipes: tuple[Pipe, Pipe]) -> None:
    sender, receiver = pipes
    sent = [({"number": n}, b"h" * n, bytes([n % 251]) * (1000 * n * n)) for n in range(40)]
    threads = [threading.Thread(target=sender.send, args=message) for message in sent]
    for thread in threads:  # all at once
        thread.start()
    received = [receiver.receive() for _ in sent]
    for thread in threads:
        thread.join()
    assert sorted(received, key=lambda message: message[0]["number"]) == sent


def test_a_blocked_receiver_raises_when_the_connection_is_closed(pipes: tuple[Pipe, Pipe]) -> None:
    sender, receiver = pipes
    assert not receiver.poll(0.01)
    errors = []

    def receive() -> None:
        with pytest.raises(OSError, match="closed") as error:
            receiver.receive()
        errors.append(error)

    thread = threading.Thread(target=receive)
    thread.start()
    sender.close()
    thread.join(5)
    assert len(errors) == 1
    assert receiver.poll(0.01), "a closed connection does not block"


def test_a_malformed_message_is_refused(pipes: tuple[Pipe, Pipe]) -> None:
    sender, receiver = pipes
    sender._socket.sendall(b"\xff" * 12)
    with pytest.raises(ValueError, match="message of 4294967295 bytes exceeds"):
        receiver.receive()
