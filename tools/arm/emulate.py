"""Run a fleet whose devices are aarch64 programs under QEMU, and compare it with a run of this machine.

Each device is the whole of ``sheaf edge join`` with the processes that it starts; the cloud runs on this
machine. The jobs are ``ecavg-digits`` with two devices and few epochs, with a perceptron and with a small
convolutional network. The processors have different matrix kernels, which round differently, and training a
convolutional network with batch norm amplifies that: two threads instead of one have the same effect on one
machine. So weights must agree within ``TOLERANCE``, or within ten times the difference that two threads make,
and accuracies within ``ACCURACY``.

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
from sheaf.fleets import absences
from sheaf.fleets.nvflare import link, site_config
from sheaf.fleets.remote import transfer
from sheaf.runtime.result import Result

EPOCHS = [f"method.{phase}.epochs=2" for phase in ("pretrain", "finetune", "retrain")]
CHANGES = ["partition.edges=2", "fleet.threads=1", *EPOCHS]
TOLERANCE = 1e-4
ACCURACY = 0.02
REPLY = 300.0
"""Seconds in which an emulated device replies to a message."""

START = 900
"""Seconds in which an emulated device's process of a job starts; it imports torch."""

WAIT = 1800.0
"""Seconds that emulated devices may take to connect: an import of a library takes a minute."""


def main() -> None:
    """Run each model's job on both processors, print the comparison, and exit with 1 if they differ."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--models", nargs="+", default=["mlp", "kws_cnn"])
    arguments = parser.parse_args()
    folder = arguments.folder.resolve()
    transfer.MESSAGE_TIMEOUT, absences.DEAD_AFTER = REPLY, 2 * REPLY
    site_config.PROCESS_START_TIMEOUT, link.JOB_START_TIMEOUT = START, 2.0 * START
    failed = False
    for model in arguments.models:
        out = folder / f"{model}-{time.strftime('%Y%m%d-%H%M%S')}"
        began = time.monotonic()
        emulated, native = run(model, out, str(folder / "python"))
        rows = list(zip(native.rows, emulated.rows, strict=True))
        by_processor = max(difference(out, "aarch64", site) for site in native.weights)
        by_threads = max(difference(out, "two-threads", site) for site in native.weights)
        accuracy = max(abs(mine.accuracy - other.accuracy) for mine, other in rows)
        record = {
            "model": model,
            "accuracies": len(rows),
            "equal": sum(mine.accuracy == other.accuracy for mine, other in rows),
            "largest_difference_of_accuracy": accuracy,
            "largest_difference_of_weights": by_processor,
            "by_two_threads": by_threads,
            "skipped": len(emulated.refused),
            "seconds": round(time.monotonic() - began),
        }
        print(json.dumps(record), flush=True)
        limit = max(TOLERANCE, 10 * by_threads)
        failed |= by_processor > limit or accuracy > ACCURACY or bool(emulated.refused)
    sys.exit(failed)


def run(model: str, out: Path, python: str) -> tuple[Result, Result]:
    """Run the experiment with devices of the interpreter ``python``, and in this process.

    The third run, with two threads, shows how far rounding alone carries the weights.
    """
    experiment = load_experiment("ecavg-digits", [*CHANGES, f"model.name={model}"])
    stage = out / "stage"
    stage.mkdir(parents=True)
    with rehearse.stage(prepare(experiment), stage, python) as fleet:
        emulated = run_on_fleet.run(experiment, fleet, out=out / "aarch64", wait=WAIT)
    runs.run(load_experiment(experiment, ["fleet.threads=2"]), out=out / "two-threads")
    return emulated, runs.run(experiment, out=out / "native")


def difference(out: Path, run: str, site: str) -> float:
    """Return the largest difference of a weight between a site's final models of ``run`` and natively."""
    native, other = (load_file(out / name / "weights" / f"{site}.safetensors") for name in ("native", run))
    return max((native[name].double() - other[name].double()).abs().max().item() for name in native)


if __name__ == "__main__":
    main()
