"""The network of BlazeFL's benchmark."""

from __future__ import annotations

from torch import nn


def tutorial_cnn(num_classes: int, in_shape: tuple[int, int, int]) -> nn.Module:
    """Two convolutions and three linear layers, as in PyTorch's CIFAR-10 tutorial; for 32x32 images.

    https://pytorch.org/tutorials/beginner/blitz/cifar10_tutorial.html
    """
    return nn.Sequential(
        nn.Conv2d(in_shape[0], 6, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 16, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(16 * 5 * 5, 120),
        nn.ReLU(),
        nn.Linear(120, 84),
        nn.ReLU(),
        nn.Linear(84, num_classes),
    )
