"""Weights files: formats, errors, and that a model is loaded whole or not at all."""

import logging
import os

import pytest
import torch
from safetensors import safe_open
from torch import nn

from sheaf.core.errors import WeightsError
from sheaf.models.build import ModelSettings, build_model
from sheaf.models.checkpoints import load_state, load_weights, save_weights


def network(classes: int = 4, width: int = 5) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, width, 3),
        nn.BatchNorm2d(width),
        nn.Flatten(),
        nn.Linear(4 * width, classes),
    )


def same(one, two) -> bool:
    return all(torch.equal(one[key], two[key]) for key in one.keys() | two.keys())


def params(classes: int = 4, width: int = 5):
    model = network(classes, width)
    model[1].num_batches_tracked += 3
    return {key: value.clone() for key, value in model.state_dict().items()}


@pytest.mark.parametrize("name", ["w.safetensors", "w.pth", "w.pt"])
def test_saved_weights_can_be_loaded(tmp_path, name):
    theirs, path = params(), tmp_path / name
    if path.suffix == ".safetensors":
        save_weights(path, theirs, {"run": "7"})
    else:
        torch.save(theirs, path)
    model = network()
    assert load_weights(model, str(path)) == []
    assert same(model.state_dict(), theirs)


@pytest.mark.parametrize("zipped", [True, False])
def test_checkpoints_and_old_formats(tmp_path, zipped):
    theirs, path = params(), tmp_path / "w.pth"
    checkpoint = {"epoch": 3, "state_dict": theirs}
    torch.save(checkpoint, path, _use_new_zipfile_serialization=zipped)
    model = network()
    load_weights(model, str(path))
    assert same(model.state_dict(), theirs)


def test_half_precision_is_widened_and_counters_may_be_missing(tmp_path):
    theirs, path = params(), tmp_path / "w.pth"
    del theirs["1.num_batches_tracked"]
    torch.save({key: value.half() for key, value in theirs.items()}, path)
    model = network()
    load_weights(model, str(path))
    assert torch.equal(model[0].weight, theirs["0.weight"].half().float())


def test_a_classifier_of_other_classes_is_not_loaded(tmp_path):
    theirs, path = params(classes=9), tmp_path / "w.safetensors"
    save_weights(path, theirs, {})
    model = network()
    fresh = model[3].weight.clone()
    (note,) = load_weights(model, str(path))
    assert note == (
        "w.safetensors is for 9 classes, the model for 4: its classifier (3.weight, 3.bias) is not loaded "
        "and starts from random values"
    )
    assert torch.equal(model[3].weight, fresh)
    assert torch.equal(model[0].weight, theirs["0.weight"])


def remove_a_name(theirs):
    del theirs["0.weight"]


def add_a_name(theirs):
    theirs["extra"] = torch.zeros(1)


def widen(theirs):
    theirs.update(params(width=6))


def make_infinite(theirs):
    theirs["1.running_var"][2] = float("inf")


def make_integer(theirs):
    theirs["0.bias"] = theirs["0.bias"].long()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (remove_a_name, r"they lack 1 of its 9 tensors \(0\.weight\)$"),
        (add_a_name, r"they have 1 unknown \(extra\)$"),
        (widen, r"0\.weight is 6.* not 5"),
        (make_infinite, r"NaN or infinity in 1\.running_var"),
        (make_integer, r"0\.bias is torch\.int64, not torch\.float32"),
    ],
)
def test_weights_of_another_model_leave_the_model_unchanged(tmp_path, spoil, message):
    theirs, path = params(), tmp_path / "w.safetensors"
    spoil(theirs)
    save_weights(path, theirs, {})
    model = network()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(WeightsError, match=message) as error:
        load_weights(model, str(path))
    assert "\n" not in str(error.value)
    assert same(model.state_dict(), before)


class Trap:
    """Creates a folder when it is unpickled."""

    def __reduce__(self):
        return os.mkdir, ("trapped",)


@pytest.mark.parametrize("zipped", [True, False])
def test_nothing_in_a_file_is_executed(tmp_path, monkeypatch, zipped):
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": Trap()}, "w.pth", _use_new_zipfile_serialization=zipped)
    with pytest.raises(WeightsError, match="which are not unpickled"):
        load_weights(network(), "w.pth")
    assert not (tmp_path / "trapped").exists()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("w.pth", None, "does not exist"),
        ("w.pth", b"", "cannot read weights"),
        ("w.pth", b"PK\x03\x04 and then noise", "cannot read weights"),
        ("w.pth", b"noise", "cannot read weights"),
        ("w.safetensors", b"", "cannot read weights"),
        ("w.safetensors", b"\xff" * 40, "cannot read weights"),
        ("w.pkl", b"x", r"must be one of \.safetensors, \.pth, "),
    ],
)
def test_unreadable_files(tmp_path, name, content, message):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(WeightsError, match=message) as error:
        load_weights(network(), str(path))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", [[1, 2], {"epoch": 3}, {3: torch.zeros(1)}])
