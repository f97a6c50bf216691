"""CIFAR-100: 60,000 photographs, 32x32 colour, 100 classes (Krizhevsky, 2009)."""

from sheaf.data.readers.huggingface import HubSet

CIFAR100 = HubSet(
    repo="uoft-cs/cifar100",
    folder="cifar100/cifar100",
    label="fine_label",
    mean=(0.5071, 0.4865, 0.4409),
    std=(0.2673, 0.2564, 0.2762),
)
