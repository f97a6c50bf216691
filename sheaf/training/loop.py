"""The one training loop, for edges and cloud alike, and the one evaluation."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler, OneCycleLR

from sheaf.core.dataset import Samples
from sheaf.core.errors import SettingError
from sheaf.core.recipe import Recipe
from sheaf.core.seeds import generator, global_draws_from, seed_for
from sheaf.core.thread_pool import side_by_side
from sheaf.models.freezing import into_training, is_frozen
from sheaf.training.augmentation import AUGMENTATIONS
from sheaf.training.cuda_graph import CudaGraphFunction
from sheaf.training.gpu_cache import pick
from sheaf.training.metrics import confusion_matrix
from sheaf.training.seeded_dropout import dropout_from
from sheaf.training.weight_averaging import Tail, floating

EVALUATION_BATCH = 256
"""Many enough to be quick, few enough to stay in the cache: 512 took a fifth more of three networks' time."""

STATISTICS_BATCH = 512
"""Examples that batch norm's statistics are taken over at a time."""


@dataclass(frozen=True)
class Preparation:
    """What stands between samples in memory and a network: device, scale, normalisation.

    uint8 inputs are scaled to 0..1; then ``mean`` is taken off and ``std`` divided out, channel by channel.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    device: torch.device

    def __call__(self, inputs: Tensor) -> Tensor:
        """(N, C, H, W) uint8 or float32 anywhere -> the same in float32, normalised, on the device."""
        mean, std = self._of_bytes if inputs.dtype == torch.uint8 else self._of_features
        return (inputs.to(self.device, torch.float32) - mean).div_(std)

    @cached_property
    def _of_features(self) -> tuple[Tensor, Tensor]:
        mean, std = torch.tensor([self.mean, self.std], device=self.device)[..., None, None]
        return mean, std

    @cached_property
    def _of_bytes(self) -> tuple[Tensor, Tensor]:
        mean, std = self._of_features
        return mean * 255, std * 255


def train(
    model: nn.Module,
    samples: Samples,
    recipe: Recipe,
    prepare: Preparation,
    seed: int,
    progress: Callable[[int, int, float, int], None] | None = None,
    draws_in_layers: bool = True,
) -> list[float]:
    """Trains ``model`` in place by ``recipe`` and returns the mean loss of each epoch.

    Every draw (order, augmentation, dropout) comes from ``seed``. Layers other than dropout that draw do so
    from torch's global generator; a network that is known to have none (``draws_in_layers``) can be trained
    beside others.
    """
    into_training(move(model, prepare.device))
    steps = recipe.epochs * len(batch_sizes(len(samples), recipe.batch_size))
    optimizer = make_optimizer(model, recipe)
    scheduler = make_scheduler(optimizer, recipe, steps)
    draws = generator(seed)
    augmentations = [AUGMENTATIONS[name] for name in recipe.augment]
    precision = autocast(recipe, prepare.device)
    held = torch.bincount(samples.labels).nonzero().flatten().to(prepare.device)
    tail = Tail(_stack_of_one(model), [steps], recipe.tail) if recipe.tail and steps else None
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]

    def lowers(x: Tensor, labels: Tensor) -> tuple[Tensor, ...]:
        """The loss of a batch, and the gradients of what is trained, None for what has no part in it."""
        optimizer.zero_grad()
        with precision:
            lost = loss(restricted(model(x), held, recipe.alpha), labels)
        lost.backward()  # type: ignore[no-untyped-call]
        return lost.detach(), *(parameter.grad for parameter in trained)  # type: ignore[arg-type]

    def descend(lost: Tensor, *gradients: Tensor) -> Tensor:
        """One step of the optimizer; the loss, which the next batch does not write over."""
        for parameter, gradient in zip(trained, gradients, strict=True):
            parameter.grad = gradient
        optimizer.step()
        return lost.clone()

    again = CudaGraphFunction(lowers) if prepare.device.type == "cuda" else lowers
    losses, step, examples = [], 0, 0
    of_layers = seed_for(seed, "layers")
    with contextlib.ExitStack() as drawing:
        if draws_in_layers:
            drawing.enter_context(global_draws_from(of_layers, prepare.device))
        if prepare.device.type == "cpu":
            drawing.enter_context(dropout_from(model, of_layers))
        for _ in range(recipe.epochs):
            parts = []  # summed once an epoch, not at every step
            for inputs, labels in batches(samples, recipe.batch_size, draws, prepare.device):
                x = prepare(inputs)
                for augment in augmentations:
                    x = augment(x, draws)
                lost = descend(*again(x, labels.to(prepare.device)))
                if scheduler is not None:
                    scheduler.step()
                parts.append((lost, len(labels)))
                step += 1
                if tail is not None:
                    tail.add(_stack_of_one(model), step)
                examples += len(labels)
                if progress is not None and (step % 16 == 0 or step == steps):
                    progress(step, steps, lost.item(), examples)
            losses.append(sum(part.item() * count for part, count in parts) / len(samples))
    if tail is not None:
        model.load_state_dict({name: mean[0] for name, mean in tail.mean.items()}, strict=False)
    return losses


def _stack_of_one(model: nn.Module) -> dict[str, Tensor]:
    return {name: value[None] for name, value in floating(model.state_dict()).items()}


def restricted(logits: Tensor, held: Tensor, alpha: float | Literal["mask"]) -> Tensor:
    """The logits (N, K) with those of classes other than ``held`` multiplied by ``alpha``, or masked.

    Restricted softmax: FedRS, Li and Zhan, KDD 2021, equation 6. https://doi.org/10.1145/3447548.3467254
    """
    if alpha == 1:
        return logits
    absent = torch.ones(logits.shape[-1], dtype=torch.bool, device=logits.device).index_fill(0, held, False)
    if alpha == "mask":
        return logits.masked_fill(absent, -math.inf)
    return torch.where(absent, alpha * logits, logits)


def loss(logits: Tensor, labels: Tensor) -> Tensor:
    """What training lowers: the mean cross-entropy of (N, K) logits; labels of -100 count for nothing."""
    return F.cross_entropy(logits, labels)


def evaluate(
    model: nn.Module,
    samples: Samples,
    prepare: Preparation,
    num_classes: int,
    classes: Tensor | None = None,
) -> tuple[Tensor, float]:
    """The (K, K) confusion matrix and the mean cross-entropy of ``model`` on ``samples``.

    Args:
        classes: (k,) the classes that the model's first k outputs are for (all K, in order, by default).
            Outputs beyond them are left aside, and the loss is over the examples of these classes.
    """
    classes = torch.arange(num_classes) if classes is None else classes
    logits, output = _answers(model, samples, prepare, num_classes, classes)
    confusion = confusion_matrix(samples.labels, classes[logits.argmax(1)], num_classes)
    return confusion, F.cross_entropy(logits, output).item()


def judge(
    model: nn.Module,
    samples: Samples,
    prepare: Preparation,
    num_classes: int,
    classes: Tensor | None = None,
) -> tuple[float, Tensor]:
    """Accuracy of ``model`` on ``samples``, and its (N,) cross-entropies on them, float64; see ``evaluate``.

    The accuracy is the mean over the classes that there are samples of, which count the same however few
    these are. The cross-entropy of a sample of a class that the model has no output for is 0.
    """
    classes = torch.arange(num_classes) if classes is None else classes
    logits, output = _answers(model, samples, prepare, num_classes, classes)
    right = (logits.argmax(1) == output).double()
    counts = samples.labels.bincount()
    there = counts > 0
    accuracy = (samples.labels.bincount(right)[there] / counts[there]).mean().item()
    return accuracy, F.cross_entropy(logits.double(), output, reduction="none")


def _answers(
    model: nn.Module, samples: Samples, prepare: Preparation, num_classes: int, classes: Tensor
) -> tuple[Tensor, Tensor]:
    """(N, k) logits, and the (N,) outputs that are right; -100, which losses leave out, where none is."""
    logits = forward(model, samples, prepare, side_by_side if prepare.device.type == "cpu" else map)
    output = torch.full((num_classes,), -100)
    output[classes] = torch.arange(len(classes))
    return logits[:, : len(classes)], output[samples.labels]


def forward(
    model: nn.Module,
    samples: Samples,
    prepare: Preparation,
    over: Callable[[Callable[[Tensor], Tensor], Sequence[Tensor]], Iterable[Tensor]] = map,
) -> Tensor:
    """(N, K) float32 logits on the CPU, in evaluation mode.

    Args:
        over: how batches are gone over; ``side_by_side`` where no hook counts on their order.
    """
    move(model, prepare.device).eval()  # outside of inference mode: what is moved there can train no more

    def answer(positions: Tensor) -> Tensor:
        with torch.inference_mode():  # of this thread
            x = prepare(pick(samples.inputs, positions, prepare.device))
            return model(x).float().cpu()  # type: ignore[no-any-return]

    return torch.cat(list(over(answer, torch.split(samples.positions, EVALUATION_BATCH))))


def reestimate_statistics(model: nn.Module, samples: Samples, prepare: Preparation) -> None:
    """Sets the running statistics of every batch norm that is trained to the averages over ``samples``.

    The statistics of an average are not the average of the statistics: what flows through a merged network
    is nothing that its parts have seen.
    """
    move(model, prepare.device).eval()
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm) and not is_frozen(module)]
    usual = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the cumulative average
        norm.train()
    with torch.no_grad():
        # Batches of one size, as each counts the same in the cumulative average.
        for positions in torch.tensor_split(samples.positions, math.ceil(len(samples) / STATISTICS_BATCH)):
            model(prepare(pick(samples.inputs, positions, prepare.device)))
    for norm, momentum in zip(norms, usual, strict=True):
        norm.momentum = momentum


def batches(
    samples: Samples, batch_size: int, draws: torch.Generator, device: torch.device
) -> Iterator[tuple[Tensor, Tensor]]:
    """One shuffled pass over all samples: (inputs, labels) a batch; where they lie, see ``resident.pick``."""
    for positions in positions_of_batches(samples, batch_size, draws):
        yield pick(samples.inputs, positions, device), pick(samples.targets, positions, device)


def positions_of_batches(samples: Samples, batch_size: int, draws: torch.Generator) -> tuple[Tensor, ...]:
    """The same pass as positions in ``samples.inputs``."""
    order = samples.positions[torch.randperm(len(samples), generator=draws)]
    return torch.split(order, batch_sizes(len(samples), batch_size))


def batch_sizes(examples: int, batch_size: int) -> list[int]:
    """Full batches and a rest; a rest of one example joins the batch before it.

    Batch norm has no variance over one example, and no example is dropped.
    """
    full, rest = divmod(examples, batch_size)
    sizes = [batch_size] * full + ([rest] if rest else [])
    if rest == 1 and full:
        sizes[-2:] = [batch_size + 1]
    return sizes


def make_optimizer(model: nn.Module, recipe: Recipe) -> Optimizer:
    """The recipe's optimizer over the parameters that train; one fused kernel a step."""
    return optimizer_over([parameter for parameter in model.parameters() if parameter.requires_grad], recipe)


