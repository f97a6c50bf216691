"""Export a run's model to a file.

Before the file gets its name, it is compared with PyTorch's logits and with those that the run recorded.
"""

from __future__ import annotations

import copy
import os
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from sheaf.core.dataset import Samples
from sheaf.core.errors import ModelFileError, SheafError
from sheaf.core.seeds import generator
from sheaf.core.types import CLOUD
from sheaf.data.load import load_dataset
from sheaf.experiments.config import load_experiment
from sheaf.experiments.run_check import compare_with_run, weights_file
from sheaf.experiments.run_folder import read_command
from sheaf.export.model_file import format_module, load_model
from sheaf.export.trained_model import build_trained, read_card
from sheaf.models.card import Card
from sheaf.runtime.result import Result
from sheaf.training.evaluation import forward
from sheaf.training.preparation import Preparation

TOLERANCE = 1e-4
"""Largest difference between a logit of the file and of PyTorch; 1e-5 of the largest logit above 10."""

MIN_EXAMPLES = 256
"""Number of test images to compare on; the number of classes if that is larger."""


@dataclass(frozen=True)
class Exported:
    """The exported file and the result of its comparison with the run's model.

    Attributes:
        file: the file.
        classes: the class of each output.
        parameters: number of values in the network, buffers included.
        examples: number of compared examples.
        checked_on: a description of these examples.
        difference: the largest absolute difference between two logits.
        agreed: number of examples with the same predicted class.
        measured: a line about the comparison with the logits that the run recorded.
    """

    file: Path
    classes: tuple[str, ...]
    parameters: int
    examples: int
    checked_on: str
    difference: float
    agreed: int
    measured: str


def export(
    run: Path, site: str = CLOUD, to: str = "onnx", out: Path | None = None, data: Path | None = None
) -> Exported:
    """Export the final model of a site; of a cut model, the sub-model.

    Args:
        run: the run's folder. If the run's model is a user's own, its module is imported.
        site: an edge, or the cloud.
        to: the format, one of ``model_file.FORMATS``.
        out: the file; by default ``SITE.TO`` in the current folder.
        data: the folder to search for the run's dataset; by default the one that the run used.

    Raises:
        UnknownNameError: there is no such site or format.
        RunFolderError: the run is not finished.
        MissingExtraError: the format needs a library that is not installed.
        ModelFileError: the file exists, the format cannot represent the model, or the comparison failed.
        WeightsError: the run's weights are damaged.
    """
    module = format_module(to)
    out = out or Path(f"{site}.{to}")
    if out.suffix != f".{to}":
        raise ModelFileError(f"{out} must end in .{to}: the suffix names the format")
    if out.exists():
        raise ModelFileError(f"{out} exists; name another file with --out, or remove it")
    weights = weights_file(run, site)
    card = replace(read_card(weights), source=_source(run, site))
    model, built = build_trained(card, weights)
    inputs, checked_on = _test_inputs(run, card, data)
    expected = _expected_logits(model, card, inputs)
    partial = out.with_name(f".{out.stem}.{os.getpid()}.partial{out.suffix}")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        module.write(partial, model, built)
        written = load_model(partial, trust=True)
        logits = written.logits(inputs)
        difference = (logits - expected).abs().max().item()
        if not difference <= max(TOLERANCE, 0.1 * TOLERANCE * expected.abs().max().item()):
            raise ModelFileError(
                f"the {to} file differs from the model: a logit differs by {difference:.2g}, "
                f"{TOLERANCE:g} is allowed; nothing was written, try another format with --to"
            )
        measured = compare_with_run(run, site, weights, written)
        partial.replace(out)
    except OSError as error:
        raise ModelFileError(f"{out} cannot be written: {error.strerror or error}") from error
    finally:
        partial.unlink(missing_ok=True)
    return Exported(
        file=out,
        classes=built.outputs,
        parameters=sum(value.numel() for value in model.state_dict().values()),
        examples=len(inputs),
        checked_on=checked_on,
        difference=difference,
        agreed=int((logits.argmax(1) == expected.argmax(1)).sum()),
        measured=measured,
    )


def _source(run: Path, site: str) -> dict[str, object]:
    """Return the card's record of the run."""
    result = Result.read(run)
    provenance = {key: result.provenance.get(key) for key in ("sheaf", "commit", "dirty", "seed", "finished")}
    return {"run": run.resolve().name, "site": site, "method": result.method} | provenance


def _expected_logits(model: nn.Module, card: Card, inputs: Tensor) -> Tensor:
    """Return (N, classes) logits, computed by the code that evaluated the run's models."""
    prepare = Preparation(card.mean, card.std, torch.device("cpu"))
    return forward(copy.deepcopy(model), Samples.of(inputs, torch.zeros(len(inputs))), prepare)


def _test_inputs(run: Path, card: Card, data: Path | None) -> tuple[Tensor, str]:
    """Return inputs to compare on, and their description.

    These are the run's test images; random inputs if its dataset is not available on this machine.
    """
    try:
        settings = load_experiment(run / "experiment.toml").data
        count = min(settings.limit_test or MIN_EXAMPLES, max(len(card.classes), MIN_EXAMPLES))
        few = replace(settings, limit=len(card.classes), limit_test=count, cache=False)
        root = data or read_command(run)["data"]
        samples = load_dataset(few, Path(root) if root else None).test
        inputs = samples.inputs[samples.positions]
        if inputs.shape[1:] == card.in_shape and inputs.dtype == card.dtype:
            return inputs, f"test {'images' if card.inputs == 'image' else 'examples'} of {settings.name}"
    except SheafError:
        pass  # the dataset is on another machine; random inputs also reveal a difference
    draws = generator(0)
    if card.inputs == "image":
        random = torch.randint(0, 256, (MIN_EXAMPLES, *card.in_shape), generator=draws, dtype=torch.uint8)
    else:
        mean, std = (torch.tensor(values)[:, None, None] for values in (card.mean, card.std))
        random = torch.randn(MIN_EXAMPLES, *card.in_shape, generator=draws) * std + mean
    return random, "random examples (the run's dataset is not available here)"
