"""Run a fleet whose devices are aarch64 programs under QEMU, and compare it with a run of this machine.

Each device is the whole of ``sheaf edge join`` with the processes that it starts; the cloud runs on this
machine. The jobs are ``ecavg-digits`` with two devices and few epochs, with a perceptron and with a small
convolutional network. Accuracies must be equal and weights must agree within ``TOLERANCE``: the processors
have different matrix kernels, which round differently.

Run: python tools/arm/emulate.py FOLDER, the folder that tools/arm/prepare.sh has written
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

from safetensors.torch import load_file

from sheaf.experiments import rehearse, run_on_fleet
from sheaf.experiments import run as runs
from sheaf.experiments.config import load_experiment
from sheaf.experiments.setup import prepare
from sheaf.fleets.remote import transfer
from sheaf.runtime.result import Result

EPOCHS = [f"method.{phase}.epochs=2" for phase in ("pretrain", "finetune", "retrain")]
CHANGES = ["partition.edges=2", "fleet.threads=1", *EPOCHS]
TOLERANCE = 1e-4
REPLY = 300.0
"""Seconds in which an emulated device replies to a message; the first one makes it import torch."""

WAIT = 1800.0
"""Seconds that emulated devices may take to connect: an import of a library takes a minute."""


def main() -> None:
    """Run each model's job on both processors, print the comparison, and exit with 1 if they differ."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--models", nargs="+", default=["mlp", "kws_cnn"])
    arguments = parser.parse_args()
    folder = arguments.folder.resolve()
    transfer.MESSAGE_TIMEOUT, transfer.DEAD_AFTER = REPLY, 2 * REPLY
    failed = False
    for model in arguments.models:
        out = folder / f"{model}-{time.strftime('%Y%m%d-%H%M%S')}"
        began = time.monotonic()
        emulated, native = run(model, out, str(folder / "python"))
        rows = list(zip(native.rows, emulated.rows, strict=True))
        equal = sum(mine.accuracy == other.accuracy for mine, other in rows)
        largest = max(difference(out, site) for site in native.weights)
        record = {"model": model, "accuracies": len(rows), "equal": equal, "largest_difference": largest}
        record |= {"skipped": len(emulated.refused), "seconds": round(time.monotonic() - began)}
        print(json.dumps(record), flush=True)
        failed |= equal < len(rows) or largest > TOLERANCE or bool(emulated.refused)
    sys.exit(failed)


def run(model: str, out: Path, python: str) -> tuple[Result, Result]:
    """Run the experiment with devices of the interpreter ``python``, and in this process."""
    experiment = load_experiment("ecavg-digits", [*CHANGES, f"model.name={model}"])
    stage = out / "stage"
    stage.mkdir(parents=True)
    with rehearse.stage(prepare(experiment), stage, python) as fleet:
        emulated = run_on_fleet.run(experiment, fleet, out=out / "aarch64", wait=WAIT)
    return emulated, runs.run(experiment, out=out / "native")


def difference(out: Path, site: str) -> float:
    """Return the largest difference of a weight between the two final models of a site."""
    native, emulated = (
        load_file(out / run / "weights" / f"{site}.safetensors") for run in ("native", "aarch64")
    )
    return max((native[name].double() - emulated[name].double()).abs().max().item() for name in native)


if __name__ == "__main__":
    main()
