"""Check a user's model before anything is trained: on copies, as it will be used.

A run computes with copies of a model, with models that were built elsewhere (on a device, after a resume, in
an export), and with one model for several sites. All are the same function only if the state_dict determines
what the model computes. This is tested on two batches of random numbers.
"""

from __future__ import annotations

import copy
import logging
import random
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from sheaf.core.errors import SettingError, SheafError, WeightsError
from sheaf.core.seeds import generator, global_draws_from, seed_global_draws
from sheaf.models.check import Shape, check_logits, check_state, check_step, describe
from sheaf.models.check_cache import result_of
from sheaf.models.checkpoints import load_state
from sheaf.models.forward_effects import Absent, Effects, attributes, buffers, differing, listed, mark
from sheaf.models.memory_layout import keep_ordinary_layout, to_layout, uses_channels_last

log = logging.getLogger("sheaf")

Build = Callable[[], nn.Module]

EQUAL = 1e-4
"""Largest difference of logits, as a fraction of the largest one, that counts as rounding."""

ANOTHER_SEED = 2**40 + 1
"""Of the second build: no seed of a run is likely to be this one."""

INTERRUPTIONS = 3
"""Layers after which another copy runs, to see whether two threads could run a model at once."""

COPIES = 8
"""Pairs of copies that are compared to find draws; two draws may be equal by chance, as those of a coin."""


def check_model(
    model: nn.Module, name: str, num_classes: int, in_shape: Shape, build: Build, fingerprint: str = ""
) -> None:
    """Check the types of the model's parameters, its logits, training steps, and that they are repeatable.

    A model whose step fails in channels-last memory only is marked to keep the ordinary layout. Effects of
    the forward pass that some ways of training would lose are marked (``forward_effects``) and logged.

    Args:
        model: on the CPU; stays unchanged, but for the marks.
        name: of the model, for messages.
        num_classes: K.
        in_shape: (C, H, W).
        build: builds the model once more; draws from the global generators.
        fingerprint: of the model in ``check_cache``; a model that has passed is not run again.

    Raises:
        SettingError: the model cannot be trained, or not be repeated. The message names the line of the
            user's own code, or the attribute.
    """
    check_state(model, name)
    draws = generator(0)
    batches = [torch.randn(2, *in_shape, generator=draws) for _ in range(2)]
    if _is_lazy(model):
        check_logits(model, name, num_classes, batches[0])  # draws the lazy parameters
    passed = result_of(
        fingerprint, "check", lambda: asdict(_examine(model, name, num_classes, batches, build))
    )
    passed = _Passed(**passed)
    if passed.ordinary_layout:
        keep_ordinary_layout(model)
    resets = {
        (path, attribute): copy.deepcopy(getattr(model.get_submodule(path), attribute, Absent))
        for path, attribute in passed.changing
    }
    mark(model, Effects(passed.not_recorded, passed.alone, passed.shareable, resets, fingerprint))
    if passed.alone:
        log.info("the sites of model %r are trained one at a time: %s", name, passed.alone)
    elif passed.not_recorded:
        log.info(
            "steps of model %r are neither recorded nor taken for several sites at once: %s",
            name,
            passed.not_recorded,
        )


@dataclass(frozen=True)
class _Passed:
    """The result of a check, as JSON values. See ``Effects``.

    Attributes:
        not_recorded, alone, shareable: as in ``Effects``.
        changing: the keys of ``Effects.resets``.
        ordinary_layout: whether the model fails in channels-last memory.
    """

    not_recorded: str
    alone: str
    shareable: bool
    changing: list[tuple[str, str]]
    ordinary_layout: bool = False


def _examine(model: nn.Module, name: str, num_classes: int, batches: list[Tensor], build: Build) -> _Passed:
    """Run copies of the model.

    Raises:
        SettingError: a run fails, or does not compute what another one does.
    """
    as_built = attributes(model)
    layouts = (True, False) if uses_channels_last(model) else (False,)
    for channels_last in layouts:
        trial = _Trial(model, name, num_classes, batches, build, channels_last)
        try:
            passed = trial.run(as_built)
            break
        except SettingError as error:
            if channels_last:
                continue
            if not trial.runs:
                for examples in (2, 1):  # raises for a model that never works
                    check_logits(_built(build), name, num_classes, batches[0][:examples])
                raise SettingError(_not_copied(name)) from error
            raise
    if differing(as_built, attributes(model)):
        raise SettingError(_not_copied(name))
    return replace(passed, ordinary_layout=channels_last != layouts[0])


