"""A hand-written loop without a framework."""

from __future__ import annotations

import copy
import time

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.simulation.jobs import SEED, Job
from sheaf.experiments.setup import ExperimentSetup, prepare
from sheaf.models.memory_layout import to_layout


class Bare:
    """FedAvg over all edges of a job, one after another, with images normalised beforehand."""

    def __init__(self, job: Job, device: str) -> None:
        self.job = job
        self.device = device
        self.prepared: ExperimentSetup = prepare(job.experiment(device))
        data = self.prepared.dataset
        mean, std = torch.tensor(data.mean).view(-1, 1, 1), torch.tensor(data.std).view(-1, 1, 1)
        self.x = ((data.train.inputs.float() / 255 - mean) / std).to(device)
        self.x_test = ((data.test.inputs[data.test.positions].float() / 255 - mean) / std).to(device)
        self.y, self.y_test = data.train.targets.to(device), data.test.labels.to(device)
        self.parts = [train.positions.to(device) for train, _ in self.prepared.edge_samples.values()]

    def __call__(self, threads: int) -> dict[str, float]:
        """Run FedAvg over all edges."""
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        torch.manual_seed(SEED)
        began = time.perf_counter()
        model = copy.deepcopy(self.prepared.network.model).to(self.device)
        if any(isinstance(layer, nn.Conv2d) for layer in model.modules()):
            to_layout(model, channels_last=True)
        theta = {name: value.clone() for name, value in model.state_dict().items()}
        accuracy = 0.0
        for _ in range(self.job.rounds):
            sums = {name: torch.zeros_like(value, dtype=torch.float64) for name, value in theta.items()}
            for positions in self.parts:
                model.load_state_dict(theta)
                self._train(model.train(), positions)
                for name, value in model.state_dict().items():
                    sums[name].add_(value, alpha=len(positions))
            total = sum(map(len, self.parts))
            theta = {name: (value / total).to(theta[name].dtype) for name, value in sums.items()}
            model.load_state_dict(theta)
            with torch.inference_mode():
                guessed = torch.cat([model.eval()(x).argmax(1) for x in torch.split(self.x_test, 256)])
            accuracy = (guessed == self.y_test).float().mean().item()
        seconds = time.perf_counter() - began
        torch.set_num_threads(before)
        return {"seconds": seconds, "accuracy": accuracy}

    def _train(self, model: nn.Module, positions: Tensor) -> None:
        kind = torch.optim.SGD if self.job.optimizer == "sgd" else torch.optim.Adam
        optimizer = kind(model.parameters(), self.job.lr, fused=True)
        for batch in torch.split(
            positions[torch.randperm(len(positions), device=self.device)], self.job.batch_size
        ):
            optimizer.zero_grad()
            F.cross_entropy(model(self.x[batch]), self.y[batch]).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
