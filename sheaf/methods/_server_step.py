"""The step of a server optimizer after a merge, for every method that averages."""

from __future__ import annotations

from functools import cache

from sheaf.core.recipe import Off
from sheaf.core.types import Params
from sheaf.merges.server_optimizer import ServerOptimizer, ServerStep
from sheaf.runtime.edges import Edges
from sheaf.training.network import Network


def server_step(
    server: ServerOptimizer | Off, fleet: Edges, theta: Params, mean: Params, state: Params
) -> tuple[Params, Params]:
    """Return the next global model and the optimizer's state, both recorded: a resumed run reads them.

    Args:
        server: the optimizer; "none": the next model is the mean.
        fleet: records the results.
        theta: the global model before the round.
        mean: the merged models of the edges.
        state: of the step before; empty at first.
    """
    if server == "none":
        return mean, state

    @cache
    def result(network: Network) -> ServerStep:
        return server.step(theta, mean, state, network)

    new_state = fleet.compute("state of the server's optimizer", lambda network: result(network).state)
    return fleet.compute("step of the server's optimizer", lambda network: result(network).theta), new_state
