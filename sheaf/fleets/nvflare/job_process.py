"""The process of a job on a device: FLARE's own, which here ends when the device's process ends.

FLARE puts it in a session of its own. If the device's process is killed while this one starts, FLARE's code
sends its status to the absent parent in an endless loop.
"""

from __future__ import annotations

import os
import runpy
import threading
import time

WORKER = "nvflare.private.fed.app.client.worker_process"
"""FLARE's module of the process, and the name by which its command contains it."""

PERIOD = 2.0
"""Time between two checks of the parent, in seconds."""


def end_with_parent(period: float = PERIOD) -> None:
    """Start a thread that ends this process when its parent has ended.

    The signal of Linux for this (``PR_SET_PDEATHSIG``) follows the thread that started the process, and FLARE
    starts jobs from threads that end before.
    """
    parent = os.getppid()
    threading.Thread(target=_watch, args=(parent, period), name="parent watch", daemon=True).start()


def _watch(parent: int, period: float) -> None:
    while os.getppid() == parent:
        time.sleep(period)
    os._exit(1)


if __name__ == "__main__":
    end_with_parent()
    runpy.run_module(WORKER, run_name="__main__", alter_sys=True)
