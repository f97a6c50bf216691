"""Prove that a change alters no number: short experiments must end with the same weights, bit for bit.

    python tools/same_bits.py --out before.json        # at the commit before, in its environment
    python tools/same_bits.py --against before.json    # at the commit after, on the same machine

A hash covers all weights of all sites (names, types, shapes, values; not the metadata). Equal hashes are
expected on one machine only: other processors round differently.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from safetensors.torch import load_file

SHEAF = str(Path(sys.executable).with_name("sheaf"))
SHORT = ("data.limit=600", "data.limit_test=100")
TWO_ROUNDS = ("method.rounds=2", "method.local.epochs=2", "method.local.batch_size=16")
CNN = ("model.name=kws_cnn", "fleet.together=threads")

RUNS: dict[str, list[str]] = {
    "ecavg": [*SHORT, "method.pretrain.epochs=4", "method.finetune.epochs=4", "method.retrain.epochs=4"],
    "ecavg_plus": ["method={name = 'ecavg_plus'}", *SHORT, "method.share.fraction=0.5"],
    "decoupled": [
        "method={name = 'decoupled'}",
        *SHORT,
        *CNN,
        "method.train.epochs=3",
        "method.negatives=pooled",
        "method.share.fraction=0.5",
        "method.refit={epochs = 2}",
    ],
    "heterofl": ["method={name = 'heterofl'}", *SHORT, *TWO_ROUNDS, "fleet.widths.edge-1=0.5"],
    "fedrolex": ["method={name = 'fedrolex'}", *SHORT, *TWO_ROUNDS, "fleet.widths.edge-1=0.5", *CNN],
    "fedavg stacked": [
        "partition=iid",
        "partition.edges=20",
        "method={name = 'fedavg'}",
        *TWO_ROUNDS,
        "method.local.optimizer=sgd",
        "fleet.together=stacked",
    ],
    "rehearsed fleet": [
        *SHORT,
        "method.pretrain.epochs=2",
        "method.finetune.epochs=2",
        "method.retrain.epochs=2",
    ],
    "resumed": [*SHORT, "method.pretrain.epochs=20", "method.finetune.epochs=20", "method.retrain.epochs=20"],
}


def main() -> None:
    """Run all experiments; write their hashes or compare them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, help="write the hashes to this JSON file")
    parser.add_argument(
        "--against", type=Path, help="compare with the hashes in this file; exit 1 if any differ"
    )
    parser.add_argument("--only", choices=sorted(RUNS), help="one experiment")
    arguments = parser.parse_args()
    before = json.loads(arguments.against.read_text()) if arguments.against else {}
    hashes = {}
    for name in [arguments.only] if arguments.only else RUNS:
        with tempfile.TemporaryDirectory() as scratch:
            hashes[name] = run(name, Path(scratch) / "run")
        verdict = "" if name not in before else "same" if before[name] == hashes[name] else "DIFFERENT"
        print(f"{name:16} {hashes[name][:16]} {verdict}", flush=True)
    if arguments.out:
        arguments.out.write_text(json.dumps(hashes, indent=1) + "\n")
    sys.exit(any(before.get(name, found) != found for name, found in hashes.items()))


def run(name: str, folder: Path) -> str:
    """Run one experiment on one thread in ``folder`` and return the hash of its weights."""
    settings = [argument for change in (*RUNS[name], "fleet.threads=1") for argument in ("--set", change)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    if name == "rehearsed fleet":
        command = [SHEAF, "cloud", "rehearse", "ecavg-digits", *settings, "--out", str(folder)]
    else:
        command = [SHEAF, "run", "ecavg-digits", *settings, "--out", str(folder), "--quiet"]
    if name == "resumed":
        kill_after(command, environment, folder, answers=4)
        command = [SHEAF, "run", "--resume", str(folder), "--quiet"]
    subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    return weights_hash(folder)


def kill_after(command: list[str], environment: dict[str, str], folder: Path, answers: int) -> None:
    """Start a run and kill it once its journal holds ``answers`` answers."""
    journal = folder / "journal" / "journal.jsonl"
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    while process.poll() is None:
        if journal.exists() and journal.read_bytes().count(b"\n") > answers:
            process.send_signal(signal.SIGKILL)
            process.wait()
            return
        time.sleep(0.01)
    sys.exit("the run ended before it could be killed")


def weights_hash(folder: Path) -> str:
    """Return the SHA-256 of all weights in a run's folder."""
    digest = hashlib.sha256()
    for path in sorted((folder / "weights").glob("*.safetensors")):
        digest.update(path.name.encode())
        for name, value in sorted(load_file(path).items()):
            digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
            digest.update(value.contiguous().numpy().tobytes())
    return digest.hexdigest()


if __name__ == "__main__":
    main()
