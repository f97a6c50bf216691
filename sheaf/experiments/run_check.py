"""The models in a run's folder, compared with the logits that the run recorded when it measured them."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor
from torch.nn import functional as F

from sheaf.core.errors import ModelFileError, UnknownNameError
from sheaf.core.tensor_file import Blob
from sheaf.core.types import CLOUD
from sheaf.export.model_file import LoadedModel, load_model
from sheaf.export.trained_model import read_card
from sheaf.runtime.measured_logits import Recorded, read_measured
from sheaf.runtime.result import Result

TOLERANCE = {"cpu": 1e-3}
"""Type of the run's device -> largest difference of a logit, as a fraction of the largest logit above 1."""

GPU_TOLERANCE = 2e-2
"""Likewise for other devices: convolutions on GPUs round to 10 bits."""


def weights_file(run: Path, site: str) -> Path:
    """Return the path of a site's weights in a finished run's folder.

    Raises:
        RunFolderError: the run is not finished.
        UnknownNameError: the run has no model of this site.
    """
    weights = Result.read(run).weights
    if site not in weights:
        raise UnknownNameError("site with a model", site, weights)
    return run / weights[site]


def open_model(source: Path, site: str = CLOUD, trust: bool = False) -> LoadedModel:
    """Load a model from an exported file or from a run's folder, whose recorded logits it must reproduce.

    Args:
        source: the file or the folder.
        site: in a run's folder, the site of the model.
        trust: whether code from the file, or code that it names, may run: a ``.pt2``, or a user's own model.

    Raises:
        SheafError: the model cannot be loaded.
    """
    if not source.is_dir():
        return load_model(source, trust)
    weights = weights_file(source, site)
    model = load_model(weights, trust)
    compare_with_run(source, site, weights, model)
    return model


def compare_with_run(run: Path, site: str, weights: Path, model: LoadedModel) -> str:
    """Compare a model with the logits that the run recorded for a site; return a line about the result.

    Args:
        run: the run's folder.
        site: the site whose model it is.
        weights: the site's weights file in the run's folder.
        model: the model to compare.

    Raises:
        ModelFileError: the model computes other logits, or the weights are not those that the run measured.
        RunFolderError: the record is damaged.
    """
    record = read_measured(run, site, read_card(weights))
    if record is None:
        return "not compared with the run's own logits: the run recorded none of this model"
    if Blob.of(Blob.at(weights).open()).sha256 != record.model:
        raise ModelFileError(f"{weights} is not the model that the run measured; copy the run's folder again")
    count = len(record.logits)
    difference = (model.logits(record.inputs) - _expected(record, model)).abs().max().item()
    allowed = TOLERANCE.get(record.device, GPU_TOLERANCE) * max(1.0, record.logits.abs().max().item())
    if not difference <= allowed:
        raise ModelFileError(
            f"{site}'s model is not the one that the run measured: on {count} {record.described} a logit "
            f"differs by {difference:.2g}, {allowed:.2g} is allowed; use the code of the run, and make "
            "tensors outside its state_dict parameters or buffers (register_buffer) before training"
        )
    return f"compared with the run's own logits on {count} {record.described}: {difference:.1e}"


def _expected(record: Recorded, model: LoadedModel) -> Tensor:
    """Return the recorded logits of the model's outputs, without an "other" output; see ``build_trained``."""
    outputs = len(model.card.outputs)
    if model.card.other and record.logits.shape[1] == outputs + 1:
        return record.logits[:, :-1] - record.logits[:, -1:]
    return F.pad(record.logits, (0, outputs - record.logits.shape[1]))
