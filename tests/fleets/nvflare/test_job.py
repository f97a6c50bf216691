"""Calls through a relay: replies, timeouts, and the relay's end."""

from __future__ import annotations

import threading

import pytest

from sheaf.fleets.nvflare import job
from sheaf.fleets.nvflare.job import Job
from sheaf.fleets.nvflare.socket_pipe import Pipe
from sheaf.fleets.remote.link import LinkDownError, LinkError


def test_a_reply_is_returned_to_its_call(pipes: tuple[Pipe, Pipe]) -> None:
    run, relay = pipes
    answers = [({}, b'{"state":"done"}', b"xyz"), ({"error": "timed out"}, b"", b""), ({}, b"[1]", b"")]

    def answer() -> None:
        for envelope, header, payload in answers:
            message, _, _ = relay.receive()
            relay.send({"number": message["number"]} | envelope, header, payload)

    thread = threading.Thread(target=answer)
    thread.start()
    running = Job(run, {"edge-1"})
    assert running.call("edge-1", "poll", b"{}", b"", 5.0) == ({"state": "done"}, b"xyz")
    with pytest.raises(LinkError, match="timed out"):
        running.call("edge-1", "poll", b"{}", b"", 5.0)
    reply, _ = running.call("edge-1", "poll", b"{}", b"", 5.0)
    assert reply == {"error": "the reply's header is not a JSON object"}
    with pytest.raises(LinkError, match="not in the running job"):
        running.call("edge-2", "poll", b"{}", b"", 5.0)
    thread.join()


def test_a_relay_without_reply_is_a_timeout(
    pipes: tuple[Pipe, Pipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A ``LinkDownError`` would restart the job."""
    monkeypatch.setattr(job, "RELAY_ALLOWANCE", 0.0)
    run, _ = pipes
    with pytest.raises(LinkError, match=r"no reply within 0\.05 s") as error:
        Job(run, {"edge-1"}).call("edge-1", "poll", b"{}", b"", 0.05)
    assert not isinstance(error.value, LinkDownError)


def test_the_end_of_the_relay_ends_all_calls(pipes: tuple[Pipe, Pipe]) -> None:
    run, relay = pipes
    running = Job(run, {"edge-1"})
    timer = threading.Timer(0.1, relay.close)
    timer.start()
    for _ in range(2):  # the second call begins after the end
        with pytest.raises(LinkDownError, match="has ended"):
            running.call("edge-1", "poll", b"{}", b"", 5.0)
    assert not running.is_up
    timer.join()
