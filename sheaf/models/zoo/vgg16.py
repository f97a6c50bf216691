"""VGG-16: 3x3 convolutions, configuration D of the paper.

Very Deep Convolutional Networks for Large-Scale Image Recognition. Simonyan, Zisserman.
arXiv:1409.1556

Names, shapes and initialisation of the parameters are those of torchvision, so its weights files fit.
"""

from __future__ import annotations

from torch import nn

from sheaf.models.zoo.vgg11 import VARIANTS as VARIANTS
from sheaf.models.zoo.vgg11 import vgg

IMAGENET: dict[str | None, str] = {
    None: "https://download.pytorch.org/models/vgg16-397923af.pth",
    "bn": "https://download.pytorch.org/models/vgg16_bn-6c64b313.pth",
}


def vgg16(
    num_classes: int,
    in_shape: tuple[int, int, int],
    variant: str | None = None,
    dropout: float = 0.5,
) -> nn.Module:
    """Return the network: (N, C, H, W) -> (N, K) logits, for inputs of at least 32x32.

    ``dropout`` is the probability after both hidden layers of the classifier.
    """
    stages = [(64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512)]
    return vgg(stages, num_classes, in_shape, variant, dropout)
