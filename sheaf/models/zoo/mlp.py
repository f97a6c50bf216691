"""One hidden layer: the smallest network that learns digits.

The "2NN" family of Communication-Efficient Learning of Deep Networks from Decentralized Data.
McMahan, Moore, Ramage, Hampson, Agüera y Arcas. arXiv:1602.05629
"""

from __future__ import annotations

from collections import OrderedDict
from math import prod

from torch import nn


def mlp(
    num_classes: int, in_shape: tuple[int, int, int], variant: str | None = None, hidden: int = 128
) -> nn.Module:
    """(N, C, H, W) -> (N, K) logits, through ``hidden`` units. Takes inputs of any size."""
    return nn.Sequential(
        OrderedDict(
            flatten=nn.Flatten(),
            fc1=nn.Linear(prod(in_shape), hidden),
            relu=nn.ReLU(inplace=True),
            fc2=nn.Linear(hidden, num_classes),
        )
    )
