"""CIFAR-10: 60,000 photographs, 32x32 colour, 10 classes (Krizhevsky, 2009)."""

from sheaf.data.readers.huggingface import HubSet

CIFAR10 = HubSet(
    repo="uoft-cs/cifar10",
    folder="cifar10/plain_text",
    mean=(0.4914, 0.4822, 0.4465),
    std=(0.2470, 0.2435, 0.2616),
)
