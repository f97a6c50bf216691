"""The methods of ``benchmarks.rivals`` by protocol, and their tuned settings.

Every method takes the number of edge epochs, a recipe and its tuned settings, and spends the epochs in its
own way: most in rounds of one epoch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from sheaf.core.recipe import FromStatistics, Recipe, Share
from sheaf.methods.central import Central
from sheaf.methods.decoupled import Decoupled
from sheaf.methods.ditto import Ditto
from sheaf.methods.ecavg import ECAvg
from sheaf.methods.ecavg_plus import ECAvgPlus
from sheaf.methods.fedadam import FedAdam
from sheaf.methods.fedavg import FedAvg
from sheaf.methods.fedavgm import FedAvgM
from sheaf.methods.fedbn import FedBN
from sheaf.methods.fedprox import FedProx
from sheaf.methods.fedrolex import FedRolex
from sheaf.methods.fiarse import FIARSE
from sheaf.methods.fjord import FjORD
from sheaf.methods.heterofl import HeteroFL
from sheaf.methods.local import Local
from sheaf.methods.scaffold import Scaffold
from sheaf.submodels.schemes.prefix import Prefix
from sheaf.training.losses.restricted_softmax import RestrictedSoftmax

Methods = dict[str, Callable[..., Any]]
"""Name -> the method for a number of edge epochs, a recipe and tuned settings."""

TENTH = Share(fraction=0.1)
LDA = FromStatistics(statistics="lda")
IN_ROUNDS, OF_ROUNDS = 54, 32
"""Rounds of methods that merge often in protocol C, and the size of their mini-batches.

