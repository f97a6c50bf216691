"""Where sheaf's processor time goes: seconds of every thread by part of the program.

A part's seconds are those of its functions without the functions of other parts that they call. Times are of
the processor, so they hold beside other programs too, and a thread that blocks counts nothing. ``rest`` is
whatever no part counts: Python between the parts, and threads of libraries.
"""

from __future__ import annotations

import functools
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from importlib import import_module
from inspect import isgeneratorfunction
from typing import Any
from unittest import mock

from benchmarks.simulation.jobs import Job
from benchmarks.simulation.sheaf_side import sheaf
from sheaf.core.thread_pool import side_by_side

PARTS: Mapping[str, tuple[str, ...]] = {
    "training steps": ("sheaf.training.vectorized:Stack.steps", "sheaf.training.one_site:OneSite.steps"),
    "mini-batches": ("sheaf.training.loop:batches",),
    "copying weights in and out": ("sheaf.training.loop:train",),
    "merging": (
        "sheaf.merges.rules.weighted_mean:WeightedMean.__call__",
        "sheaf.merges.average:_add",
        "sheaf.merges.average:_divide",
    ),
    "checking updates": ("sheaf.runtime.edge_calls:EdgeCalls.usable",),
    "evaluation": ("sheaf.runtime.site_evaluation:evaluate",),
    "journal": (
        "sheaf.runtime.journal:Journal.record",
        "sheaf.runtime.journal:Journal.record_merged",
        "sheaf.runtime.journal:Journal.settle",
        "sheaf.runtime.journal:Journal.result",
    ),
    "storing models": (
        "sheaf.runtime.model_store:ModelStore.keep",
        "sheaf.runtime.worker_group:write_together",
    ),
    "encoding and hashing": ("sheaf.core.tensor_file:encode", "sheaf.core.wire_format:encode_header"),
    "data, split and model": ("sheaf.experiments.run:prepare",),
    "result and weights": (
        "sheaf.experiments.run_folder:save_models",
        "sheaf.runtime.result:Result.write",
        "sheaf.experiments.execution:provenance",
    ),
}
"""Part -> its functions, as ``module:name``."""

SIDE_BY_SIDE = "sheaf.training.evaluation:side_by_side"
"""Evaluates mini-batches on other threads."""


class ProcessorTime:
    """Processor seconds by part, of all threads together."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._lock = threading.Lock()
        self._local = threading.local()

    @contextmanager
    def count(self, part: str) -> Iterator[None]:
        """Count the block for ``part``, without the blocks inside it."""
        outer: list[float] | None = getattr(self._local, "inner", None)
        self._local.inner = inner = [0.0]
        began = time.thread_time()
        try:
            yield
        finally:
            spent = time.thread_time() - began
            self._local.inner = outer
            if outer is not None:
                outer[0] += spent
            with self._lock:
                self.seconds[part] += spent - inner[0]

    def counted(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return ``function`` with its time counted, that of a generator step by step."""
        if not isgeneratorfunction(function):

            @functools.wraps(function)
            def call(*args: Any, **kwargs: Any) -> Any:
                with self.count(part):
                    return function(*args, **kwargs)

            return call

        @functools.wraps(function)
        def generate(*args: Any, **kwargs: Any) -> Iterator[Any]:
            generator = function(*args, **kwargs)
            while True:
                with self.count(part):
                    try:
                        item = next(generator)
                    except StopIteration:
                        return
                yield item

        return generate


def profiled(job: Job, device: str) -> dict[str, float]:
    """Return the processor seconds of each part of a second run, their ``total``, and seconds ``elapsed``."""
    sheaf(job, device)
    spent = ProcessorTime()
    with ExitStack() as patches:
        for part, names in PARTS.items():
            for name in names:
                owner, attribute = resolve(name)
                counted = spent.counted(part, getattr(owner, attribute))
                patches.enter_context(mock.patch.object(owner, attribute, counted))
        owner, attribute = resolve(SIDE_BY_SIDE)
        patches.enter_context(
            mock.patch.object(
                owner,
                attribute,
                lambda function, items: side_by_side(spent.counted("evaluation", function), items),
            )
        )
        began = time.process_time()
        elapsed = sheaf(job, device)["seconds"]
        total = time.process_time() - began
    seconds = {part: spent.seconds[part] for part in PARTS}
    return {**seconds, "rest": total - sum(seconds.values()), "total": total, "elapsed": elapsed}


def resolve(name: str) -> tuple[Any, str]:
    """Return the module or class, and the name in it, of ``module:name`` or ``module:Class.name``."""
    module, _, path = name.partition(":")
    *owners, attribute = path.split(".")
    owner = functools.reduce(getattr, owners, import_module(module))
    getattr(owner, attribute)
    return owner, attribute
