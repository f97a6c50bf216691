"""A multilayer perceptron with one hidden layer: the smallest network that learns digits.

Similar to the "2NN" of Communication-Efficient Learning of Deep Networks from Decentralized Data.
McMahan, Moore, Ramage, Hampson, Agüera y Arcas. arXiv:1602.05629
"""

from __future__ import annotations

from collections import OrderedDict
from math import prod

from torch import nn


def mlp(
    num_classes: int, in_shape: tuple[int, int, int], variant: str | None = None, hidden: int = 128
) -> nn.Module:
    """Return the network: (N, C, H, W) -> ``hidden`` units -> (N, K) logits, for inputs of any size."""
    return nn.Sequential(
        OrderedDict(
            flatten=nn.Flatten(),
            fc1=nn.Linear(prod(in_shape), hidden),
            relu=nn.ReLU(inplace=True),
            fc2=nn.Linear(hidden, num_classes),
        )
    )
