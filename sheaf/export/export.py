"""A run's model as a file that is used elsewhere, checked against the run's own before it is there."""

from __future__ import annotations

import copy
import os
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from sheaf.core.dataset import Samples
from sheaf.core.errors import ModelFileError, SheafError, UnknownNameError
from sheaf.core.seeds import generator
from sheaf.core.types import CLOUD
from sheaf.data.load import load_dataset
from sheaf.experiments.config import load_experiment
from sheaf.experiments.run import command_of
from sheaf.export.formats.safetensors import build, card_of
from sheaf.export.model_file import format_of, open_file
from sheaf.models.card import Card
from sheaf.runtime.result import Result
from sheaf.training.loop import Preparation, forward

TOLERANCE = 1e-4
"""How far a logit of the file's may be from PyTorch's; where logits exceed 10, 1e-5 of the largest."""

CHECKED = 256
"""So many test images are compared, or a few more where there are more classes."""


@dataclass(frozen=True)
class Exported:
    """What was written, and how it was checked.

    Attributes:
        file: where it lies.
        classes: the class of each output.
        parameters: how many numbers the network holds.
        examples: how many were classified by both.
        checked_on: what these were.
        difference: the largest between two logits.
        agreed: how many got the same class.
    """

    file: Path
    classes: tuple[str, ...]
    parameters: int
    examples: int
    checked_on: str
    difference: float
    agreed: int


def export(
    run: Path, site: str = CLOUD, to: str = "onnx", out: Path | None = None, data: Path | None = None
) -> Exported:
    """Writes the model that ``site`` ended a run with; a cut one as the small network that it is.

    The file is read again and compared with the run's own model on test images before it gets its name.

    Args:
        run: the run's folder. If its model is a user's own, that is imported, as when the run is resumed.
        site: an edge, or the cloud.
        to: one of ``formats.FORMATS``.
        out: the file; by default ``SITE.TO`` here.
        data: where the run's dataset is looked for; by default where the run found it.

    Raises:
        UnknownNameError: there is no such site or format.
        RunFolderError: the run is not finished.
        MissingExtraError: the format needs a library that is not installed.
        ModelFileError: the file exists, the model cannot be written so, or the file does not do the same.
        WeightsError: the run's weights are damaged.
    """
    form = format_of(to)
    out = out or Path(f"{site}.{to}")
    if out.suffix != f".{to}":
        raise ModelFileError(f"{out} must end in .{to}, by which it is known when it is read")
    if out.exists():
        raise ModelFileError(f"{out} exists; name another file with --out, or remove it")
    weights = weights_of(run, site)
    card = replace(card_of(weights), source=_source(run, site))
    model, built = build(card, weights)
    inputs, checked_on = _test_inputs(run, card, data)
    expected = _as_trained(model, card, inputs)
    partial = out.with_name(f".{out.stem}.{os.getpid()}.partial{out.suffix}")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        form.write(partial, model, built)
        found = open_file(partial, trust=True).logits(inputs)
        difference = (found - expected).abs().max().item()
        if not difference <= max(TOLERANCE, 0.1 * TOLERANCE * expected.abs().max().item()):
            raise ModelFileError(
                f"the {to} file does not do what the model does: a logit differs by {difference:.2g}, "
                f"{TOLERANCE:g} is allowed; nothing was written"
            )
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
        agreed=int((found.argmax(1) == expected.argmax(1)).sum()),
    )


def weights_of(run: Path, site: str) -> Path:
    """The weights file of a site of a finished run.

    Raises:
        RunFolderError: the run is not finished.
        UnknownNameError: it has no such site.
    """
    weights = Result.read(run).weights
    if site not in weights:
        raise UnknownNameError("site with a model", site, weights)
    return run / weights[site]


def _source(run: Path, site: str) -> dict[str, object]:
    result = Result.read(run)
    where = {key: result.provenance.get(key) for key in ("sheaf", "commit", "dirty", "seed", "finished")}
    return {"run": run.resolve().name, "site": site, "method": result.method} | where


def _as_trained(model: nn.Module, card: Card, inputs: Tensor) -> Tensor:
    """(N, classes) logits by the code that measured the run's models."""
    prepare = Preparation(card.mean, card.std, torch.device("cpu"))
    return forward(copy.deepcopy(model), Samples.of(inputs, torch.zeros(len(inputs))), prepare)


def _test_inputs(run: Path, card: Card, data: Path | None) -> tuple[Tensor, str]:
    """Inputs to compare on: the run's test images where they can still be had, else drawn ones."""
    try:
        settings = load_experiment(run / "experiment.toml").data
        count = min(settings.limit_test or CHECKED, max(len(card.classes), CHECKED))
        few = replace(settings, limit=len(card.classes), limit_test=count)
        root = data or command_of(run)["data"]
        samples = load_dataset(few, Path(root) if root else None).test
        inputs = samples.inputs[samples.positions]
        if inputs.shape[1:] == card.in_shape and inputs.dtype == card.dtype:
            return inputs, f"test {'images' if card.inputs == 'image' else 'examples'} of {settings.name}"
    except SheafError:
        pass  # the data may lie on another machine by now; any input tells two graphs apart
    draws = generator(0)
    if card.inputs == "image":
        drawn = torch.randint(0, 256, (CHECKED, *card.in_shape), generator=draws, dtype=torch.uint8)
    else:
        scale = [torch.tensor(values)[:, None, None] for values in (card.mean, card.std)]
        drawn = torch.randn(CHECKED, *card.in_shape, generator=draws) * scale[1] + scale[0]
    return drawn, "drawn examples, as the run's dataset is not here"
