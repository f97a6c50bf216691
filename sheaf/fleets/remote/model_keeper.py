"""Measure the final model of a run on a device, compare it with the current one, and store it."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

from sheaf.core.cut import Cut
from sheaf.core.dataset import Dataset, Samples
from sheaf.core.errors import ModelFileError, SheafError, first_line
from sheaf.core.tensor_file import Blob
from sheaf.core.types import Params
from sheaf.export.model_file import LoadedModel, load_model
from sheaf.export.trained_model import read_card
from sheaf.fleets.remote.device_models import DeviceModels, KeptModel, Listed, now
from sheaf.fleets.remote.device_settings import EdgeSettings
from sheaf.fleets.remote.guard import compare
from sheaf.fleets.remote.messages import Setup
from sheaf.fleets.remote.sample_record import SampleRecord
from sheaf.models.build import ModelSettings
from sheaf.models.card import Card

logger = logging.getLogger("sheaf")


class ModelKeeper:
    """Keeps the final models of one run on a device.

    Args:
        folder: the device's folder.
        site: the device's name.
        own: its settings.
        setup: the run.
        dataset: the device's data.
        held_out: its held-out samples.
        record: of its samples.
    """

    def __init__(
        self,
        folder: Path,
        site: str,
        own: EdgeSettings,
        setup: Setup,
        dataset: Dataset,
        held_out: Samples,
        record: SampleRecord,
    ) -> None:
        self._models = DeviceModels(folder, own.keep_models, own.formats)
        self._site = site
        self._own = own
        self._setup = setup
        self._held_out = held_out
        self._record = record
        model = ModelSettings(name=setup.model, options=setup.options)
        self._card = replace(Card.of_dataset(dataset, model), bits=setup.form.bits)

    def keep(self, call: int, params: Params, cut: Cut | None) -> dict[str, Any]:
        """Store a model and let it replace the current one, unless the guard objects.

        Repeating a call changes nothing. A failure, such as a full disk, leaves the current model in place.

        Args:
            call: number of the call in the run.
            params: the model's parameters.
            cut: the sub-model that they belong to.

        Returns:
            A ``Replacement`` as a JSON object, for the cloud.
        """
        try:
            self._models.recover()
            kept = self._models.stored(self._setup.run, call) or self._same(params)
            kept = kept or self._add(call, params, cut)
        except (SheafError, OSError, ValueError, RuntimeError, MemoryError) as error:
            logger.exception("the model of call %d is not stored", call)
            reason = (error.strerror if isinstance(error, OSError) else None) or first_line(error)
            return {"replaced": False, "samples": 0, "why": f"the model is not stored: {reason}"[:1000]}
        shown = {"held_out": kept.held_out, "before": kept.before}
        return {
            "replaced": kept.replaced,
            "samples": kept.samples,
            "why": kept.why[:1000],
            **{key: value for key, value in shown.items() if value is not None},
        }

    def _same(self, params: Params) -> KeptModel | None:
        """Return the record of the newest model if it is this one: adopted, and unchanged until the end."""
        newest = next(iter(self._models.listed()), None)
        if newest is None or newest.kept.run != self._setup.run:
            return None
        same = Blob.of(Blob.at(newest.file).open()).sha256 == Blob.of(params).sha256
        return newest.kept if same else None

    def _add(self, call: int, params: Params, cut: Cut | None) -> KeptModel:
        source = {"run": self._setup.name, "site": self._site, "seed": self._setup.seed}
        card = replace(self._card, cut=None if cut is None else cut.header(), source=source)
        new = load_model(self._models.draft(params, card), trust=True)  # the set-up has checked ``allow``
        present = self._models.current()
        draw = self._record.draw
        fair = self._record.fair(self._held_out, draw if present is None else present.kept.draw)
        compared = compare(
            new, self._load(present), self._held_out, fair, tuple(self._setup.classes), self._own.guard
        )
        kept = KeptModel(
            number=self._models.next_number(),
            saved=now(),
            run=self._setup.run,
            call=call,
            name=self._setup.name,
            draw=draw,
            held_out=compared.held_out,
            before=compared.before,
            samples=compared.samples,
            replaced=compared.replaces,
            why=compared.why,
        )
        self._models.add(params, card, kept)
        logger.info("model %d %s", kept.number, "is current" if kept.replaced else f"is kept out: {kept.why}")
        return kept

    def _load(self, present: Listed | None) -> LoadedModel | SheafError | None:
        """Return the current model, or the error that it raises, or None before the first."""
        if present is None:
            return None
        try:
            return load_allowed(present.file, self._own.allow)
        except SheafError as error:
            return error
        except (OSError, ValueError, RuntimeError, AttributeError, TypeError) as error:  # also a user's model
            return ModelFileError(f"{present.file}: {first_line(error)}")


def load_allowed(file: Path, allow: tuple[str, ...]) -> LoadedModel:
    """Load a device's model. A model that is not shipped with sheaf needs an entry in ``[edge] allow``.

    Raises:
        SheafError: the file is damaged, or the model is not allowed.
    """
    model = read_card(file).model
    if model is not None and ":" in model.name and model.name not in allow:
        raise ModelFileError(
            f"{file} uses the model {model.name!r}, which [edge] allow does not list; add it to edge.toml"
        )
    return load_model(file, trust=True)
