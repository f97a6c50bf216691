"""MNIST: 70,000 handwritten digits, 28x28 grey, 10 classes (LeCun, Cortes, Burges, 1998)."""

from sheaf.data.readers.huggingface import HubSet

MNIST = HubSet(repo="ylecun/mnist", folder="mnist/mnist", mean=(0.1307,), std=(0.3081,))