def optimizer_over(trained: Sequence[Tensor], recipe: Recipe) -> Optimizer:
    """The recipe's optimizer over these tensors."""
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(
            trained, recipe.lr, recipe.momentum, weight_decay=recipe.weight_decay, fused=True
        )
    kind = torch.optim.Adam if recipe.optimizer == "adam" else torch.optim.AdamW
    return kind(trained, recipe.lr, weight_decay=recipe.weight_decay, fused=True)


def make_scheduler(optimizer: Optimizer, recipe: Recipe, steps: int) -> LRScheduler | None:
    """The recipe's schedule over ``steps`` optimizer steps; None where the rate is constant."""
    if recipe.schedule == "constant" or steps == 0:
        return None
    if recipe.schedule == "cosine":
        return CosineAnnealingLR(optimizer, steps)
    return OneCycleLR(optimizer, recipe.lr, total_steps=steps, cycle_momentum=False)


def pick_device(name: str) -> torch.device:
    """``auto`` is CUDA where there is one, then Apple's MPS, then the CPU.

    Raises:
        SettingError: there is no such device here.
    """
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        name = next(kind for kind, is_there in there.items() if is_there)
    if not there[name]:
        found = ", ".join(kind for kind, is_there in there.items() if is_there)
        raise SettingError(
            f"fleet.device = {name!r}: torch finds none on this machine; there are: auto, {found}"
        )
    return torch.device(name)


def autocast(recipe: Recipe, device: torch.device) -> contextlib.AbstractContextManager[object]:
    """In which forward passes run by the recipe's precision."""
    return torch.autocast(device.type, torch.bfloat16) if casts(recipe, device) else contextlib.nullcontext()


def casts(recipe: Recipe, device: torch.device) -> bool:
    """Whether forward passes by the recipe's precision are in bfloat16 where that does."""
    return recipe.precision == "bfloat16" or (recipe.precision == "auto" and device.type == "cuda")


def move(model: nn.Module, device: torch.device) -> nn.Module:
    """Puts ``model`` where it computes, and in the layout in which it is fastest, in place."""
    # Convolutions over channels-last memory train MobileNetV2 about twice as fast on a CPU.
    if any(isinstance(module, nn.Conv2d) for module in model.modules()):
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # the stub lacks it
    return model.to(device)
