"""The datasets: each is a class here and a YAML in conf/dataset."""

from gan_runner.datasets.base import ArrayDataset, Dataset, Distribution, Range
from gan_runner.datasets.celeba import CelebA
from gan_runner.datasets.facts import DataFacts, about_data, describe
from gan_runner.datasets.images import Images
from gan_runner.datasets.mnist import MNIST, StackedMNIST
from gan_runner.datasets.synthetic import Gaussian1D, GaussianMixture, Grid, Pattern, Ring
