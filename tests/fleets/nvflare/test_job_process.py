"""A job's process on a device ends with the device's process."""

from __future__ import annotations

import inspect
import os
import signal
import subprocess
import sys
import time

from nvflare.apis.fl_constant import FLContextKey
from nvflare.apis.fl_context import FLContext
from nvflare.apis.job_launcher_spec import JobProcessArgs
from nvflare.private.fed.client import client_executor

from sheaf.fleets.nvflare.job_process import WORKER
from sheaf.fleets.nvflare.launcher import CrashTolerantLauncher

CHILD = """
import time
from sheaf.fleets.nvflare.job_process import end_with_parent
end_with_parent(0.05)
print("watching", flush=True)
time.sleep(60)
"""
PARENT = f"""
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", {CHILD!r}], stdout=subprocess.PIPE, start_new_session=True)
child.stdout.readline()
print(child.pid, flush=True)
time.sleep(60)
"""


def test_the_process_ends_when_its_parent_is_killed() -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert is_running(child)
        parent.kill()
    deadline = time.monotonic() + 30
    while is_running(child) and time.monotonic() < deadline:
        time.sleep(0.05)
    if is_running(child):
        os.kill(child, signal.SIGKILL)
        raise AssertionError("the process of the job continues without its parent")


def is_running(process: int) -> bool:
    """Return whether a process runs; a zombie does not."""
    try:
        with open(f"/proc/{process}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_the_launcher_starts_this_module_in_the_place_of_flares() -> None:
    assert f'"{WORKER}"' in inspect.getsource(client_executor), "job_process.py: a new name in FLARE"
    context = FLContext()
    arguments = {JobProcessArgs.EXE_MODULE: ("-m", WORKER), JobProcessArgs.WORKSPACE: ("-m", "/device")}
    context.set_prop(FLContextKey.JOB_PROCESS_ARGS, arguments)
    command = CrashTolerantLauncher().get_command({}, context)
    assert command == f"{sys.executable} -m sheaf.fleets.nvflare.job_process -m /device"
