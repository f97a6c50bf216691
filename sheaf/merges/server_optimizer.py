"""An optimizer in the cloud whose gradient is the mean change of the edges: FedAvgM, FedAdam."""

from __future__ import annotations

from typing import Annotated, Literal, NamedTuple

from pydantic import Field
from torch import Tensor
from torch.optim import Optimizer

from sheaf.core.settings import settings
from sheaf.core.types import Params
from sheaf.training.network import Network
from sheaf.training.optimizer_state import set_state, state_of, trained_parameters
from sheaf.training.optimizers import KINDS

Fraction = Annotated[float, Field(ge=0, lt=1)]


class ServerStep(NamedTuple):
    """The result of one step.

    Attributes:
        theta: the new global model.
        state: the optimizer's state after it, as named tensors.
    """

    theta: dict[str, Tensor]
    state: dict[str, Tensor]


@settings
class ServerOptimizer:
    """An optimizer of ``torch.optim`` for the global model theta. Its gradient is theta - mean of the edges.

    FedAvgM is ``sgd`` with momentum: Measuring the Effects of Non-Identical Data Distribution for Federated
    Visual Classification. Hsu, Qi, Brown 2019. arXiv:1909.06335, section 4.3. FedAdam is ``adam``: Adaptive
    Federated Optimization. Reddi, Charles, Zaheer and others. ICLR 2021, arXiv:2003.00295, algorithm 2; Adam
    of torch corrects the bias of its moments, which algorithm 2 does not.

    Attributes:
        optimizer: ``sgd`` or ``adam``, as in ``torch.optim``.
        lr: the learning rate of the server. ``sgd`` with 1 and momentum 0 is the plain mean.
        momentum: of ``sgd``, from 0 to below 1.
        betas: of ``adam``, each from 0 to below 1.
        eps: of ``adam``, tau in the paper: a larger value adapts less.
    """

    optimizer: Literal["sgd", "adam"] = "sgd"
    lr: Annotated[float, Field(gt=0)] = 1.0
    momentum: Fraction = 0.9
    betas: tuple[Fraction, Fraction] = (0.9, 0.99)
    eps: Annotated[float, Field(gt=0)] = 1e-3

    def step(self, theta: Params, mean: Params, state: Params, network: Network) -> ServerStep:
        """Take one step from ``theta`` and return the new model and the new state.

        The optimizer moves the trained parameters. Statistics of batch norm and integer buffers are those of
        ``mean``: a step could make a variance negative.

        Args:
            theta: the global model before the round.
            mean: the merged models of the edges.
            state: the state after the step before; empty at first.
            network: the whole model, which names the parameters.
        """
        trained = list(trained_parameters(network.model))
        if not trained:
            return ServerStep(dict(mean), {})
        new = dict(mean) | {name: theta[name].clone() for name in trained}
        optimizer = self._over([new[name] for name in trained])
        for name in trained:
            new[name].grad = theta[name] - mean[name]
        parameters = {name: new[name] for name in trained}
        set_state(optimizer, parameters, state)
        optimizer.step()
        slots = state_of(optimizer, parameters)
        return ServerStep({name: value.detach() for name, value in new.items()}, slots)

    def _over(self, parameters: list[Tensor]) -> Optimizer:
        if self.optimizer == "sgd":
            return KINDS["sgd"](parameters, lr=self.lr, momentum=self.momentum)
        return KINDS["adam"](parameters, lr=self.lr, betas=self.betas, eps=self.eps)
