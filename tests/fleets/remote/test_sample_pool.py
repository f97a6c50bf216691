"""The pool of shared samples: one file per device and call, removable by device."""

from __future__ import annotations

from pathlib import Path

from device_rig import Rig

from sheaf.core.recipe import Share
from sheaf.core.task import Task


def test_shared_samples_are_pooled_by_device(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    rig.run(Task("share", 4, 5, share=Share(fraction=0.5)))
    files = [(file.edge, file.call, file.samples) for file in rig.pool.files()]
    assert files == [("left", 4, 14), ("right", 4, 14)]
    assert rig.pool.remove("left") == 14
    assert [file.edge for file in rig.pool.files()] == ["right"]
