"""The cloud's side of a FLARE job: relays messages between the process of a run and the devices.

It runs in a process of FLARE and has no state: the job is disposable, the run and its journal are not. The
run listens on a Unix socket; ``bridge.json`` in the fleet's folder contains its address and secret.

Private parts of FLARE: ``get_call_context`` and ``set_call_context``, because a thread of the relay needs the
context of ``Relay.run`` to call a device.
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
from nvflare.collab import CollabCallError, collab
from nvflare.collab.api.context import get_call_context, set_call_context

from sheaf.fleets.nvflare.processes import FLEET
from sheaf.fleets.nvflare.socket_pipe import Pipe
from sheaf.fleets.remote.memory_trim import MessageCollector

THREADS = 64
"""Maximum number of messages under way."""


class Relay:
    """The only class of sheaf that a job may name on the cloud; see ``site_config.py``."""

    @collab.main  # type: ignore[untyped-decorator]
    def run(self) -> None:
        """Relay the run's messages until the run closes the connection."""
        bridge = json.loads((Path(os.environ[FLEET]) / "bridge.json").read_text())
        sites = {proxy.name: proxy for proxy in collab.clients}
        context = get_call_context()
        run = Pipe(Client(bridge["address"], "AF_UNIX", authkey=bytes.fromhex(bridge["secret"])))
        collector = MessageCollector()
        with ThreadPoolExecutor(THREADS) as pool:
            self._send(run, {"job": bridge["job"], "sites": list(sites)})
            while not collab.is_aborted:
                if not run.poll(1.0):
                    continue
                try:
                    envelope, header, payload = run.receive()
                except ConnectionError:
                    break
                collector.count()
                pool.submit(self._call, run, sites[envelope["site"]], envelope, header, payload, context)

    def _call(
        self, run: Pipe, site: Any, envelope: dict[str, Any], header: bytes, payload: bytearray, context: Any
    ) -> None:
        set_call_context(context)
        try:
            # To a device, FLARE sends an array three times as fast as bytes; from a device, bytes are faster.
            array = np.frombuffer(payload, np.uint8)
            reply = site(timeout=envelope["timeout"]).handle(envelope["kind"], header, array)
            if not (isinstance(reply, list | tuple) and [type(part) for part in reply] == [bytes, bytes]):
                raise TypeError("a device's reply is not two byte strings")
            self._send(run, {"number": envelope["number"]}, reply[0], reply[1])
        except (CollabCallError, TypeError, RuntimeError) as error:
            self._send(run, {"number": envelope["number"], "error": str(error)[:500]})

    def _send(self, run: Pipe, envelope: dict[str, Any], header: bytes = b"", payload: bytes = b"") -> None:
        with contextlib.suppress(OSError):  # the run may have closed the connection
            run.send(envelope, header, payload)
