"""Checkpoints as other tools write them: wrappers, prefixes, averages, tied names and types."""

import argparse
from collections import OrderedDict

import pytest
import torch
from safetensors.torch import save_model
from torch import nn

from sheaf.core.errors import WeightsError
from sheaf.models.checkpoints import load_weights


def network(width: int = 5) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, width, 3), nn.BatchNorm2d(width), nn.Flatten(), nn.Linear(4 * width, 4))


def state(width: int = 5) -> OrderedDict:
    return network(width).state_dict()


def prefixed(prefix: str, params) -> dict:
    return {prefix + name: value for name, value in params.items()}


def load(tmp_path, content, suffix=".pth", model=None):
    path = tmp_path / f"w{suffix}"
    torch.save(content, path)
    model = model or network()
    return model, load_weights(model, str(path))


def same(one, two) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)


@pytest.mark.parametrize("key", ["model", "model_state_dict", "net", "state_dict", "generator", "model_ema"])
def test_a_state_dict_under_a_key_is_loaded_with_a_note(tmp_path, key):
    theirs = state()
    optimizer = torch.optim.SGD(network().parameters(), 0.1, momentum=0.9).state_dict()
    model, notes = load(
        tmp_path, {"epoch": 3, key: theirs, "optimizer": optimizer, "loss": torch.tensor(0.3)}
    )
    assert same(model.state_dict(), theirs)
    assert notes == [f"w.pth is a checkpoint: the parameters under {key!r} are loaded"]


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "model.", "module._orig_mod.", "backbone."])
def test_a_prefix_is_removed_with_a_note(tmp_path, prefix):
    theirs = state()
    model, notes = load(tmp_path, prefixed(prefix, theirs))
    assert same(model.state_dict(), theirs)
    assert notes == [f"w.pth is a checkpoint: the parameters under {prefix[:-1]!r} are loaded"]


def test_a_lightning_checkpoint_is_unwrapped(tmp_path):
    theirs = state()
    tensors = prefixed("model.", theirs) | {"loss.weight": torch.ones(4)}
    content = {
        "pytorch-lightning_version": "2.5",
        "state_dict": tensors,
        "callbacks": {},
        "lr_schedulers": [],
    }
    model, notes = load(tmp_path, content, ".ckpt")
    assert same(model.state_dict(), theirs)
    assert notes == [
        "w.ckpt is a checkpoint: the parameters under 'state_dict.model' are loaded",
        "w.ckpt has other values, not loaded: 1 (loss.weight)",
    ]


def test_wrappers_inside_the_names_are_removed(tmp_path):
    theirs = state()
    model, _ = load(tmp_path, {name.replace(".", "._orig_mod."): value for name, value in theirs.items()})
    assert same(model.state_dict(), theirs)


@pytest.mark.parametrize("keys", [("state_dict", "state_dict_ema"), ("model", "model_ema"), ("model", "ema")])
def test_an_average_goes_before_the_parameters_that_it_averages(tmp_path, keys):
    plain, average = state(), state()
    model, notes = load(tmp_path, dict(zip(keys, (plain, average), strict=True)))
    assert same(model.state_dict(), average)
    assert notes == [f"w.pth is a checkpoint: the parameters under {keys[1]!r} are loaded, not {keys[0]!r}"]


def test_torchs_averaged_model_is_unwrapped(tmp_path):
    average = torch.optim.swa_utils.AveragedModel(network())
    model, _ = load(tmp_path, {"model": state(), "model_ema": average.state_dict()})
    assert same(model.state_dict(), average.module.state_dict())


def test_models_without_a_usual_name_are_ambiguous(tmp_path):
    with pytest.raises(WeightsError, match=r"several models that fit \(student, teacher\)"):
        load(tmp_path, {"student": state(), "teacher": state()})
    theirs = state()
    model, _ = load(tmp_path, {"generator": state(width=6), "critic": theirs})
    assert same(model.state_dict(), theirs)


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Linear(4, 4), nn.Linear(4, 4)
        self.two.weight = self.one.weight


def test_tied_tensors_are_found_under_another_name(tmp_path):
    theirs = Tied()
    save_model(theirs, str(tmp_path / "w.safetensors"))
    model = Tied()
    notes = load_weights(model, str(tmp_path / "w.safetensors"))
    assert same(model.state_dict(), theirs.state_dict())
    assert model.one.weight is model.two.weight
    assert notes == ["w.safetensors lacks two.weight, tied to other names that it has"]


def test_different_values_of_tied_tensors_are_refused(tmp_path):
    theirs = Tied().state_dict()
    theirs["two.weight"] = theirs["two.weight"] + 1
    with pytest.raises(WeightsError, match=r"different values in one\.weight and two\.weight, which"):
        load(tmp_path, theirs, model=Tied())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_types_are_converted_with_a_note(tmp_path, dtype):
    theirs = network().to(dtype).state_dict()
    model, notes = load(tmp_path, theirs)
    assert all(torch.equal(value, theirs[name].to(value.dtype)) for name, value in model.state_dict().items())
    assert notes == [f"w.pth is {str(dtype)[6:]}, the model float32: converted"]


def test_values_beyond_the_models_type_are_refused(tmp_path):
    theirs = network().double().state_dict()
    theirs["0.bias"][0] = 1e300
    with pytest.raises(WeightsError, match=r"NaN or infinity in 0\.bias"):
        load(tmp_path, theirs)


def test_complex_values_are_refused(tmp_path):
    theirs = state()
    theirs["0.bias"] = theirs["0.bias"].to(torch.complex64)
    with pytest.raises(WeightsError, match=r"1 have another type \(0\.bias is torch\.complex64"):
        load(tmp_path, theirs)


def test_the_difference_is_reported_in_both_directions(tmp_path):
    theirs = prefixed("other.", prefixed("module.", state()))
    theirs = {name: value for name, value in theirs.items() if ".0." not in name}
    theirs |= {f"other.module.9.{k}": torch.zeros(1) for k in range(7)}
    with pytest.raises(WeightsError) as error:
        load(tmp_path, {"model": theirs})
    assert str(error.value).endswith(
        "are of another model under 'model.other.module': they lack 2 of its 9 tensors (0.weight, 0.bias); "
        "they have 7 unknown (9.0, 9.1, 9.2, 9.3, 9.4, ...)"
    )


def test_an_object_in_a_checkpoint_is_named_and_not_unpickled(tmp_path):
    with pytest.raises(WeightsError, match=r"\(argparse\.Namespace\), which are not unpickled"):
        load(tmp_path, {"model": state(), "args": argparse.Namespace(lr=0.1)})
