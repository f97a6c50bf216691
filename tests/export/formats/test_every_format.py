"""Every shipped model, and cuts of one, in every format: the file alone reproduces PyTorch's logits.

A new module in ``sheaf/export/formats`` is covered without changes here: the tests list the folder.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from support import one_line
from torch import nn
from toys import randomised

from sheaf.core import registry
from sheaf.core.errors import MissingExtraError, ModelFileError, SheafError, WeightsError
from sheaf.export.model_file import FORMATS, format_module, load_model
from sheaf.export.trained_model import build_trained
from sheaf.models.build import ModelSettings, build_model
from sheaf.models.card import Card
from sheaf.models.checkpoints import save_weights
from sheaf.models.names import model_names
from sheaf.training.loop import Preparation
from sheaf.training.network import Network

SMALL = [f"{name}@32" if f"{name}@32" in model_names() else name for name in registry.describe("models")]


def small(name: str) -> tuple[nn.Module, Card]:
    """Return a model with random weights, and its card."""
    shape = (1, 40, 61) if name == "kws_cnn" else (3, 32, 32)
    settings = ModelSettings(name=name)
    model = randomised(build_model(settings, 4, shape, seed=0))
    card = Card(
        classes=("a", "b", "c", "d"),
        in_shape=shape,
        mean=(0.5, 0.4, 0.3)[: shape[0]],
        std=(0.2, 0.3, 0.25)[: shape[0]],
        inputs="image",
        model=settings,
    )
    return model, card


def expected(model: nn.Module, card: Card, inputs: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model(Preparation(card.mean, card.std, torch.device("cpu"))(inputs))


def pixels(card: Card, count: int) -> torch.Tensor:
    draws = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (count, *card.in_shape), generator=draws, dtype=torch.uint8)


@pytest.mark.parametrize("name", SMALL)
def test_every_model_as_onnx(name: str, tmp_path: Path) -> None:
    check("onnx", *small(name), tmp_path)


def test_onnx_refuses_an_older_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    onnx = format_module("onnx")
    monkeypatch.setattr(onnx, "MINIMUM_TORCH", "99")
    with pytest.raises(MissingExtraError, match="needs torch >= 99, this is") as error:
        onnx.write(tmp_path / "model.onnx", *small("mlp"))
    one_line(error)


@pytest.mark.parametrize("name", ["mlp", "kws_cnn"])
@pytest.mark.parametrize("form", [form for form in FORMATS if form != "onnx"])
def test_two_models_in_every_other_format(form: str, name: str, tmp_path: Path) -> None:
    check(form, *small(name), tmp_path)


def check(form: str, model: nn.Module, card: Card, folder: Path) -> None:
    file = folder / f"model.{form}"
    format_module(form).write(file, model, card)
    opened = load_model(file, trust=True)
    assert opened.card.outputs == card.classes
    assert (opened.card.mean, opened.card.std, opened.card.in_shape) == (card.mean, card.std, card.in_shape)
    for count in (1, 5):  # any number of examples
        inputs = pixels(card, count)
        right = expected(model, card, inputs)
        assert right.std() > 1e-3, "constant logits would prove nothing"
        found = opened.logits(inputs)
        assert found.dtype == torch.float32
        assert (found - right).abs().max() <= 1e-4 * max(1, right.abs().max())
    assert [path.name for path in folder.iterdir()] == [file.name], "one file, and nothing beside it"
    assert str(Path(__file__).parents[3]) not in contents(file), "no folders of this machine"


def contents(file: Path) -> str:
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as parts:
            return "".join(parts.read(name).decode(errors="replace") for name in parts.namelist())
    return file.read_bytes().decode(errors="replace")


@pytest.mark.parametrize(("form", "other"), [*((form, True) for form in FORMATS), ("safetensors", False)])
def test_a_cut_is_exported_as_its_sub_model(form: str, other: bool, tmp_path: Path) -> None:
    model, card = small("kws_cnn")
    network = Network(model, card.in_shape)
    kept = {group.name: range(group.width // 2) for group in network.structure.groups}
    cut = network.structure.cut(kept, classes=(1, 3), other=other)
    part = network.of(cut)
    part.load_state_dict(network.submodel(cut).take(model.state_dict()))
    if other:
        nn.init.normal_(part.fc.weight, generator=torch.Generator().manual_seed(2))
    part.eval()
    weights = tmp_path / "left by the run.safetensors"
    save_weights(weights, part.state_dict(), replace(card, cut=cut.header()).metadata())

    whole, held = tmp_path / f"whole.{form}", tmp_path / f"part.{form}"
    format_module(form).write(whole, model, card)
    built, its_card = build_trained(replace(card, cut=cut.header()), weights)
    format_module(form).write(held, built, its_card)
    assert held.stat().st_size < 0.4 * whole.stat().st_size

    inputs = pixels(card, 6)
    logits = expected(part, card, inputs)
    right = logits[:, :2] - logits[:, 2:] if other else logits
    for file in (held, weights):
        opened = load_model(file, trust=True)
        assert opened.card.outputs == ("b", "d")
        assert opened.card.other == other
        assert (opened.logits(inputs) - right).abs().max() <= 1e-4


@pytest.mark.parametrize("form", FORMATS)
def test_a_damaged_file_gives_a_one_line_error(form: str, tmp_path: Path) -> None:
    model, card = small("mlp")
    file = tmp_path / f"model.{form}"
    format_module(form).write(file, model, card)
    whole = file.read_bytes()
    for damaged in (b"", b"rubbish", whole[: len(whole) // 2]):
        file.write_bytes(damaged)
        with pytest.raises(SheafError) as error:
            load_model(file, trust=True)
        assert file.name in one_line(error)


def test_a_file_that_sheaf_did_not_write_is_refused(tmp_path: Path) -> None:
    import onnx

    model, card = small("mlp")
    format_module("onnx").write(tmp_path / "model.onnx", model, card)
    theirs = onnx.load(tmp_path / "model.onnx")
    del theirs.metadata_props[:]
    onnx.save(theirs, tmp_path / "theirs.onnx")
    save_weights(tmp_path / "theirs.safetensors", model.state_dict(), {})
    for name in ("theirs.onnx", "theirs.safetensors"):
        with pytest.raises(ModelFileError, match="was not written by sheaf"):
            load_model(tmp_path / name)


def test_weights_of_another_size_are_refused(tmp_path: Path) -> None:
    model, card = small("mlp")
    save_weights(tmp_path / "m.safetensors", model.state_dict(), replace(card, classes=("a", "b")).metadata())
    with pytest.raises(WeightsError, match="are of another model") as error:
        load_model(tmp_path / "m.safetensors")
    one_line(error)


class Bomb:
    """An object that creates a file when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (self.trace,))


