"""Flower's side of ``benchmarks.simulation``, for the interpreter of its own environment, without sheaf.

Usage: JOB=job.pt REPLY=reply.json python -c 'import flower_side; flower_side.simulate()'
(imported, as Ray's processes import it too)
"""

from __future__ import annotations

import functools
import json
import os
import time
from pathlib import Path
from typing import Any

import torch
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from flwr.simulation import run_simulation
from torch.nn import functional as F

began = time.perf_counter()


@functools.cache
def job() -> dict[str, Any]:
    """Return model, recipe and normalised images; each of Ray's processes reads them once."""
    torch.set_num_threads(1)  # one client on each core
    content: dict[str, Any] = torch.load(os.environ["JOB"], weights_only=False, mmap=True)
    return content


client = ClientApp()


@client.train()
def train(message: Message, context: Context) -> Message:
    """One client's epoch: the bare loop."""
    it = job()
    model, positions = it["model"], it["parts"][int(context.node_config["partition-id"])]
    model.load_state_dict(message.content["arrays"].to_torch_state_dict())
    kind = torch.optim.SGD if it["optimizer"] == "sgd" else torch.optim.Adam
    optimizer = kind(model.parameters(), it["lr"], fused=True)
    model.train()
    for batch in positions[torch.randperm(len(positions))].split(it["batch_size"]):
        optimizer.zero_grad()
        F.cross_entropy(model(it["x"][batch]), it["y"][batch]).backward()
        optimizer.step()
    metrics = MetricRecord({"num-examples": len(positions)})
    content = RecordDict({"arrays": ArrayRecord(model.state_dict()), "metrics": metrics})
    return Message(content=content, reply_to=message)


server = ServerApp()


@server.main()
def main(grid: Grid, context: Context) -> None:
    """FedAvg over all clients, the global model measured after each round."""
    it, times, accuracies = job(), [], []

    def evaluate(round: int, arrays: ArrayRecord) -> MetricRecord:
        it["model"].load_state_dict(arrays.to_torch_state_dict())
        with torch.inference_mode():
            right = (it["model"].eval()(it["x_test"]).argmax(1) == it["y_test"]).float().mean().item()
        times.append(time.perf_counter())
        accuracies.append(right)
        return MetricRecord({"accuracy": right})

    start = ArrayRecord(it["model"].state_dict())
    strategy = FedAvg(fraction_evaluate=0.0, min_train_nodes=2, min_available_nodes=len(it["parts"]))
    strategy.start(grid=grid, initial_arrays=start, num_rounds=it["rounds"], evaluate_fn=evaluate)
    reply = {
        # Ray's processes start within the first round, so that counts as the others do.
        "seconds": (times[-1] - times[1]) / (it["rounds"] - 1) * it["rounds"],
        "with_start": times[-1] - began,
        "accuracy": accuracies[-1],
        "rounds": len(times) - 1,
    }
    Path(os.environ["REPLY"]).write_text(json.dumps(reply))


def simulate() -> None:
    """Runs the job; the reply lies in ``REPLY``."""
    run_simulation(
        server,
        client,
        num_supernodes=len(job()["parts"]),
        backend_config={"client_resources": {"num_cpus": 1, "num_gpus": 0.0}},
    )
