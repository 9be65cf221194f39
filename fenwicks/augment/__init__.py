"""Augmentations of image batches: pure transforms with per-image parameters, `random_*` that draw.

One set serves `tf.data` maps (under any Keras backend), compiled epoch loops in TensorFlow and
JAX, and plain NumPy. All take float batches (batch, height, width, channels), keep their dtype,
and work in the framework of the arrays they get: TensorFlow if any is TensorFlow's, else JAX if
any is JAX's, else NumPy. Randomness is stateless: a seed is two integers, and the same seed gives
the same draw (within one framework; each has its own generator). What images draw by seeds of their
own, or in groups, is a hash and the same everywhere.
"""

from fenwicks.augment.chain import compose, facts_of, in_groups, with_facts
from fenwicks.augment.draws import alternating_flip, random_crop, random_cutout, random_flip
from fenwicks.augment.seeds import fold
from fenwicks.augment.transforms import crop, cutout, denormalize, flip, normalize, pad_reflect

__all__ = [
    'alternating_flip',
    'compose',
    'crop',
    'cutout',
    'denormalize',
    'facts_of',
    'flip',
    'fold',
    'in_groups',
    'normalize',
    'pad_reflect',
    'random_crop',
    'random_cutout',
    'random_flip',
    'with_facts',
]
