"""The cloud's part of a FLARE job: passes messages between the process of a run and the devices.

It runs in a process of FLARE's and holds nothing: a job is disposable, the run and its journal are not. The
run listens at a socket on this machine, of which ``bridge.json`` in the fleet's folder says where and with
which secret; what goes over it is raw bytes, nothing is unpickled.
"""

from __future__ import annotations

import contextlib
import json
import os
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Client
from pathlib import Path
from typing import Any

import numpy as np
from nvflare.collab import collab
from nvflare.collab.api.context import get_call_context, set_call_context
from nvflare.collab.api.exceptions import CollabCallError

from sheaf.fleets.nvflare.socket_pipe import Pipe
from sheaf.fleets.remote.memory_trim import MessageCollector

FLEET = "SHEAF_FLEET"
"""The environment variable that tells the job's process where the fleet's folder is."""

THREADS = 64


class Relay:
    """Named by the job's configuration, and by the cloud's class allow-list."""

    @collab.main  # type: ignore[untyped-decorator]
    def run(self) -> None:
        """Passes on what the run asks, until it hangs up."""
        bridge = json.loads((Path(os.environ[FLEET]) / "bridge.json").read_text())
        sites = {proxy.name: proxy for proxy in collab.clients}
        context = get_call_context()
        run = Pipe(Client(bridge["address"], "AF_UNIX", authkey=bytes.fromhex(bridge["secret"])))
        cycles = MessageCollector()
        with ThreadPoolExecutor(THREADS) as pool:
            self._send(run, {"job": bridge["job"], "sites": list(sites)})
            while not collab.is_aborted:
                if not run.is_waiting(1.0):
                    continue
                try:
                    asked, header, payload = run.receive()
                except ConnectionError:
                    break
                cycles.count()
                pool.submit(self._pass_on, run, sites[asked["site"]], asked, header, payload, context)

    def _pass_on(
        self, run: Pipe, site: Any, asked: dict[str, Any], header: bytes, payload: bytearray, context: Any
    ) -> None:
        set_call_context(context)
        try:
            # FLARE brings a large array down three times as fast as a byte string (up, it is the other way).
            array = np.frombuffer(payload, np.uint8)
            answer = site(timeout=asked["timeout"]).ask(asked["what"], header, array)
            if not (isinstance(answer, list | tuple) and [type(part) for part in answer] == [bytes, bytes]):
                raise TypeError("an answer must be two byte strings")
            self._send(run, {"number": asked["number"]}, answer[0], answer[1])
        except (CollabCallError, TypeError, RuntimeError) as error:
            self._send(run, {"number": asked["number"], "error": str(error)[:500]})

    def _send(self, run: Pipe, about: dict[str, Any], header: bytes = b"", payload: bytes = b"") -> None:
        with contextlib.suppress(OSError):  # the run may have hung up
            run.send(about, header, payload)
