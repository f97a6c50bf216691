"""A fork server: runs ``sheaf`` and Python scripts in forks of one process that has imported the libraries.

Importing PyTorch and the other libraries takes seconds, in every command anew. The server imports them once,
and imports nothing of sheaf. Each command then runs in its own process, with its own arguments, working
directory, environment and standard streams; it imports sheaf, calls ``sheaf.cli.main:main`` and exits as the
installed program does.

``python -P fork_server.py SOCKET`` serves until its standard input closes. ``write_clients`` writes the
clients, two small programs that replace ``sheaf`` and ``python`` on the PATH: they pass their arguments and
streams to the server, and exit with the command's exit code. SIGKILL to a client kills its command too.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Thread

LIBRARIES = (
    *("huggingface_hub", "jinja2", "matplotlib.pyplot", "numpy", "PIL.Image", "psutil"),
    *("pydantic", "rich.live", "safetensors.torch", "scipy.optimize", "scipy.signal", "scipy.stats"),
    *("sklearn.datasets", "soundfile", "tomli_w", "torch", "torch._dynamo", "torch.export", "torch_pruning"),
    *("filelock", "pydantic.dataclasses", "pydantic.type_adapter", "rich.syntax", "typer"),
)

CLIENT = """#!{python} -IS
import json, os, socket, sys
server = socket.socket(socket.AF_UNIX)
server.connect({path!r})
request = json.dumps([{kind!r}, sys.argv, os.getcwd(), dict(os.environ)]).encode()
socket.send_fds(server, [len(request).to_bytes(4, "big")], [0, 1, 2])
server.sendall(request)
with server.makefile() as answer:
    code = answer.read()  # until the server closes its end
os._exit(int(code or 255))
"""


def write_clients(folder: Path, path: Path) -> None:
    """Write the programs ``sheaf`` and ``python`` into ``folder``; both call the server at ``path``."""
    for kind in ("sheaf", "python"):
        file = folder / kind
        file.write_text(CLIENT.format(python=sys.executable, path=str(path), kind=kind))
        file.chmod(0o755)


@contextmanager
def start(folder: Path) -> Iterator[Path]:
    """Start a server in ``folder``; yields the folder with its clients, which is the same."""
    path = folder / "socket"
    process = subprocess.Popen([sys.executable, "-P", __file__, path], stdin=subprocess.PIPE)
    try:
        while not path.exists():
            assert process.poll() is None, "the fork server ended"
            time.sleep(0.01)
        write_clients(folder, path)
        yield folder
    finally:
        assert process.stdin is not None
        process.stdin.close()
        process.wait(timeout=60)


def serve(path: str) -> None:
    """Run each client's command in a fork, until standard input is closed."""
    for name in LIBRARIES:
        importlib.import_module(name)
    gc.freeze()  # no command's garbage collection visits the libraries' million objects
    # scikit-learn imports pandas, and pandas Arrow, whose allocator handles forks itself.
    threads = [path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")]
    others = [name for name in threads if name != "jemalloc_bg_thd"]
    assert len(others) <= 1, f"a process with threads cannot be forked safely: {others}"
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path + ".new")
    listener.listen()
    os.rename(path + ".new", path)  # it exists once it listens
    attendants: list[int] = []
    while listener in select.select([listener, sys.stdin], [], [])[0]:
        client, _ = listener.accept()
        attendant = os.fork()
        if attendant == 0:
            listener.close()
            attend(client)
            return  # in the command's own process, which exits by itself
        client.close()
        attendants = [attendant, *(pid for pid in attendants if os.waitpid(pid, os.WNOHANG)[0] == 0)]
    for pid in attendants:
        os.waitpid(pid, 0)


def attend(client: socket.socket) -> None:
    """Fork the command's process, and send its exit code when it has ended."""
    size, streams, _, _ = socket.recv_fds(client, 4, 3)
    request = b""
    while len(request) < int.from_bytes(size, "big"):
        request += client.recv(65536)
    command = os.fork()
    if command == 0:
        client.close()
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
            os.close(stream)
        run(*json.loads(request))
        return
    for stream in streams:
        os.close(stream)
    Thread(target=end_with_client, args=(client, command), daemon=True).start()
    code = os.waitstatus_to_exitcode(os.waitpid(command, 0)[1])
    with suppress(BrokenPipeError):  # the client was killed
        client.sendall(str(code if code >= 0 else 128 - code).encode())
    os._exit(0)


def end_with_client(client: socket.socket, command: int) -> None:
    """Kill the command when its client is killed. A client sends nothing more, and closes its end last."""
    client.recv(1)
    os.kill(command, signal.SIGKILL)


def run(kind: str, arguments: list[str], folder: str, environment: dict[str, str]) -> None:
    """Become the command: ``sheaf ARGUMENTS`` or ``python FILE``."""
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = arguments if kind == "sheaf" else arguments[1:]
    sys.path.insert(0, os.path.dirname(os.path.abspath(sys.argv[0])))
    if kind == "sheaf":
        sys.exit(importlib.import_module("sheaf.cli.main").main())
    runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    serve(sys.argv[1])
