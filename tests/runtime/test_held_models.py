"""An edge that missed a model receives it later."""

from __future__ import annotations

from pathlib import Path

from rig import RECIPE, Partial, Rig, theta

from sheaf.core.tensor_file import Blob


def test_an_edge_that_missed_a_model_gets_it_on_its_return(tmp_path: Path) -> None:
    fleet = Partial(tmp_path / "sites", {2: "a", 3: "b"})
    with Rig(tmp_path, fleet) as rig:
        rig.edges.adopt(theta())
        other = {name: value + 1 for name, value in theta().items()}
        rig.edges.adopt(other)
        rig.edges.train(None, RECIPE)  # b misses this call, but holds the model
        rig.edges.evaluate()
        brought = {(task.call, site): task.blob for site, task in fleet.tasks if task.call > 2}
        assert {key for key, blob in brought.items() if blob is not None} == {(3, "a")}
        assert brought[3, "a"] == Blob.of(other)
