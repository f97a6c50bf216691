"""MobileNetV2: inverted residuals with linear bottlenecks, for phones.

MobileNetV2: Inverted Residuals and Linear Bottlenecks. Sandler, Howard, Zhu, Zhmoginov, Chen.
arXiv:1801.04381

Names, shapes and initialisation of the parameters are those of torchvision, so its weights files fit.
"""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn

VARIANTS = {"32": "with stride 1 in the stem and in the 24-channel stage, for 32x32 images"}

# The variant has other strides but the same parameters, so one file fits both.
_FILE = "https://download.pytorch.org/models/mobilenet_v2-b0353104.pth"
IMAGENET: dict[str | None, str] = {None: _FILE, "32": _FILE}

STAGES = [
    # t: expansion, c: channels, n: blocks, s: stride of the first block (Table 2 of the paper)
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
]


def mobilenet_v2(
    num_classes: int,
    in_shape: tuple[int, int, int],
    variant: str | None = None,
    width_mult: float = 1.0,
    dropout: float = 0.2,
) -> nn.Module:
    """Return the network: (N, C, H, W) -> (N, K) logits.

    ``width_mult`` multiplies the channels of every layer, those of the last convolution only if it is above
    1. ``dropout`` is the probability before the classifier.
    """
    small = variant == "32"
    width = _divisible(32 * width_mult)
    last = _divisible(1280 * max(1.0, width_mult))
    features: list[nn.Module] = [_conv_bn_relu(in_shape[0], width, 3, stride=1 if small else 2)]
    for t, c, n, s in STAGES:
        out = _divisible(c * width_mult)
        for block in range(n):
            stride = s if block == 0 and not (small and c == 24) else 1
            features.append(InvertedResidual(width, out, stride, t))
            width = out
    features.append(_conv_bn_relu(width, last, 1))
    model = nn.Sequential(
        OrderedDict(
            features=nn.Sequential(*features),
            avgpool=nn.AdaptiveAvgPool2d(1),
            flatten=nn.Flatten(),
            classifier=nn.Sequential(nn.Dropout(dropout), nn.Linear(last, num_classes)),
        )
    )
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out")
        elif isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, 0, 0.01)
            nn.init.zeros_(layer.bias)
    return model


class InvertedResidual(nn.Module):
    """Widen by 1x1, filter each channel by 3x3, narrow by 1x1; add the input if the shapes are equal."""

    def __init__(self, inp: int, out: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = inp * expansion
        widen = [_conv_bn_relu(inp, hidden, 1)] if expansion != 1 else []
        self.conv = nn.Sequential(
            *widen,
            _conv_bn_relu(hidden, hidden, 3, stride, groups=hidden),
            nn.Conv2d(hidden, out, 1, bias=False),
            nn.BatchNorm2d(out),
        )
        self.residual = stride == 1 and inp == out

    def forward(self, x: Tensor) -> Tensor:
        """(N, inp, H, W) -> (N, out, H / stride, W / stride)."""
        y: Tensor = self.conv(x)
        return x + y if self.residual else y


def _conv_bn_relu(inp: int, out: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inp, out, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(out),
        nn.ReLU6(inplace=True),
    )


def _divisible(channels: float) -> int:
    """Return the nearest multiple of 8 that is at least 90 % of ``channels``."""
    nearest = max(8, int(channels + 4) // 8 * 8)
    return nearest if nearest >= 0.9 * channels else nearest + 8