Two edges together then average over 64 images, the recipe's size. A round has 16 mini-batches.
"""

NO_IMAGES: dict[str, Any] = {"share": "none", "finetune": "none", "refit": LDA, "restat": True}


def _a_tenth(epochs: int, recipe: Recipe) -> ECAvg:
    """Return ECAvg with a tenth of the images in the cloud, and half of the epochs before the merge."""
    half = replace(recipe, epochs=epochs // 2)
    return ECAvg(pretrain=half, restat=True, finetune=half, retrain=half, share=TENTH, reference=False)


def _no_images(epochs: int, recipe: Recipe) -> ECAvg:
    """Return ECAvg without images: one round, with the weights of the last half of each training averaged.

    Before the merge, the logits of classes without local examples are masked (HeteroFL's masked loss), which
    keeps models of edges with different classes near enough to average.
    """
    half = replace(recipe, epochs=epochs // 2, average_last=0.5)
    masked = replace(half, loss=RestrictedSoftmax(alpha=0))
    return ECAvg(pretrain=masked, retrain=half, reference=False, **NO_IMAGES)


def _rounds(kind: Any, **changes: Any) -> Callable[..., Any]:
    """Return a method in rounds of one epoch on each edge."""
    return lambda epochs, recipe, **tuned: kind(
        rounds=epochs, local=replace(recipe, epochs=1), **changes, **tuned
    )


def _short_rounds(epochs: int, recipe: Recipe) -> FedAvg:
    """Return FedAvg in as many rounds as ``_in_rounds``, each with mini-batches drawn anew."""
    local = replace(recipe, epochs=epochs, work=1 / IN_ROUNDS, batch_size=OF_ROUNDS, schedule="constant")
    return FedAvg(rounds=IN_ROUNDS, local=local)


def _server(kind: Any) -> Callable[..., Any]:
    """Return a method with an optimizer in the cloud, whose learning rate is the setting ``server_lr``."""
    return lambda epochs, recipe, server_lr, **tuned: kind(
        rounds=epochs, local=replace(recipe, epochs=1), lr=server_lr, **tuned
    )


def _scaffold(epochs: int, recipe: Recipe) -> Scaffold:
    plain = replace(recipe, epochs=1, optimizer="sgd", momentum=0.0, schedule="constant")
    return Scaffold(rounds=epochs, local=plain)


def _ditto(epochs: int, recipe: Recipe, **tuned: Any) -> Ditto:
    one = replace(recipe, epochs=1)
    return Ditto(rounds=epochs // 2, local=one, personal=one, **tuned)


def _plus_a_tenth(epochs: int, recipe: Recipe) -> ECAvgPlus:
    half = replace(recipe, epochs=epochs // 2)
    return ECAvgPlus(pretrain=half, finetune=half, retrain=half, share=TENTH, mixtures=())


EQUAL: Methods = {
    "ecavg, a tenth": _a_tenth,
    "ecavg, no images": _no_images,
    "ecavg, no images, int8": _no_images,
    "ecavg_plus, a tenth": _plus_a_tenth,
    "fedavg": _rounds(FedAvg),
    "fedprox": _rounds(FedProx),
    "fedavgm": _server(FedAvgM),
    "fedadam": _server(FedAdam),
    "scaffold": _scaffold,
    "fedbn": _rounds(FedBN),
    "ditto": _ditto,
    "local": lambda e, r: Local(train=replace(r, epochs=e)),
    "local, averaged weights": lambda e, r: Local(train=replace(r, epochs=e, average_last=0.5)),
    "central": lambda e, r: Central(train=replace(r, epochs=e)),
}


def _decoupled(epochs: int, recipe: Recipe, of_round: int = 2, **changes: Any) -> Decoupled:
    """Return decoupled training of prefix sub-models in rounds of ``of_round`` epochs."""
    one = replace(recipe, epochs=of_round)
    return Decoupled(train=one, retrain=one, rounds=epochs // of_round - 1, cut=Prefix(), **changes)


def _decoupled_without_images(epochs: int, recipe: Recipe, **tuned: Any) -> Decoupled:
    """Return decoupled training with statistics, whose forward passes take a fifth of the budget."""
    return _decoupled(4 * epochs // 5, recipe, 2 * epochs // 5, refit=LDA, restat=True, **tuned)


UNEQUAL: Methods = {
    "decoupled, prefix": _decoupled,
    "decoupled, no images": _decoupled_without_images,
    "decoupled, no images, int8": _decoupled_without_images,
    "decoupled, a tenth": lambda e, r, **t: _decoupled(
        e, r, share=TENTH, restat=True, finetune=replace(r, epochs=2), **t
    ),
    "heterofl": _rounds(HeteroFL),
    "fedrolex": _rounds(FedRolex),
    "fjord": _rounds(FjORD),
    "fiarse": _rounds(FIARSE),
    "fedavg, strong edges": _rounds(FedAvg, only_strong=True),
    "fedavg, all edges": _rounds(FedAvg),
}


def _pre_trained(epochs: int, recipe: Recipe, **changes: Any) -> ECAvgPlus:
    """Return ECAvg+ with half of the epochs before the merge, and averaged weights of their last halves."""
    half = replace(recipe, epochs=epochs // 2, average_last=0.5)
    return ECAvgPlus(pretrain=half, retrain=half, **changes)


def _pooled(epochs: int, recipe: Recipe) -> ECAvgPlus:
    return _pre_trained(epochs, recipe, finetune=replace(recipe, epochs=epochs // 2, average_last=0.5))


WIDE = FromStatistics(statistics="lda", shrinkage=0.5)
"""For 1,280 features: on those of the initial weights, better than 0.1 at all five sizes that were tried."""

WIDE_WITHOUT_IMAGES: dict[str, Any] = {**NO_IMAGES, "refit": WIDE}


def _once(epochs: int, recipe: Recipe) -> ECAvgPlus:
    """Return ECAvg+ without images that trains once, in one schedule, and merges at the end.

    Each edge then keeps its own model, unless the merged one is better on its held-out examples.
    """
    whole, none = replace(recipe, epochs=epochs, average_last=0.5), replace(recipe, epochs=0)
    return ECAvgPlus(pretrain=whole, retrain=none, mixtures=(1.0,), **WIDE_WITHOUT_IMAGES)


def _in_rounds(epochs: int, recipe: Recipe) -> ECAvgPlus:
    """Return ECAvg+ without images whose edges merge often, and in the end answer only with own classes."""
    whole = replace(recipe, epochs=epochs, batch_size=OF_ROUNDS)
    return ECAvgPlus(
        pretrain=whole,
        pretrain_rounds=IN_ROUNDS,
        retrain=replace(recipe, epochs=0),
        own_classes=True,
        mixtures=(),
        **WIDE_WITHOUT_IMAGES,
    )


PRE_TRAINED: Methods = {
    "ecavg_plus, all images": _pooled,
    "ecavg_plus, no images": lambda e, r: _pre_trained(e, r, **WIDE_WITHOUT_IMAGES),
    "ecavg_plus, no images, once": _once,
    "ecavg_plus, no images, in rounds": _in_rounds,
    "fedavg": _rounds(FedAvg),
    "fedavg, in rounds": _short_rounds,
    "fedprox": _rounds(FedProx),
    "scaffold": _scaffold,
    "fedbn": _rounds(FedBN),
    "ditto": _ditto,
}

RATES = {"A": (0.01, 0.03, 0.1, 0.3), "B": (0.03, 0.1, 0.3, 1.0)}
"""Learning rates that the sweep tries by protocol, of SGD with momentum 0.9."""

GRIDS: dict[str, list[dict[str, Any]]] = {
    "scaffold": [{"lr": lr} for lr in (0.05, 0.15, 0.5, 1.5)],  # has no momentum
    "fedprox": [{"lr": lr, "mu": mu} for lr in (0.01, 0.03) for mu in (0.01, 0.1)],
    "fedavgm": [
        {"lr": lr, "server_lr": 1.0, "momentum": momentum} for lr in (0.01, 0.03) for momentum in (0.5, 0.9)
    ],
    "fedadam": [{"lr": lr, "server_lr": rate} for lr in (0.01, 0.03) for rate in (0.01, 0.03)],
}
"""Method -> the settings that the sweep tries; by default ``lr`` of ``RATES``."""

TUNED: dict[str, dict[str, dict[str, Any]]] = {
    "A": {
        "ecavg, a tenth": {"lr": 0.01},
        "ecavg, no images": {"lr": 0.03},
        "ecavg, no images, int8": {"lr": 0.03},
        "ecavg_plus, a tenth": {"lr": 0.1},
        "fedavg": {"lr": 0.01},
        "fedprox": {"lr": 0.01, "mu": 0.1},
        "fedavgm": {"lr": 0.03, "server_lr": 1.0, "momentum": 0.9},
        "fedadam": {"lr": 0.01, "server_lr": 0.03},
        "scaffold": {"lr": 0.5},
        "fedbn": {"lr": 0.1},
        "ditto": {"lr": 0.03},
        "local": {"lr": 0.01},
        "local, averaged weights": {"lr": 0.03},
        "central": {"lr": 0.01},
    },
    "B": {
        "decoupled, prefix": {"lr": 0.3},
        "decoupled, no images": {"lr": 0.1},
        "decoupled, no images, int8": {"lr": 0.1},
        "decoupled, a tenth": {"lr": 0.3},
        "heterofl": {"lr": 0.3},
        "fedrolex": {"lr": 0.3},
        "fjord": {"lr": 0.1},
        "fiarse": {"lr": 0.3},
        "fedavg, strong edges": {"lr": 0.1},
        "fedavg, all edges": {"lr": 0.1},
    },
    "C": {"scaffold": {"lr": 0.05}},
}
"""Protocol -> method -> its settings: those with the highest score in the sweep, with seed 100.

B's are those of the Dirichlet split. C is not swept: it has the shipped
experiment's recipe, but for SCAFFOLD, whose control variates need plain SGD.
"""


def grid(protocol: str, method: str) -> list[dict[str, Any]]:
    """Return the settings that the sweep tries."""
    return GRIDS.get(method) or [{"lr": lr} for lr in RATES[protocol[0]]]
