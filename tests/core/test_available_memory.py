"""Available memory: the least of the machine's and the remainders below the limits of control groups."""

from pathlib import Path

import psutil
import pytest

from sheaf.core import available_memory as module
from sheaf.core.available_memory import available_memory


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A made-up /sys/fs/cgroup beside a made-up /proc/self/cgroup."""
    monkeypatch.setattr(module, "MOUNT", tmp_path / "mount")
    monkeypatch.setattr(module, "MEMBERSHIPS", tmp_path / "memberships")
    return tmp_path


def group(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / f"memory.{name}").write_text(content + "\n")


def test_without_control_groups_it_is_the_machines(kernel: Path) -> None:
    assert available_memory() == pytest.approx(psutil.virtual_memory().available, rel=0.2)


def test_the_tightest_group_of_version_2_limits(kernel: Path) -> None:
    (kernel / "memberships").write_text("0::/user/job\n")
    group(kernel / "mount/user/job", max="max", current="300")
    group(kernel / "mount/user", max="1000", current="400", stat="anon 250\ninactive_file 100\n")
    group(kernel / "mount", max="5000", current="400")
    assert available_memory() == 700


def test_the_visible_group_of_a_container_limits(kernel: Path) -> None:
    (kernel / "memberships").write_text("9:cpu:/docker/a1\n4:memory:/docker/a1\n")
    files = {"limit_in_bytes": "800", "usage_in_bytes": "500", "stat": "total_inactive_file 50\n"}
    group(kernel / "mount/memory", **files)
    group(kernel / "mount/cpu", limit_in_bytes="1", usage_in_bytes="0")
    assert available_memory() == 350


def test_an_exceeded_limit_leaves_nothing(kernel: Path) -> None:
    (kernel / "memberships").write_text("0::/\n")
    group(kernel / "mount", max="100", current="130")
    assert available_memory() == 0
