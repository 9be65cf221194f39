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

from fenwicks.augment.chain import (
    compose,
    context_arguments,
    in_groups,
    takes_labels,
    with_context,
    with_labels,
)
from fenwicks.augment.choices import apply, choice, on_pixels, without_seed
from fenwicks.augment.color import (
    brightness,
    contrast,
    distort_color,
    grey,
    hue,
    jitter,
    saturation,
)
from fenwicks.augment.color_draws import (
    random_brightness,
    random_color,
    random_contrast,
    random_distort_color,
    random_jitter,
    random_lighting,
)
from fenwicks.augment.crops import (
    central_crop,
    central_part,
    crop,
    crop_and_resize,
    pad,
    pad_reflect,
    random_crop,
    random_resized_crop,
)
from fenwicks.augment.erasing import cutout, erase, random_cutout, random_erasing
from fenwicks.augment.flips import (
    alternating_flip,
    dihedral,
    flip,
    flip_vertical,
    random_dihedral,
    random_flip,
    random_flip_vertical,
    random_rotate_90,
    rotate_90,
)
from fenwicks.augment.geometry import (
    affine,
    compose_matrices,
    flip_matrix,
    random_affine,
    random_rotate,
    random_shear,
    random_shift,
    random_zoom,
    rotate,
    rotation_matrix,
    shear,
    shear_matrix,
    shift,
    shift_matrix,
    zoom,
    zoom_matrix,
)
from fenwicks.augment.inspection import preview
from fenwicks.augment.keras_layer import Augment, layer
from fenwicks.augment.levels import autocontrast, equalize, posterize, sharpness, solarize
from fenwicks.augment.mix import cutmix, draw_beta, mixup, random_cutmix, random_mixup
from fenwicks.augment.normalizers import (
    denormalize,
    imagenet_denormalize,
    imagenet_normalize,
    normalize,
)
from fenwicks.augment.policies import rand_augment, trivial_augment
from fenwicks.augment.ready_made import fastai_transforms, inception_transforms
from fenwicks.augment.resizing import resize
from fenwicks.augment.seeds import draw, draw_integers, fold

__all__ = [
    'Augment',
    'affine',
    'alternating_flip',
    'apply',
    'autocontrast',
    'brightness',
    'central_crop',
    'central_part',
    'choice',
    'compose',
    'compose_matrices',
    'context_arguments',
    'contrast',
    'crop',
    'crop_and_resize',
    'cutmix',
    'cutout',
    'denormalize',
    'dihedral',
    'distort_color',
    'draw',
    'draw_beta',
    'draw_integers',
    'equalize',
    'erase',
    'fastai_transforms',
    'flip',
    'flip_matrix',
    'flip_vertical',
    'fold',
    'grey',
    'hue',
    'imagenet_denormalize',
    'imagenet_normalize',
    'in_groups',
    'inception_transforms',
    'jitter',
    'layer',
    'mixup',
    'normalize',
    'on_pixels',
    'pad',
    'pad_reflect',
    'posterize',
    'preview',
    'rand_augment',
    'random_affine',
    'random_brightness',
    'random_color',
    'random_contrast',
    'random_crop',
    'random_cutmix',
    'random_cutout',
    'random_dihedral',
    'random_distort_color',
    'random_erasing',
    'random_flip',
    'random_flip_vertical',
    'random_jitter',
    'random_lighting',
    'random_mixup',
    'random_resized_crop',
    'random_rotate',
    'random_rotate_90',
    'random_shear',
    'random_shift',
    'random_zoom',
    'resize',
    'rotate',
    'rotate_90',
    'rotation_matrix',
    'saturation',
    'sharpness',
    'shear',
    'shear_matrix',
    'shift',
    'shift_matrix',
    'solarize',
    'takes_labels',
    'trivial_augment',
    'with_context',
    'with_labels',
    'without_seed',
    'zoom',
    'zoom_matrix',
]
