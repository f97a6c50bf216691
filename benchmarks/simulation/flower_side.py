"""Flower's side of ``benchmarks.simulation``: its own FedAvg, one client on each core (the Ray backend).

Usage: JOB=FOLDER REPLY=reply.json python -c 'import flower_side; flower_side.main()'
(imported, as Ray's processes import it too)
"""

from __future__ import annotations

import functools
import time
from typing import Any

import torch
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from flwr.simulation import run_simulation
from side_job import job, network, reply
from torch.nn import functional as F

began = time.perf_counter()


@functools.cache
def loaded() -> tuple[Any, dict[str, torch.Tensor]]:
    """Return the model and the images; each of Ray's processes reads them once."""
    torch.set_num_threads(1)  # one client on each core
    names = ("x", "y", "x_test", "y_test")
    return network(), {name: torch.from_numpy(getattr(job(), name)) for name in names}


client = ClientApp()


@client.train()
def train(message: Message, context: Context) -> Message:
    """One client's epoch: the bare loop."""
    (model, data), settings = loaded(), job().settings
    positions = torch.from_numpy(job().parts[int(context.node_config["partition-id"])])
    model.load_state_dict(message.content["arrays"].to_torch_state_dict())
    kind = torch.optim.SGD if settings["optimizer"] == "sgd" else torch.optim.Adam
    optimizer = kind(model.parameters(), settings["lr"], fused=True)
    model.train()
    for batch in positions[torch.randperm(len(positions))].split(settings["batch_size"]):
        optimizer.zero_grad()
        F.cross_entropy(model(data["x"][batch]), data["y"][batch]).backward()
        optimizer.step()
    metrics = MetricRecord({"num-examples": len(positions)})
    content = RecordDict({"arrays": ArrayRecord(model.state_dict()), "metrics": metrics})
    return Message(content=content, reply_to=message)


server = ServerApp()


@server.main()
def serve(grid: Grid, context: Context) -> None:
    """FedAvg over all clients, the global model measured after each round."""
    (model, data), rounds, times, accuracies = loaded(), job().settings["rounds"], [], []

    def evaluate(round: int, arrays: ArrayRecord) -> MetricRecord:
        model.load_state_dict(arrays.to_torch_state_dict())
        with torch.inference_mode():
            correct = model.eval()(data["x_test"]).argmax(1) == data["y_test"]
        times.append(time.perf_counter())
        accuracies.append(correct.float().mean().item())
        return MetricRecord({"accuracy": accuracies[-1]})

    initial = ArrayRecord(model.state_dict())
    strategy = FedAvg(fraction_evaluate=0.0, min_train_nodes=2, min_available_nodes=len(job().parts))
    strategy.start(grid=grid, initial_arrays=initial, num_rounds=rounds, evaluate_fn=evaluate)
    # Ray's processes start within the first round, so that counts as the others do.
    seconds = (times[-1] - times[1]) / (rounds - 1) * rounds
    reply(seconds, times[-1] - began, accuracies[-1], len(times) - 1)


def main() -> None:
    """Run the job."""
    run_simulation(
        server,
        client,
        num_supernodes=len(job().parts),
        backend_config={"client_resources": {"num_cpus": 1, "num_gpus": 0.0}},
    )
