"""Training of one site: the module as it is. The plain path that the others are checked against."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn
from torch.func import functional_call

from sheaf.core.dataset import Samples
from sheaf.core.recipe import Recipe
from sheaf.core.seeds import generator, global_draws_from, seed_for
from sheaf.models.checkpoints import load_state
from sheaf.models.forward_effects import effects_of, reset
from sheaf.models.freezing import into_training
from sheaf.training import loop, optimizer_state
from sheaf.training.batches import Job, Rows
from sheaf.training.cuda_graph import CudaGraphFunction
from sheaf.training.optimizers import make_optimizer, make_scheduler
from sheaf.training.preparation import Preparation, move_model
from sheaf.training.seeded_dropout import dropout_from
from sheaf.training.step import (
    LossContext,
    batch_loss,
    changes_parameters,
    effective,
    needs,
    present_outputs,
)
from sheaf.training.weak_method import weak_method


def train_model(
    model: nn.Module,
    samples: Samples,
    recipe: Recipe,
    prepare: Preparation,
    seed: int,
    progress: Callable[[int, int, float, int], None] | None = None,
) -> list[float]:
    """Train ``model`` in place from its current parameters and return the mean loss of each epoch.

    Args:
        seed: of all draws: order, augmentation, dropout.
        progress: called with steps done, steps in all, latest loss, examples so far.
    """
    told = None if progress is None else (lambda _, *step: progress(*step))
    (trained,) = loop.train(
        OneSite(model, recipe), [Job(model.state_dict(), samples, seed)], recipe, prepare, told
    )
    return trained.losses


class OneSite:
    """The training state of one site. See ``loop.TrainingState``.

    Args:
        model: trained in place.
        recipe: the recipe that it is trained by.
        global_draws: whether layers may draw from torch's global generator (dropout on a CPU does not). It is
            then seeded for the time of training, so no other thread may use it.
        rows: the rows of each mini-batch that are computed here; None: all.
    """

    def __init__(
        self, model: nn.Module, recipe: Recipe, *, global_draws: bool = True, rows: Rows | None = None
    ) -> None:
        self._model = model
        self._only_rows = rows
        self._recipe = recipe
        self._global_draws = global_draws

    @contextmanager
    def begin(self, jobs: Sequence[Job], prepare: Preparation, steps: int) -> Iterator[None]:
        """Load the job's parameters and set up the optimizer; see ``loop.TrainingState``."""
        (job,) = jobs
        model = move_model(self._model, prepare.device)
        reset(model)
        load_state(model, job.start)
        present = present_outputs(model, job.samples, prepare) if needs(self._recipe, "present") else None
        into_training(model)
        self._parameters = trained = optimizer_state.trained_parameters(model)
        self._trained = list(trained.values())
        self._optimizer = make_optimizer(self._trained, self._recipe)
        optimizer_state.set_state(self._optimizer, trained, optimizer_state.state_among(job.constants))
        self._scheduler = make_scheduler(self._optimizer, self._recipe, steps)
        start = trained if needs(self._recipe, "start") else {}
        self._draws = generator(seed_for(job.seed, "steps"))
        self._context = LossContext(
            present,
            trained if needs(self._recipe, "params") else {},
            {name: value.detach().clone() for name, value in start.items()},
            torch.zeros((), device=prepare.device) if needs(self._recipe, "draw") else None,
            {name: value.to(prepare.device) for name, value in job.constants.items()},
        )
        self._network: Callable[[Tensor], Tensor] = model
        if changes_parameters(self._recipe):
            self._network = lambda x: functional_call(
                model, dict(effective(self._recipe, trained, self._context)), (x,)
            )
        effects = effects_of(model)
        captured = prepare.device.type == "cuda" and not effects.not_recorded and not effects.alone
        backward = weak_method(self._backward)
        self._gradients = CudaGraphFunction(backward) if captured else backward
        layer_seed = seed_for(job.seed, "layers")
        with ExitStack() as draws:
            if self._global_draws:
                draws.enter_context(global_draws_from(layer_seed, prepare.device))
            if prepare.device.type == "cpu":
                draws.enter_context(dropout_from(model, layer_seed, self._only_rows))
            draws.callback(reset, model)  # frees the graph of stored features, with which no copy can be made
            yield

    def padded_size(self, longest: int) -> int:
        """Return ``longest``: the mini-batches of one site need no padding."""
        return longest

    def keep_first(self, active: int) -> None:
        """Do nothing: there is only one site."""

    @property
    def takes_several(self) -> bool:
        """Whether one call for several steps is faster than a call for each."""
        return False

    def steps(self, x: Tensor, labels: Tensor) -> Tensor:
        """Take T steps on (T, 1, B, C, H, W) inputs; return the (T, 1) losses."""
        return torch.stack([self._step(*batch) for batch in zip(x, labels, strict=True)])

    def _step(self, x: Tensor, labels: Tensor) -> Tensor:
        """Take one step on (1, B, C, H, W) inputs; return the (1,) loss."""
        if self._context.draw is not None:
            self._context.draw.fill_(torch.rand((), generator=self._draws).item())
        loss, *gradients = self._gradients(x.squeeze(0), labels.squeeze(0))
        for parameter, gradient in zip(self._trained, gradients, strict=True):
            parameter.grad = gradient
        self._optimizer.step()
        if self._scheduler is not None:
            self._scheduler.step()
        return loss.clone()[None]  # a captured graph writes over it

    @property
    def values(self) -> Mapping[str, Tensor]:
        """The ``state_dict``, (1, *shape) each."""
        return {name: value[None] for name, value in self._model.state_dict().items()}

    def overwrite(self, values: Mapping[str, Tensor]) -> None:
        """Replace (1, *shape) values."""
        state = self._model.state_dict()
        for name, value in values.items():
            state[name].copy_(value[0])

    def result(self, site: int) -> dict[str, Tensor]:
        """Return the ``state_dict`` on the CPU, where it shares memory with the model."""
        return {name: value.cpu() for name, value in self._model.state_dict().items()}

    def optimizer_state(self) -> dict[str, Tensor]:
        """Return the state of the optimizer, on the CPU: zeros if it has taken no step."""
        found = optimizer_state.state_of(self._optimizer, self._parameters)
        kept = optimizer_state.statistic_of(self._recipe)
        shapes = {} if kept is None else optimizer_state.blank(self._model, kept.kind)
        return {
            name: found[name].cpu() if name in found else torch.zeros(value.shape)
            for name, value in shapes.items()
        }

    def _backward(self, x: Tensor, labels: Tensor) -> tuple[Tensor, ...]:
        """Return the loss of a mini-batch, and the gradient of each trained parameter, None if unused."""
        self._optimizer.zero_grad()
        loss = batch_loss(self._recipe, self._network, x, labels, self._context)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach(), *(parameter.grad for parameter in self._trained)  # type: ignore[arg-type]
