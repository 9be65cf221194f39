"""Augmentations of image batches: pure transforms, and `random_*` functions that draw.

**What an augmentation is.** A callable `augment(images, seed) -> images`:

- `images`: a normalised float batch (batch, height, width, channels) of TensorFlow, JAX or NumPy.
  The result has the same framework and dtype; sizes must be known when traced, the number of images
  needn't be.
- `seed`: two integers, new in each step. The result depends on nothing else, so that a compiled
  loop can call it. A `random_*` function also takes (batch, 2), a seed for each image; images of
  equal seeds draw the same.
- It may have three further parameters, which the `Trainer` and `fenwicks.data.train_dataset` fill
  in by name: `epoch`, the number of the epoch; `indices`, integers (batch,), the images' numbers
  in the data set; `run_seed`, two integers that stay the same throughout a training.

Two things follow. Anything written with the array operators that the three frameworks share is an
augmentation, and so is a function of one framework, if only that one is to run it. State, such as
a Keras layer created inside the function, is not allowed: create layers outside, or use the
functions of this module. `draw` and `draw_integers` give random numbers in any framework.

**Pure and random.** `crop(images, top, left, ...)` takes its parameters for each image and draws
nothing; `random_crop(images, seed, ...)` draws them, for each image its own, and calls `crop`. One
implementation serves `tf.data` maps (under any Keras backend), compiled epoch loops in TensorFlow
and JAX, and plain NumPy. Draws are hashes of the seed, hence the same everywhere, except those of
`random_crop`, `random_flip` and `random_cutout`, for which each framework uses its own generator.
"""

from fenwicks.augment.chain import compose, context_arguments, in_groups, with_context
from fenwicks.augment.color import jitter, random_jitter
from fenwicks.augment.crops import crop, pad_reflect, random_crop
from fenwicks.augment.erase import cutout, random_cutout
from fenwicks.augment.flips import alternating_flip, flip, random_flip
from fenwicks.augment.normalizers import denormalize, normalize
from fenwicks.augment.resizing import resize
from fenwicks.augment.seeds import draw, draw_integers, fold

__all__ = [
    'alternating_flip',
    'compose',
    'context_arguments',
    'crop',
    'cutout',
    'denormalize',
    'draw',
    'draw_integers',
    'flip',
    'fold',
    'in_groups',
    'jitter',
    'normalize',
    'pad_reflect',
    'random_crop',
    'random_cutout',
    'random_flip',
    'random_jitter',
    'resize',
    'with_context',
]