def test_code_from_a_file_runs_only_with_trust(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, card = small("mlp")
    trace = tmp_path / "it ran"

    pt2 = tmp_path / "model.pt2"
    format_module("pt2").write(pt2, model, card)
    with zipfile.ZipFile(pt2) as parts:
        held = {name: parts.read(name) for name in parts.namelist()}
    (inputs,) = [name for name in held if "sample_inputs" in name]
    torch.save({"bomb": Bomb(trace)}, tmp_path / "bomb")
    held[inputs] = (tmp_path / "bomb").read_bytes()
    with zipfile.ZipFile(pt2, "w") as parts:
        for name, content in held.items():
            parts.writestr(name, content)
    with pytest.raises(ModelFileError, match="add --trust") as error:
        load_model(pt2)
    one_line(error)
    assert not trace.exists()
    with pytest.raises(ModelFileError):
        load_model(pt2, trust=True)
    assert trace.exists(), "this is what --trust is asked for"

    (tmp_path / "their_code.py").write_text(
        f"import pathlib\npathlib.Path({str(tmp_path / 'imported')!r}).touch()\n"
        "from torch import nn\n"
        "def net(num_classes): return nn.Sequential(nn.Flatten(), nn.Linear(3072, num_classes))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    theirs = replace(card, model=ModelSettings(name="their_code:net"))
    net = randomised(nn.Sequential(nn.Flatten(), nn.Linear(3072, 4)))
    file = tmp_path / "model.safetensors"
    save_weights(file, net.state_dict(), theirs.metadata())
    with pytest.raises(ModelFileError, match="'their_code:net', which is not part of sheaf"):
        load_model(file)
    assert not (tmp_path / "imported").exists()
    inputs = pixels(card, 2)
    found = load_model(file, trust=True).logits(inputs)
    assert torch.allclose(found, expected(net, card, inputs), atol=1e-4)


def test_the_file_contains_class_names_and_normalisation(tmp_path: Path) -> None:
    import onnxruntime

    model, card = small("mlp")
    format_module("onnx").write(tmp_path / "m.onnx", model, card)
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx")
    says = session.get_modelmeta().custom_metadata_map
    assert json.loads(says["classes"]) == ["a", "b", "c", "d"]
    assert json.loads(says["mean"]) == [0.5, 0.4, 0.3]
    assert says["input"].startswith("uint8 pixels 0..255")
    assert session.get_inputs()[0].shape == ["batch", 3, 32, 32]
    assert session.get_outputs()[0].shape == ["batch", 4]


class Written(nn.Module):
    """A linear model whose forward pass is given in a line."""

    def __init__(self, forward: Callable[[nn.Module, torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.fc = nn.Linear(3072, 4)
        self.line = forward

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.line(self.fc, x)


@pytest.mark.parametrize("form", [form for form in FORMATS if form != "safetensors"])
def test_a_single_number_in_the_graph_is_exported(form: str, tmp_path: Path) -> None:
    _, card = small("mlp")
    model = randomised(Written(lambda fc, x: fc((x / x.abs().max()).flatten(1))))
    check(form, model, card, tmp_path)


def clamped_under_a_view(fc: nn.Module, x: torch.Tensor) -> torch.Tensor:
    logits = fc(x.flatten(1))
    view = logits.view(-1, 4)
    nn.functional.hardtanh(logits, 0.0, 0.5, inplace=True)
    return view * 2


def test_an_in_place_clamp_changes_views_of_its_tensor(tmp_path: Path) -> None:
    _, card = small("mlp")
    check("pt2", randomised(Written(clamped_under_a_view)), card, tmp_path)


@pytest.mark.parametrize("form", [form for form in FORMATS if form != "safetensors"])
@pytest.mark.parametrize(
    ("forward", "says"),
    [
        (lambda fc, x: fc(x.reshape(len(x), -1)), r"write x\.shape\[0\] instead of len\(x\)"),
        (lambda fc, x: fc(x.flatten(1) if x.sum() > 0 else -x.flatten(1)), "export to safetensors instead"),
    ],
)
def test_a_graph_that_cannot_be_written_is_one_line(
    forward, says: str, form: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    _, card = small("mlp")
    with pytest.raises(ModelFileError, match=says) as error:
        format_module(form).write(tmp_path / f"m.{form}", Written(forward).eval(), card)
    assert "\x1b" not in one_line(error)
    assert capfd.readouterr() == ("", "")


def test_an_operator_that_onnx_lacks_is_named(tmp_path: Path) -> None:
    _, card = small("mlp")
    model = Written(lambda fc, x: fc(torch.special.bessel_j0(x).flatten(1)))
    with pytest.raises(ModelFileError, match=r"cannot be written as ONNX: .*bessel_j0.*safetensors") as error:
        format_module("onnx").write(tmp_path / "m.onnx", model.eval(), card)
    assert "\x1b" not in one_line(error)
