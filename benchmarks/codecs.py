"""Measure codecs: bytes, accuracy and encoding time of FedAvg on MNIST and CIFAR-10, for each codec and seed.

A run samples a quarter of twenty edges in each round, so that most edges hold an older model or none, and
uses the codec in both directions. Bytes are those of all messages of all edges. Encoding and decoding of the
whole model, as a difference, are timed on one thread.

Run: SHEAF_DATA=… python -m benchmarks.codecs FOLDER
Finished runs in FOLDER are read, so that an interrupted benchmark continues. With a seed after FOLDER, only
the runs of that seed are executed and nothing is published: so several processes can share the work. With
the word finished, no run is executed, and the finished ones are published. Changes such as method.rounds=1
after FOLDER or the seed try it with less training; nothing is published then.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.results import publish
from sheaf.core import registry
from sheaf.core.coding import Codec
from sheaf.core.settings import parse
from sheaf.core.tensor_file import Blob
from sheaf.core.types import CLOUD
from sheaf.experiments.compare import run_or_resume
from sheaf.experiments.config import Experiment, load_experiment
from sheaf.experiments.setup import ExperimentSetup, prepare
from sheaf.runtime.coded_params import DecodedBlob, encodable, encode

SEEDS = 3
CODECS = "float32", "bfloat16", "int8", "topk"
DATA: dict[str, dict[str, Any]] = {
    "mnist": {"model": {"name": "mlp"}, "rounds": 30},
    "cifar10": {"model": {"name": "kws_cnn"}, "rounds": 12},
}
"""Data set -> its network and number of rounds."""

REPETITIONS = 9


def variant(data: str, codec: str, seed: int, changes: Sequence[str]) -> Experiment:
    """Return the experiment with these settings."""
    table = {
        "data": {"name": data},
        "partition": {"name": "dirichlet", "edges": 20, "alpha": 1.0},
        "model": DATA[data]["model"],
        "method": {"name": "fedavg", "rounds": DATA[data]["rounds"], "sample": 0.25},
        "fleet": {"threads": 1, "upload": codec, "download": codec},
        "seed": seed,
    }
    return load_experiment(parse(Experiment, table), changes)


def main() -> None:
    """Run the missing variants in FOLDER, and publish ``codecs.json``."""
    folder, rows = Path(sys.argv[1]).resolve(), list[dict[str, Any]]()
    only = [int(argument) for argument in sys.argv[2:] if argument.isdigit()]
    changes = [argument for argument in sys.argv[2:] if "=" in argument]
    for seed in only or range(SEEDS):
        for data in DATA:
            for codec in CODECS:
                experiment, own = variant(data, codec, seed, changes), folder / f"{data}-{codec}-{seed}"
                if "finished" in sys.argv[2:] and not (own / "result.json").exists():
                    continue
                result = run_or_resume(experiment, own)
                edges = [cost for site, cost in result.cost.items() if site != CLOUD]
                rows.append(
                    {
                        "data": data,
                        "codec": codec,
                        "seed": seed,
                        "bytes": sum(cost.bytes_sent + cost.bytes_received for cost in edges),
                        "accuracy": [row.accuracy for row in result.rows if row.site == CLOUD][-1],
                        "commit": result.provenance["commit"],
                    }
                )
                print(rows[-1], flush=True)
    if only or changes:
        return
    torch.set_num_threads(1)
    times: dict[tuple[str, str], dict[str, float]] = {}
    for data in DATA:
        setup = prepare(variant(data, "float32", 0, ()))
        times |= {(data, codec): milliseconds_per_megabyte(setup, codec) for codec in CODECS}
    rows = [row | times[row["data"], row["codec"]] for row in rows]
    settings, fingerprints = result.provenance["settings"], result.provenance["data"]
    publish("codecs", rows, settings, 0, fingerprints, ("data", "codec", "seed", "bytes", "accuracy"))


def milliseconds_per_megabyte(setup: ExperimentSetup, codec: str) -> dict[str, float]:
    """Return the median processor times of encoding and decoding, for each megabyte of float32."""
    plugin: Codec = registry.load("codecs", codec)()
    names, shapes, base = encodable(setup.network), setup.network.shapes(None), setup.theta
    params, megabytes = setup.draw(1), Blob.of(setup.theta).size / 1e6
    encoding, decoding = [], []
    for seed in range(REPETITIONS):
        began = time.process_time()
        encoded = Blob.of(encode(params, plugin, names, seed, base)[0])
        encoding.append(time.process_time() - began)
        blob, began = Blob.of(base), time.process_time()
        DecodedBlob(encoded, shapes, plugin, names, blob).open()
        decoding.append(time.process_time() - began)
    times = {"encode_ms_per_mb": encoding, "decode_ms_per_mb": decoding}
    return {name: 1e3 * statistics.median(of) / megabytes for name, of in times.items()}


if __name__ == "__main__":
    main()
