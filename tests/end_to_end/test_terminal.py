"""The live table as a terminal shows it: a real process in a pseudo-terminal of a known size."""

from __future__ import annotations

import os
import pty
import re
import struct
import subprocess
import termios
from fcntl import ioctl
from pathlib import Path

import pytest
from support import command

CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def in_terminal(program: str | Path, arguments: list[str], folder: Path, rows: int, columns: int) -> str:
    """All that ``sheaf ARGUMENTS`` writes to a terminal, control sequences and all."""
    ours, theirs = pty.openpty()
    ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    environment = os.environ | {"TERM": "xterm-256color"}
    for name in ("COLUMNS", "LINES", "NO_COLOR"):
        environment.pop(name, None)
    process = subprocess.Popen(
        [program, *arguments], cwd=folder, stdin=theirs, stdout=theirs, stderr=theirs, env=environment
    )
    os.close(theirs)
    said = b""
    while True:
        try:
            chunk = os.read(ours, 65536)
        except OSError:  # how Linux says that nobody writes any more
            break
        if not chunk:
            break
        said += chunk
    os.close(ours)
    assert process.wait(timeout=60) == 0, said.decode()
    return said.decode()


@pytest.mark.parametrize(("edges", "epochs", "columns"), [(3, 200, 100), (60, 200, 80)])
def test_a_run_in_a_terminal(
    edges: int, epochs: int, columns: int, tmp_path: Path, fork_server: Path
) -> None:
    program = command() if edges == 3 else fork_server / "sheaf"
    sets = [
        *(f"partition.edges={edges}", "partition.name=iid", "method.reference=false"),
        f"method.pretrain.epochs={epochs}",  # so that it takes longer than the time between two pictures
        *("method.finetune.epochs=1", "method.retrain.epochs=1"),
    ]
    changes = [word for change in sets for word in ("--set", change)]
    said = in_terminal(program, ["run", "ecavg-digits", *changes, "--out", "r"], tmp_path, 24, columns)
    plain = CONTROL.sub("", said).replace("\r", "\n")
    lines = [line.rstrip() for line in plain.splitlines()]
    assert max(map(len, lines)) <= columns
    assert any(re.fullmatch(r" site +state +step +loss +images/s +time left", line) for line in lines)
    title = rf"training {edges} sites, \d+ of {edges} done, \d+:\d\d"
    assert any(re.fullmatch(title, line) for line in lines)
    shown = [
        line
        for line in lines
        if re.fullmatch(r" edge-\d+ +training +[\d,]+/[\d,]+ +\d\.\d+ +[\d,]+ +\d+:\d\d", line)
    ]
    assert shown, f"no edge with its state, step, loss, speed and time left in:\n{plain}"
    if edges == 60:
        assert any(re.match(r"and \d+ more: .*waiting", line) for line in lines)
        assert any(re.match(r"60 edges +before update +accuracy 0\.\d+ mean", line) for line in lines)
        assert not any(re.match(r"edge-\d+ +before update", line) for line in lines)
    else:
        assert any(re.match(r"edge-2 +before update +accuracy", line) for line in lines)
    last = said.rindex("time left")
    assert "\x1b[2K" in said[last:] or "\x1b[1A" in said[last:], "the table is wiped when the run is done"
    assert [line for line in lines if line][-1] == "folder: r"
