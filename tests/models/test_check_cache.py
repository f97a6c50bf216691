"""A model that has passed its check is not run again until anything that decides the check changes."""

from __future__ import annotations

import importlib
import sys
import types
from pathlib import Path

import pytest
import torch
from torch import nn

from sheaf.core.cache_folder import checks_folder
from sheaf.models import check_cache, user_model
from sheaf.models.build import ModelSettings, build_model
from sheaf.models.check_cache import fingerprint, result_of
from sheaf.models.forward_effects import effects_of

HELPER = "def scale(x):\n    return x * 2\n"
NET = """
import helper_of_net
from torch import nn


class Net(nn.Module):
    def __init__(self, num_classes, width=8):
        super().__init__()
        self.steps = 0
        self.f = nn.Sequential(nn.Flatten(), nn.Linear(48, width), nn.ReLU(), nn.Linear(width, num_classes))

    def forward(self, x):
        self.steps += self.training
        return helper_of_net.scale(self.f(x))
"""


@pytest.fixture
def build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Return a function that builds a user's model as a new process would, and counts the checks."""
    monkeypatch.setenv("SHEAF_CACHE", str(tmp_path / "cache"))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # its time stamps are too coarse
    (tmp_path / "helper_of_net.py").write_text(HELPER)
    (tmp_path / "net_of_user.py").write_text(NET)
    examined, usual = [], user_model._examine
    monkeypatch.setattr(user_model, "_examine", lambda *given: examined.append(1) or usual(*given))

    def build_anew(seed: int = 3, classes: int = 5, **options: int) -> tuple[nn.Module, int]:
        for name in ("net_of_user", "helper_of_net"):
            sys.modules.pop(name, None)
        importlib.invalidate_caches()
        check_cache._results.clear()
        examined.clear()
        settings = ModelSettings(name="net_of_user:Net", options=options)
        return build_model(settings, classes, (3, 4, 4), seed), len(examined)

    yield build_anew
    for name in ("net_of_user", "helper_of_net"):
        sys.modules.pop(name, None)


def test_a_second_build_is_not_checked(build) -> None:
    (first, examined), (second, again) = build(seed=3), build(seed=4)
    assert (examined, again) == (1, 0)
    assert effects_of(second) == effects_of(first)
    assert effects_of(second).resets == {("", "steps"): 0}


def test_anything_that_decides_a_check_starts_another(build, tmp_path: Path) -> None:
    build()
    assert build(classes=4)[1] == 1
    assert build(width=9)[1] == 1
    (tmp_path / "helper_of_net.py").write_text(HELPER.replace("* 2", "* 3"))
    assert build()[1] == 1
    (tmp_path / "net_of_user.py").write_text(NET.replace("nn.ReLU", "nn.Tanh"))
    assert build()[1] == 1
    assert build()[1] == 0


def test_an_unreadable_cache_is_no_error(build, tmp_path: Path) -> None:
    build()
    (path,) = checks_folder().iterdir()
    path.write_text("{")
    assert build()[1] == 1
    path.unlink()
    path.mkdir()
    assert build()[1] == 1


def test_an_error_is_not_stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHEAF_CACHE", str(tmp_path))
    with pytest.raises(ZeroDivisionError):
        result_of("k", "check", lambda: 1 / 0)
    assert result_of("k", "check", lambda: 7) == result_of("k", "check", lambda: 8) == 7
    assert (result_of("", "check", lambda: 1), result_of("", "check", lambda: 2)) == (1, 2)


def test_a_model_from_a_notebook_has_no_fingerprint(monkeypatch: pytest.MonkeyPatch) -> None:
    class Net(nn.Sequential):
        pass

    assert fingerprint(Net(nn.Linear(2, 2)), Net, [])
    monkeypatch.setattr(Net, "__module__", "__main__")
    assert fingerprint(Net(nn.Linear(2, 2)), Net, []) == ""
    assert fingerprint(nn.Sequential(Net()), nn.Sequential, []) == ""
    monkeypatch.setitem(sys.modules, "cell", types.ModuleType("cell"))
    monkeypatch.setattr(Net, "__module__", "cell")
    assert fingerprint(nn.Sequential(Net()), nn.Sequential, []) == ""


def test_a_fingerprint_depends_on_structure_and_not_on_parameters() -> None:
    def of(width: int, bias: bool = True) -> str:
        return fingerprint(nn.Sequential(nn.Linear(4, width, bias), nn.ReLU()), nn.Sequential, [])

    torch.manual_seed(1)
    first = of(3)
    torch.manual_seed(2)
    assert of(3) == first
    assert len({first, of(4), of(3, bias=False)}) == 3
