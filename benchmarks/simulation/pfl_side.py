"""pfl-research's side of ``benchmarks.simulation``: its simulated backend, one process on each core.

The datasets keep their mini-batches in one order, as pfl-research's ``Dataset`` does: no images are copied or
shuffled. No user is evaluated, except in the first round, which the seconds leave out.

Usage: JOB=FOLDER REPLY=reply.json python -c 'import pfl_side; pfl_side.main()'
"""

from __future__ import annotations

import os
import time

import torch
from pfl.aggregate.simulate import SimulatedBackend
from pfl.aggregate.weighting import WeightByDatapoints
from pfl.algorithm.base import NNAlgorithmParams
from pfl.algorithm.federated_averaging import FederatedAveraging
from pfl.callback.central_evaluation import CentralEvaluationCallback
from pfl.data import FederatedDataset, get_user_sampler
from pfl.data.dataset import Dataset
from pfl.hyperparam.base import NNEvalHyperParams, NNTrainHyperParams
from pfl.metrics import Metrics, Weighted
from pfl.model.pytorch import PyTorchModel
from side_job import job, network, reply
from torch import Tensor, nn
from torch.nn import functional as F

PROCESSES = os.cpu_count() or 1


class Network(nn.Module):
    """The network with the loss and the metrics that pfl-research calls."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = network()

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the loss of a mini-batch."""
        return F.cross_entropy(self.layers(x), y)

    @torch.no_grad()
    def metrics(self, x: Tensor, y: Tensor) -> dict[str, Weighted]:
        """Return the number of correct predictions, and of images."""
        return {"accuracy": Weighted((self.layers(x).argmax(1) == y).sum().item(), len(y))}


class EachRound(CentralEvaluationCallback):
    """Evaluates the average after each round, and records when."""

    def __init__(self, dataset: Dataset) -> None:
        super().__init__(dataset, NNEvalHyperParams(local_batch_size=256))
        self.times: list[float] = []
        self.accuracy = 0.0

    def on_train_begin(self, *, model: PyTorchModel) -> Metrics:
        """Do nothing: the initial weights are not evaluated on any side."""
        return Metrics()

    def after_central_iteration(
        self, aggregate_metrics: Metrics, model: PyTorchModel, *, central_iteration: int
    ) -> tuple[bool, Metrics]:
        """Evaluate on all processes together."""
        stop, metrics = self._eval(model)
        self.accuracy = metrics.to_simple_dict()["Central val | accuracy"]
        self.times.append(time.perf_counter())
        return stop, metrics


def train() -> None:
    """Run the job in this process, one of several."""
    torch.set_num_threads(1)
    settings, data = job().settings, job()
    x, y, x_test, y_test = (torch.from_numpy(each) for each in (data.x, data.y, data.x_test, data.y_test))
    users = {
        number: Dataset((x[own], y[own])) for number, own in enumerate(map(torch.from_numpy, data.parts))
    }
    module = Network()
    model = PyTorchModel(
        module,
        lambda parameters, lr: torch.optim.SGD(parameters, lr, fused=True),
        torch.optim.SGD(module.parameters(), 1.0),
    )
    training = FederatedDataset(users.__getitem__, get_user_sampler("minimize_reuse", list(users)))
    each_round = EachRound(Dataset((x_test, y_test)))
    FederatedAveraging().run(
        algorithm_params=NNAlgorithmParams(
            central_num_iterations=settings["rounds"],
            evaluation_frequency=settings["rounds"] + 1,
            train_cohort_size=len(users),
            val_cohort_size=0,
        ),
        backend=SimulatedBackend(training, training, postprocessors=[WeightByDatapoints()]),
        model=model,
        model_train_params=NNTrainHyperParams(
            local_batch_size=settings["batch_size"],
            local_num_epochs=1,
            local_learning_rate=settings["lr"],
        ),
        callbacks=[each_round],
    )
    times, rounds = each_round.times, settings["rounds"]
    if os.environ.get("RANK", "0") == "0":
        seconds = (times[-1] - times[0]) / (rounds - 1) * rounds
        with_start = time.time() - float(os.environ["BEGAN"])
        reply(seconds, with_start, each_round.accuracy, len(times))


def main() -> None:
    """Run the job with pfl-research's launcher, ``torchrun``."""
    from torch.distributed.run import main as torchrun

    os.environ["BEGAN"] = str(time.time())
    torchrun(["--standalone", f"--nproc-per-node={PROCESSES}", __file__])


if __name__ == "__main__":
    train()
