"""Where examples come from: CIFAR-10 and CIFAR-100 (found, verified, downloaded), an embedded
sample, and your own images: listed, checked, split, decoded once, batched or streamed."""

from fenwicks.data.batches import ImageBatches
from fenwicks.data.dataset import Dataset, check_arrays
from fenwicks.data.decoded import ImageArrays, decode_images
from fenwicks.data.inspection import ImageReport, check_images
from fenwicks.data.listing import ImageList
from fenwicks.data.loose_files import files_dataset
from fenwicks.data.pipeline import eval_dataset, train_dataset
from fenwicks.data.search import DATASETS, load
from fenwicks.data.shards import decode_shards, write_shards
from fenwicks.data.splits import k_folds, train_validation_split
from fenwicks.data.statistics import ChannelStatistics, class_counts, mean_std
from fenwicks.data.streaming import shard_dataset
from fenwicks.data.tfds import TfdsImages, tfds_images

__all__ = [
    'DATASETS',
    'ChannelStatistics',
    'Dataset',
    'ImageArrays',
    'ImageBatches',
    'ImageList',
    'ImageReport',
    'TfdsImages',
    'check_arrays',
    'check_images',
    'class_counts',
    'decode_images',
    'decode_shards',
    'eval_dataset',
    'files_dataset',
    'k_folds',
    'load',
    'mean_std',
    'shard_dataset',
    'tfds_images',
    'train_dataset',
    'train_validation_split',
    'write_shards',
]
