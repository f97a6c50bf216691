"""The models that the edges hold, and the parameters of tasks that change them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sheaf.core.cut import Cut
from sheaf.core.errors import WeightsError
from sheaf.core.fleet import Fleet
from sheaf.core.lazy_blob import LazyBlob, TensorBlob, origin_of
from sheaf.core.stored_params import blob_of
from sheaf.core.tensor_file import Blob, encoded_size
from sheaf.core.types import Params
from sheaf.merges.check import misfit
from sheaf.runtime.edge_tensors import EdgeTensors
from sheaf.training.network import Blocks, Network


class HeldModels:
    """The global model that the edges were sent last, and each edge's cut of it.

    Args:
        network: the global model.
        fleet: the edges.
        start: edge -> the cut and the parameters of its own start model; see ``Edges``.

    Attributes:
        theta: the global model that the edges were sent last; None before the first.
        cuts: edge -> its cut; empty if each edge holds the whole model.
        behind: the edges that missed the model which they should hold.
    """

    def __init__(
        self, network: Network, fleet: Fleet, start: Mapping[str, tuple[Cut | None, Blob]] | None = None
    ) -> None:
        self.network = network
        self.theta: Params | None = None
        self.cuts: dict[str, Cut] = {}
        self.behind: set[str] = set()
        self._fleet = fleet
        self._start = dict(start or {})

    def hold(self, theta: Params, cuts: Mapping[str, Cut] | None) -> None:
        """Let the edges hold ``theta``, or their sub-models of it, from now on."""
        self.theta, self.cuts = theta, dict(cuts or {})

    def sites(self, only: Sequence[str] | None = None) -> list[str]:
        """Return the edges, or ``only`` these, without those that were absent when the cuts were made."""
        return [site for site in only or self._fleet.names() if not self.cuts or site in self.cuts]

    def fields(
        self, theta: Params | None, only: Sequence[str] | None = None, **settings: Any
    ) -> dict[str, dict[str, Any]]:
        """Return the task fields of each edge: its cut, its sub-model of ``theta`` and ``settings``.

        Edges with equal cuts get the same blob. If ``theta`` is None, only an edge that missed
        the model which it should hold gets a blob. An edge that was absent when the cuts were made gets no
        task.
        """
        given = self.theta if theta is None else theta
        whole: Blob | None = None  # the encoding of ``given``
        blobs: dict[Cut | None, Blob] = {}
        fields = {}
        for site in self.sites(only):
            cut, blob = self.cuts.get(site), None
            if given is not None and (theta is not None or site in self.behind):
                if cut not in blobs:
                    whole = whole or blob_of(given)
                    blobs[cut] = whole if cut is None else self.cut_blob(given, whole, cut)
                blob = blobs[cut]
            fields[site] = {"blob": blob, "cut": cut, **settings}
        return fields

    def begin_from_start(self, theta: Params, fields: Mapping[str, dict[str, Any]]) -> None:
        """Replace ``theta`` by the edges' own start models, where these fit; only in the first call.

        Raises:
            WeightsError: the parameters of a start model do not fit its cut.
        """
        for site in fields:
            cut, blob = self._start.get(site, (None, None))
            if blob is not None and cut == self.cuts.get(site):
                if why := misfit(self.take(theta, cut), blob.open()):
                    raise WeightsError(f"the start model of {site} does not fit: {why}")
                fields[site]["blob"] = blob
        self._start = {}

    def add(self, own: Mapping[str, EdgeTensors] | None, fields: dict[str, dict[str, Any]]) -> None:
        """Add each edge's own tensors to the parameters of its task.

        An edge whose task brings no parameters continues from those that it holds.
        """
        for site, tensors in (own or {}).items():
            if site in fields:
                blob, shapes = fields[site]["blob"], self.network.shapes(self.cuts.get(site))
                fields[site] |= {"blob": tensors.beside(blob, shapes), "continues": blob is None}

    def take(self, theta: Params, cut: Cut | None) -> Params:
        """Return the sub-model of ``theta``; None is the whole model."""
        return theta if cut is None else self.network.submodel(cut).take(theta)

    def cut_blob(self, theta: Params, whole: Blob, cut: Cut) -> Blob:
        """Return a sub-model of ``theta``, encoded in ``whole``. It is taken when something reads it."""
        submodel = self.network.submodel(cut)
        key = f"{whole.key} {cut!r}"
        size = encoded_size(self.network.shapes(cut))
        return LazyBlob(lambda: TensorBlob(submodel.take(theta)), size, key, origin=origin_of(whole))

    def bound_blob(self, theta: Params, whole: Blob, blocks: Blocks) -> Blob:
        """Return the blocks of ``theta``, encoded in ``whole``. They are taken when something reads them."""
        bound = self.network.bound(blocks)
        size = encoded_size(self.network.shapes(None, blocks))
        key = f"{whole.key} {blocks!r}"
        return LazyBlob(lambda: TensorBlob(bound.pack(theta)), size, key, origin=origin_of(whole))