def test_files_without_a_state_dict(tmp_path, content):
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match="contain no state_dict"):
        load_weights(network(), str(tmp_path / "w.pth"))


@pytest.fixture
def hub(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    return tmp_path / "hub" / "checkpoints"


def test_imagenet_weights_come_from_the_hub_cache(hub):
    hub.mkdir(parents=True)
    torch.save(params(), hub / "net-01234567.pth")
    model = network()
    assert load_weights(model, "imagenet", "https://example.invalid/net-01234567.pth") == []


def test_the_error_without_a_network_tells_where_to_put_the_file(hub, monkeypatch):
    def unreachable(*_, **__):
        raise OSError("no route to host")

    monkeypatch.setattr(torch.hub, "urlopen", unreachable)
    url = "https://example.invalid/net-01234567.pth"
    with pytest.raises(WeightsError) as error:
        load_weights(network(), "imagenet", url)
    assert str(error.value) == (
        f"cannot download {url}: no route to host; put the file at {str(hub / 'net-01234567.pth')!r}"
    )


def test_downloads_are_checked_against_their_hash(hub, tmp_path):
    torch.save(params(), tmp_path / "net-01234567.pth")
    url = (tmp_path / "net-01234567.pth").as_uri()
    with pytest.raises(WeightsError, match="invalid hash"):
        load_weights(network(), "imagenet", url)
    assert list(hub.iterdir()) == []


def test_missing_imagenet_weights_are_an_error():
    with pytest.raises(WeightsError, match="has no ImageNet weights"):
        load_weights(network(), "imagenet")


def test_saving_keeps_metadata_and_copies_shared_memory(tmp_path):
    path, stack = tmp_path / "new" / "w.safetensors", torch.randn(2, 3)
    save_weights(path, {"a": stack[0], "b": stack[1], "c": stack.t()}, {"seed": "7"})
    with safe_open(path, "pt") as file:
        assert file.metadata() == {"seed": "7"}
        assert torch.equal(file.get_tensor("b"), stack[1])
        assert torch.equal(file.get_tensor("c"), stack.t())


def test_a_failed_save_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "w.safetensors"
    save_weights(path, {"a": torch.ones(1)}, {})

    def full(_):
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="no space"):
        save_weights(path, {"a": torch.zeros(1)}, {})
    with safe_open(path, "pt") as file:
        assert file.get_tensor("a").item() == 1
    assert [p.name for p in tmp_path.iterdir()] == ["w.safetensors"]


def test_build_model_loads_weights_and_logs_notes(tmp_path, caplog):
    first = build_model(ModelSettings(name="mlp"), 6, (1, 4, 4), seed=1)
    save_weights(tmp_path / "w.safetensors", first.state_dict(), {})
    settings = ModelSettings(name="mlp", weights=str(tmp_path / "w.safetensors"))
    with caplog.at_level(logging.INFO, "sheaf"):
        second = build_model(settings, 3, (1, 4, 4), seed=2)
    assert torch.equal(first.fc1.weight, second.fc1.weight)
    assert caplog.messages == [
        "mlp: w.safetensors is for 6 classes, the model for 3: "
        "its classifier (fc2.weight, fc2.bias) is not loaded and starts from random values"
    ]


class Versioned(nn.Linear):
    """Needs its version in the metadata of the state_dict, as MNASNet does."""

    _version = 2

    def _load_from_state_dict(self, state_dict, prefix, local_metadata, *rest):
        version = local_metadata.get("version")
        if version != 2:
            raise ValueError(f"version should be 2, not {version}")
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *rest)


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
def test_the_versions_of_modules_are_loaded(tmp_path, name):
    theirs, model = nn.Sequential(Versioned(2, 2)), nn.Sequential(Versioned(2, 2))
    if name == "w.pth":
        torch.save({"model": nn.ModuleDict({"module": theirs}).state_dict()}, tmp_path / name)
    else:
        save_weights(tmp_path / name, theirs.state_dict(), {})
    load_weights(model, str(tmp_path / name))
    assert same(model.state_dict(), theirs.state_dict())
    load_state(model, {name: value + 1 for name, value in theirs.state_dict().items()})
    assert torch.equal(model[0].bias, theirs[0].bias + 1)


def test_another_version_is_an_error_on_one_line(tmp_path):
    theirs = nn.Sequential(Versioned(2, 2)).state_dict()
    theirs._metadata["0"]["version"] = 1
    torch.save(theirs, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=r"load_state_dict fails: version should be 2, not 1") as error:
        load_weights(nn.Sequential(Versioned(2, 2)), str(tmp_path / "w.pth"))
    assert "\n" not in str(error.value)