class _Trial:
    """Runs of copies of a model in one memory layout.

    Args:
        model: stays unchanged.
        name: of the model, for messages.
        num_classes: K.
        batches: two batches of two examples.
        build: builds the model once more.
        channels_last: the memory layout.

    Attributes:
        runs: whether a copy has computed logits.

    Raises:
        SettingError: the model cannot be copied.
    """

    def __init__(
        self,
        model: nn.Module,
        name: str,
        num_classes: int,
        batches: list[Tensor],
        build: Build,
        channels_last: bool,
    ) -> None:
        self._model, self._name, self._num_classes = model, name, num_classes
        self._batches, self._build, self._channels_last = batches, build, channels_last
        self.runs = False
        self._draws = False  # from Python's or numpy's generator
        self._undrawn = 0.0, 0.0  # their next draws after a step that draws nothing
        self._trained = self._copy()

    def run(self, as_built: dict[tuple[str, str], object]) -> _Passed:
        """Return the result of the check. The global generators keep their states.

        Args:
            as_built: the attributes of the model.

        Raises:
            SettingError: a run fails, or does not compute what another one does.
        """
        with global_draws_from(0):
            return self._run(as_built)

    def _run(self, as_built: dict[tuple[str, str], object]) -> _Passed:
        first, second = self._batches
        trained, built = self._trained, self._built_again()
        seed_global_draws(1)
        self._undrawn = random.random(), np.random.random_sample()
        logits = self._evaluate(trained, first, seed=1)
        self._evaluate(trained, first[:1])
        self.runs = True
        if not _close(logits, self._evaluate(built, first, seed=2)):
            if not _close(logits, self._evaluate(trained, first, seed=2)):
                raise self._error(
                    "does not repeat its logits in evaluation: F.dropout and the like need "
                    "training=self.training"
                )
            raise self._hidden(differing(as_built, attributes(built)), "when it is built")

        before = buffers(trained)
        self._step(trained, first)
        assigned = [key for key, buffer in buffers(trained).items() if buffer is not before.get(key)]
        between = attributes(trained)
        self._load(built, trained)
        if not _close(self._evaluate(trained, second), self._evaluate(built, second)):
            raise self._not_repeated(as_built)
        logits = self._step(trained, second)
        if not self._same(trained, logits, built, self._step(built, second)):
            raise self._not_repeated(as_built)
        after = attributes(trained)
        if not _close(self._in_training(trained, first), self._in_training(built, first)):
            raise self._not_repeated(as_built)  # draws were equal by chance, such as those of a coin
        return self._passed(between, after, assigned, built, trained)

    def _not_repeated(self, as_built: dict[tuple[str, str], object]) -> SettingError:
        """Return the error for a model from which another one of the same state differs in training."""
        first, built = self._batches[0], self._built_again()
        of_built = differing(as_built, attributes(built))
        for _ in range(COPIES):
            one, other = self._copy(), self._copy()
            logits = self._step(one, first)
            if not self._same(one, logits, other, self._step(other, first)):
                return self._error(
                    "does not repeat a training step from the same state and seed: it draws from a generator "
                    "of its own; use the global generator of torch, Python or numpy, which sheaf seeds"
                )
        if not self._same(one, logits, built, self._step(built, first)):
            return self._hidden(of_built, "when it is built")
        return self._hidden(differing(as_built, attributes(self._trained)), "in training")

    def _passed(
        self,
        between: dict[tuple[str, str], object],
        after: dict[tuple[str, str], object],
        assigned: list[str],
        one: nn.Module,
        other: nn.Module,
    ) -> _Passed:
        """Return the result from the attributes before and after a step, and from two models."""
        changing = differing(between, after)
        counting = differing(between, after, contents=False)
        not_recorded, alone = [], []
        if assigned:
            not_recorded.append(f"it assigns {', '.join(sorted(assigned)[:3])} anew in forward")
        if counting:
            not_recorded.append(
                f"it changes {listed(counting)} in forward, which starts anew in each task; a buffer "
                "(register_buffer) would be kept"
            )
        if self._draws:
            alone.append("it draws from Python's or numpy's generator in forward")
        shareable = not changing and not self._mixes(one, one)
        if not shareable and self._mixes(one, other):
            alone.append("it keeps values of a forward pass outside itself")
        return _Passed("; ".join(not_recorded), "; ".join(alone), shareable, changing)

    def _mixes(self, outer: nn.Module, inner: nn.Module) -> bool:
        """Return whether runs of ``inner`` in the middle of a run of ``outer`` change the outer logits.

        Two threads that run them at once could do that.
        """
        x, other = self._batches[0][:1], self._batches[1][:1]
        undisturbed = self._evaluate(outer, x)
        layers = [module for module in outer.modules() if next(module.children(), None) is None]
        inside = False

        def interrupt(*_: object) -> None:
            nonlocal inside
            if not inside:
                inside = True
                self._evaluate(inner, other)
                inside = False

        hooks = [
            layer.register_forward_hook(interrupt) for layer in layers[:: -(-len(layers) // INTERRUPTIONS)]
        ]
        disturbed = self._evaluate(outer, x)
        for hook in hooks:
            hook.remove()
        return not _close(undisturbed, disturbed)

    def _copy(self) -> nn.Module:
        return to_layout(copied(self._model, self._name), self._channels_last).eval()

    def _built_again(self) -> nn.Module:
        """Build the model once more, with other draws, and load the state."""
        try:
            built = _built(self._build)
        except SheafError as error:
            raise self._error(f"cannot be built twice: {error}") from error
        if _is_lazy(built):
            check_logits(built, self._name, self._num_classes, self._batches[0])
        self._load(built, self._model)
        return to_layout(built, self._channels_last).eval()

    def _load(self, model: nn.Module, source: nn.Module) -> None:
        try:
            load_state(model, source.state_dict())
        except WeightsError as error:
            raise self._error(f"has another state_dict each time it is built: {error}") from error

    def _evaluate(self, model: nn.Module, x: Tensor, seed: int | None = None) -> Tensor:
        """Return the logits in evaluation, which two seeds have shown to be independent of draws."""
        if seed is not None:
            seed_global_draws(seed)
        return check_logits(model, self._name, self._num_classes, x)

    def _in_training(self, model: nn.Module, x: Tensor) -> Tensor:
        seed_global_draws(1)
        return check_logits(model, self._name, self._num_classes, x, training=True).detach()

    def _step(self, model: nn.Module, x: Tensor) -> Tensor:
        """Take a training step and return its logits."""
        seed_global_draws(1)
        logits = check_step(model, self._name, self._num_classes, x)
        self._draws |= self._undrawn != (random.random(), np.random.random_sample())
        return logits

    def _same(self, one: nn.Module, logits: Tensor, other: nn.Module, of_other: Tensor) -> bool:
        """Return whether two models computed the same logits in a step, and the same buffers."""
        theirs = dict(other.named_buffers())
        return _close(logits, of_other) and all(
            _close(value, theirs[name]) for name, value in one.named_buffers() if name in theirs
        )

    def _hidden(self, keys: list[tuple[str, str]], when: str) -> SettingError:
        """Return the error for a state outside the state_dict."""
        if not keys:
            return self._error(
                f"depends on values outside its state_dict, which are set {when}; register them as buffers "
                "(register_buffer)"
            )
        return self._error(
            f"depends on {listed(keys)}, set {when} and not in its state_dict, so it is lost in sent and "
            f"saved models; register it as a buffer: self.register_buffer({keys[0][1]!r}, tensor)"
        )

    def _error(self, text: str) -> SettingError:
        return SettingError(f"model {self._name!r} {text}")


def _is_lazy(model: nn.Module) -> bool:
    return any(torch.nn.parameter.is_lazy(parameter) for parameter in model.parameters())


def _built(build: Build) -> nn.Module:
    """Build the model once more, with other draws than the first time."""
    with global_draws_from(ANOTHER_SEED):
        return build()


def copied(model: nn.Module, name: str) -> nn.Module:
    """Return a copy of a user's model.

    Raises:
        SettingError: it cannot be copied.
    """
    try:
        return copy.deepcopy(model)
    except Exception as error:
        cause = describe(error)
        if "graph leaves" in str(error):  # torch's words
            cause = (
                "a tensor in it was computed from parameters, as by weight_norm, spectral_norm or prune; use "
                "torch.nn.utils.parametrizations, make it permanent (prune.remove), or detach() it"
            )
        raise SettingError(f"model {name!r} cannot be copied: {cause}") from error


def _not_copied(name: str) -> str:
    return (
        f"model {name!r} cannot be copied: a hook or a function in it refers to the model that it was made "
        "for; use a method of the module (register_forward_hook(self.keep))"
    )


def _close(one: Tensor, other: Tensor) -> bool:
    if one.shape != other.shape:
        return False
    if torch.equal(one, other):
        return True
    one, other = one.double(), other.double()
    largest = one.abs().nan_to_num(0.0, 0.0).max() if one.numel() else torch.zeros(())
    return torch.allclose(one, other, rtol=EQUAL, atol=EQUAL * float(largest) + 1e-12, equal_nan=True)
