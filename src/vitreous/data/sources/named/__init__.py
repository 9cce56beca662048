"""The name of a data set -> its images and labels: those of scikit-learn, or official files."""

from vitreous.data.sources.named.cifar import CIFAR10, CIFAR100, open_cifar
from vitreous.data.sources.named.digits import open_digits
from vitreous.data.sources.named.mnist import FASHION_MNIST, MNIST, open_idx_set

OPENERS = {
    "digits": open_digits,
    "mnist": lambda: open_idx_set(MNIST),
    "fashion-mnist": lambda: open_idx_set(FASHION_MNIST),
    "cifar10": lambda: open_cifar(CIFAR10),
    "cifar100": lambda: open_cifar(CIFAR100),
}
"""Name of a data set -> the function that opens it."""
