"""The networks are those of torchvision: its documented counts and the names in its published files."""

import pytest

from sheaf.models.build import ModelSettings, build_skeleton
from sheaf.models.flops import macs_per_example

SHAPE = (3, 224, 224)

# https://pytorch.org/vision/stable/models.html: num_params, and GFLOPS (which are multiply-adds).
DOCUMENTED = {
    "alexnet": (61_100_840, "0.71"),
    "mobilenet_v2": (3_504_872, "0.30"),
    "resnet50": (25_557_032, "4.09"),
    "vgg11": (132_863_336, "7.61"),
    "vgg11@bn": (132_868_840, "7.61"),
    "vgg16": (138_357_544, "15.47"),
    "vgg16@bn": (138_365_992, "15.47"),
}

# Excerpts of the published files: the first and last layers, and gaps in the indices.
PUBLISHED = {
    "alexnet": {
        "features.0.weight": (64, 3, 11, 11),
        "features.3.weight": (192, 64, 5, 5),
        "features.10.bias": (256,),
        "classifier.1.weight": (4096, 9216),
        "classifier.4.weight": (4096, 4096),
        "classifier.6.bias": (1000,),
    },
    "mobilenet_v2": {
        "features.0.0.weight": (32, 3, 3, 3),
        "features.0.1.num_batches_tracked": (),
        "features.1.conv.0.0.weight": (32, 1, 3, 3),
        "features.1.conv.1.weight": (16, 32, 1, 1),
        "features.1.conv.2.running_var": (16,),
        "features.2.conv.0.0.weight": (96, 16, 1, 1),
        "features.2.conv.1.0.weight": (96, 1, 3, 3),
        "features.2.conv.3.bias": (24,),
        "features.17.conv.2.weight": (320, 960, 1, 1),
        "features.18.0.weight": (1280, 320, 1, 1),
        "classifier.1.weight": (1000, 1280),
    },
    "resnet50": {
        "conv1.weight": (64, 3, 7, 7),
        "bn1.running_mean": (64,),
        "layer1.0.conv1.weight": (64, 64, 1, 1),
        "layer1.0.downsample.0.weight": (256, 64, 1, 1),
        "layer1.0.downsample.1.bias": (256,),
        "layer2.3.conv2.weight": (128, 128, 3, 3),
        "layer3.5.bn3.weight": (1024,),
        "layer4.2.conv3.weight": (2048, 512, 1, 1),
        "fc.weight": (1000, 2048),
    },
    "vgg11": {
        "features.0.weight": (64, 3, 3, 3),
        "features.18.weight": (512, 512, 3, 3),
        "classifier.0.weight": (4096, 25088),
        "classifier.3.weight": (4096, 4096),
        "classifier.6.weight": (1000, 4096),
    },
    "vgg11@bn": {"features.1.weight": (64,), "features.25.bias": (512,)},
    "vgg16": {"features.2.weight": (64, 64, 3, 3), "features.28.weight": (512, 512, 3, 3)},
    "vgg16@bn": {"features.40.weight": (512, 512, 3, 3), "features.41.running_mean": (512,)},
}


@pytest.mark.parametrize("name", sorted(DOCUMENTED))
def test_parameters_and_multiply_adds_are_as_documented(name):
    model = build_skeleton(ModelSettings(name=name), 1000, SHAPE)
    count = sum(parameter.numel() for parameter in model.parameters())
    assert (count, f"{macs_per_example(model, SHAPE) / 1e9:.2f}") == DOCUMENTED[name]


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_names_and_shapes_are_as_in_the_published_files(name):
    state = build_skeleton(ModelSettings(name=name), 1000, SHAPE).state_dict()
    ours = {key: tuple(state[key].shape) for key in PUBLISHED[name] if key in state}
    assert ours == PUBLISHED[name]


def test_vgg16_at_32_has_the_feature_names_of_vgg16_bn():
    small, full = (
        build_skeleton(ModelSettings(name=name), 10, (3, 32, 32)).features.state_dict()
        for name in ("vgg16@32", "vgg16@bn")
    )
    assert list(small) == list(full)
