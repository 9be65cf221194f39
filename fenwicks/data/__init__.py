"""Where examples come from: CIFAR-10 and CIFAR-100 (found, verified, downloaded), an embedded
sample, and tf.data input functions."""

from fenwicks.data.dataset import Dataset, check_arrays
from fenwicks.data.listing import ImageList
from fenwicks.data.pipeline import eval_dataset, train_dataset
from fenwicks.data.search import DATASETS, load
from fenwicks.data.statistics import mean_std

__all__ = [
    'DATASETS',
    'Dataset',
    'ImageList',
    'check_arrays',
    'eval_dataset',
    'load',
    'mean_std',
    'train_dataset',
]
