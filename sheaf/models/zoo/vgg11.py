"""VGG-11: 3x3 convolutions, configuration A of the paper.

Very Deep Convolutional Networks for Large-Scale Image Recognition. Simonyan, Zisserman.
arXiv:1409.1556

Names, shapes and initialisation of the parameters are those of torchvision, so its weights files fit.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from torch import nn

VARIANTS = {
    "bn": "with batch normalisation",
    "32": "with batch normalisation and a 512-512-K classifier, for 32x32 images",
}
IMAGENET: dict[str | None, str] = {
    None: "https://download.pytorch.org/models/vgg11-8a719046.pth",
    "bn": "https://download.pytorch.org/models/vgg11_bn-6002323d.pth",
}


def vgg11(
    num_classes: int,
    in_shape: tuple[int, int, int],
    variant: str | None = None,
    dropout: float = 0.5,
) -> nn.Module:
    """Return the network: (N, C, H, W) -> (N, K) logits, for inputs of at least 32x32.

    ``dropout`` is the probability after both hidden layers of the classifier.
    """
    stages = [(64,), (128,), (256, 256), (512, 512), (512, 512)]
    return vgg(stages, num_classes, in_shape, variant, dropout)


def vgg(
    stages: Sequence[tuple[int, ...]],
    num_classes: int,
    in_shape: tuple[int, int, int],
    variant: str | None,
    dropout: float,
) -> nn.Module:
    """Return the VGG whose stages consist of 3x3 convolutions of the given widths and a 2x2 max-pool."""
    features: list[nn.Module] = []
    width = in_shape[0]
    for stage in stages:
        for out in stage:
            norm = [nn.BatchNorm2d(out)] if variant else []
            features += [nn.Conv2d(width, out, 3, padding=1), *norm, nn.ReLU(inplace=True)]
            width = out
        features.append(nn.MaxPool2d(2))
    side, hidden = (1, 512) if variant == "32" else (7, 4096)
    model = nn.Sequential(
        OrderedDict(
            features=nn.Sequential(*features),
            avgpool=nn.AdaptiveAvgPool2d(side),
            flatten=nn.Flatten(),
            classifier=nn.Sequential(
                nn.Linear(width * side * side, hidden),
                nn.ReLU(inplace=True),
                nn.Dropout(dropout),
                nn.Linear(hidden, hidden),
                nn.ReLU(inplace=True),
                nn.Dropout(dropout),
                nn.Linear(hidden, num_classes),
            ),
        )
    )
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, 0, 0.01)
        if isinstance(layer, nn.Conv2d | nn.Linear) and layer.bias is not None:
            nn.init.zeros_(layer.bias)
    return model
