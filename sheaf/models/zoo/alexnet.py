"""AlexNet: five convolutions and three linear layers, in the one-column form.

One weird trick for parallelizing convolutional neural networks. Krizhevsky. arXiv:1404.5997
Based on ImageNet Classification with Deep Convolutional Neural Networks. Krizhevsky, Sutskever, Hinton.
NeurIPS 2012

Names, shapes and initialisation of the parameters are those of torchvision, so its weights files fit.
"""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from sheaf.core.errors import SettingError

VARIANTS = {"32": "in the CIFAR form: 2x2 max-pools and a single linear layer, for 32x32 images"}
IMAGENET: dict[str | None, str] = {None: "https://download.pytorch.org/models/alexnet-owt-7be5be79.pth"}

SMALLEST = 63
"""The smallest height and width: three 3x3 max-pools reduce them to one position."""


def alexnet(num_classes: int, in_shape: tuple[int, int, int], variant: str | None = None) -> nn.Module:
    """Return the network: (N, C, H, W) -> (N, K) logits, for inputs of at least 63x63 (``@32``: 29x29).

    Raises:
        SettingError: the inputs are too small.
    """
    channels, height, width = in_shape
    small = variant == "32"
    if not small and min(height, width) < SMALLEST:
        raise SettingError(
            f"model 'alexnet' needs inputs of at least {SMALLEST}x{SMALLEST}, "
            f"not {height}x{width}; 'alexnet@32' is for 32x32"
        )
    kernel, padding, side = (2, 5, 1) if small else (3, 2, 6)
    features = nn.Sequential(
        nn.Conv2d(channels, 64, 11, stride=4, padding=padding),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(kernel, 2),
        nn.Conv2d(64, 192, 5, padding=2),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(kernel, 2),
        nn.Conv2d(192, 384, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(384, 256, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(256, 256, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(kernel, 2),
    )
    wide = nn.Sequential(
        nn.Dropout(),
        nn.Linear(256 * 6 * 6, 4096),
        nn.ReLU(inplace=True),
        nn.Dropout(),
        nn.Linear(4096, 4096),
        nn.ReLU(inplace=True),
        nn.Linear(4096, num_classes),
    )
    return nn.Sequential(
        OrderedDict(
            features=features,
            avgpool=nn.AdaptiveAvgPool2d(side),
            flatten=nn.Flatten(),
            classifier=nn.Linear(256, num_classes) if small else wide,
        )
    )
