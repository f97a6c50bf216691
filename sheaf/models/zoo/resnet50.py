"""ResNet-50: residual bottlenecks, 50 layers deep.

Deep Residual Learning for Image Recognition. He, Zhang, Ren, Sun. arXiv:1512.03385

Names, shapes and initialisation of the parameters are those of torchvision, so its weights files fit. As in
torchvision, the 3x3 convolution of a block has the stride, not the first 1x1 convolution.
"""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn

VARIANTS = {"32": "with a 3x3 stem of stride 1 and no max-pool, for 32x32 images"}
IMAGENET: dict[str | None, str] = {None: "https://download.pytorch.org/models/resnet50-0676ba61.pth"}


def resnet50(num_classes: int, in_shape: tuple[int, int, int], variant: str | None = None) -> nn.Module:
    """Return the network: (N, C, H, W) -> (N, K) logits, for inputs of any size."""
    stem: dict[str, nn.Module] = {
        "conv1": nn.Conv2d(in_shape[0], 64, 7, 2, 3, bias=False),
        "bn1": nn.BatchNorm2d(64),
        "relu": nn.ReLU(inplace=True),
        "maxpool": nn.MaxPool2d(3, 2, 1),
    }
    if variant == "32":
        stem["conv1"] = nn.Conv2d(in_shape[0], 64, 3, 1, 1, bias=False)
        del stem["maxpool"]
    model = nn.Sequential(
        OrderedDict(
            **stem,
            layer1=_stage(64, 64, blocks=3, stride=1),
            layer2=_stage(256, 128, blocks=4, stride=2),
            layer3=_stage(512, 256, blocks=6, stride=2),
            layer4=_stage(1024, 512, blocks=3, stride=2),
            avgpool=nn.AdaptiveAvgPool2d(1),
            flatten=nn.Flatten(),
            fc=nn.Linear(2048, num_classes),
        )
    )
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    return model


class Bottleneck(nn.Module):
    """Narrow by 1x1, filter by 3x3, widen by 1x1 to four times ``width``, and add the input."""

    def __init__(self, inp: int, width: int, stride: int) -> None:
        super().__init__()
        out = 4 * width
        self.conv1 = nn.Conv2d(inp, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, out, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out)
        self.relu = nn.ReLU(inplace=True)
        self.downsample: nn.Module = nn.Identity()
        if stride != 1 or inp != out:
            self.downsample = nn.Sequential(nn.Conv2d(inp, out, 1, stride, bias=False), nn.BatchNorm2d(out))

    def forward(self, x: Tensor) -> Tensor:
        """(N, inp, H, W) -> (N, 4 * width, H / stride, W / stride)."""
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        z: Tensor = self.relu(y + self.downsample(x))
        return z


def _stage(inp: int, width: int, blocks: int, stride: int) -> nn.Sequential:
    """Return a stage of blocks, of which the first has the stride and widens."""
    rest = [Bottleneck(4 * width, width, 1) for _ in range(blocks - 1)]
    return nn.Sequential(Bottleneck(inp, width, stride), *rest)
