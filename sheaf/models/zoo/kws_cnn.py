"""A compact CNN with batch normalisation for keyword spotting on log-mel spectrograms.

Based on Hello Edge: Keyword Spotting on Microcontrollers. Zhang, Suda, Lai, Chandra. arXiv:1711.07128
The convolutions are plain, whereas those of the paper's best network are depthwise separable.
"""

from __future__ import annotations

from collections import OrderedDict
from itertools import pairwise

from torch import nn


def kws_cnn(
    num_classes: int,
    in_shape: tuple[int, int, int],
    variant: str | None = None,
    width: int = 32,
    dropout: float = 0.2,
) -> nn.Module:
    """Return the network: (N, 1, mel bands, frames) -> (N, K) logits, for at least 8 bands and 8 frames.

    ``width`` is the number of channels of the first convolution; the later ones have 2, 4 and 4 times as
    many. ``dropout`` is the probability before the classifier.
    """
    widths = [in_shape[0], width, 2 * width, 4 * width, 4 * width]
    features: list[nn.Module] = []
    for block, (inp, out) in enumerate(pairwise(widths)):
        pool = [nn.MaxPool2d(2)] if block > 0 else []
        features += [
            *pool,
            nn.Conv2d(inp, out, 3, padding=1, bias=False),
            nn.BatchNorm2d(out),
            nn.ReLU(inplace=True),
        ]
    return nn.Sequential(
        OrderedDict(
            features=nn.Sequential(*features),
            avgpool=nn.AdaptiveAvgPool2d(1),
            flatten=nn.Flatten(),
            dropout=nn.Dropout(dropout),
            fc=nn.Linear(widths[-1], num_classes),
        )
    )
