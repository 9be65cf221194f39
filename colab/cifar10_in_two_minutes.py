# ---
# jupyter:
#   accelerator: TPU
#   colab:
#     gpuType: V5E1
#   jupytext:
#     cell_metadata_filter: cellView,-all
#     formats: ipynb,py:percent
#     notebook_metadata_filter: all,-jupytext.text_representation.jupytext_version
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # CIFAR-10 in two minutes
#
# You are going to train a network that tells planes, cats and trucks apart in small
# photographs, and to see each part of what makes its training fast: data → augment → model → loss →
# optimizer → schedule → trainer → evaluate.
#
# **To start,** choose a TPU, a GPU or a CPU under *Runtime > Change runtime type*, then *Runtime >
# Run all*. (The notebook asks for a TPU if you don't.) The first cell looks at what the runtime has
# and installs only what it lacks.
#
# **What to expect.** On a TPU or a GPU the settings below are those of the second tutorial of the
# original [Fenwicks](https://github.com/fenwickslab/fenwicks) (2019). Reported there: 94.24 % of
# the test images right after one run of two minutes, on the TPU v2-8 that Colab had then; and
# 93.98 % after about ten minutes on its T4 GPU, in smaller batches. The network and nearly all the
# settings come from David Page, [How to train your
# ResNet](https://myrtle.ai/learn/how-to-train-your-resnet-4-architecture/), who reported 94.08 % on
# average after 79 seconds on a V100 GPU. On a CPU a narrower network trains for fewer epochs here:
# the same walk, at walking speed.

# %% [markdown]
# ## Set up
#
# This cell leaves the JAX or TensorFlow that came with the runtime as it is, since it fits the
# runtime's hardware. Keras can run on either; which one is settled here, before Keras is first
# imported.

# %% cellView="form"
# @title Find out what the runtime has, install what it lacks
import importlib.util
import os
import pathlib
import subprocess
import sys
import tempfile
from importlib import metadata

SOURCE = os.environ.get('FENWICKS_SOURCE', 'git+https://github.com/fenwicks/fenwicks')
# What came with the runtime under such names keeps its version, whatever else is installed.
KEEP = ('jax', 'libtpu', 'ml-dtypes', 'numpy', 'nvidia-', 'scipy', 'tensorflow', 'torch')

# In a copy of the repository the notebook uses that copy.
here = pathlib.Path.cwd()
for folder in (here, here.parent):
    if (folder / 'setup.py').exists() and (folder / 'fenwicks' / '__init__.py').exists():
        SOURCE = folder.as_uri()
        sys.path.insert(0, str(folder))
        break


def has(module):
    return importlib.util.find_spec(module) is not None


def lacks_something():
    if not all(map(has, ('absl', 'keras', 'matplotlib', 'PIL', 'tqdm'))):
        return True
    if not has('jax') and not has('tensorflow'):
        return True
    package = importlib.util.find_spec('fenwicks')
    if package is None or package.origin is None:  # None for a mere folder of that name
        return True
    return tuple(map(int, metadata.version('keras').split('.')[:2])) < (3, 15)


def install():
    if 'keras' in sys.modules:
        raise RuntimeError(
            'Keras is loaded already: choose Runtime > Restart session, then Run all.'
        )
    extra = '' if has('jax') or has('tensorflow') else '[cpu]'
    names = {(found.name or '').lower().replace('_', '-') for found in metadata.distributions()}
    with tempfile.TemporaryDirectory() as folder:
        constraints = pathlib.Path(folder, 'constraints.txt')
        kept = [name for name in names if name.startswith(KEEP)]
        constraints.write_text(''.join(f'{name}=={metadata.version(name)}\n' for name in kept))
        pip = [sys.executable, '-m', 'pip', 'install', '--quiet', '--constraint', constraints]
        done = subprocess.run(
            [*pip, f'fenwicks{extra} @ {SOURCE}', 'matplotlib'],
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode:
        raise RuntimeError(f'pip could not install fenwicks: {done.stderr[-2000:]}')
    importlib.invalidate_caches()


def best_backend():
    if has('jax'):
        import jax

        if jax.default_backend() in ('tpu', 'gpu') or not has('tensorflow'):
            return 'jax'
    return 'tensorflow'


if lacks_something():
    install()
os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')  # TensorFlow's notes on its own start
if 'KERAS_BACKEND' not in os.environ:
    os.environ['KERAS_BACKEND'] = best_backend()

import keras

import fenwicks as fw

device = fw.devices.select_device('auto')
precision = fw.precision.set_precision('auto', device)
print(f'Keras {keras.__version__} on {keras.backend.backend()}, {device}, {precision}')

# %% [markdown]
# ## Settings
#
# Change what you like and run the cells below again. An environment variable such as
# `FENWICKS_EPOCHS` overrides its setting; the tests of this notebook use that.


# %%
def setting(name, default):
    return type(default)(os.environ.get(f'FENWICKS_{name}', default))


on_cpu = device == 'cpu'
DATASET = setting('DATASET', 'auto')  # CIFAR-10, or a small sample where it can't be had
EPOCHS = setting('EPOCHS', 4 if on_cpu else 24)  # passes over the training images
WIDTH = setting('WIDTH', 0.25 if on_cpu else 1.0)  # factor on the filters of each layer
SEED = setting('SEED', 0)
MODEL_FILE = setting('MODEL_FILE', 'cifar10.keras')

# %% [markdown]
# ## Data
#
# CIFAR-10 is 60,000 photographs of 32 × 32 pixels in ten classes: 50,000 to train on, 10,000 to
# test on. The next cell looks for it on this machine and otherwise downloads it (170 MB); either
# way it is checked against known digests. Without a network it falls back on 1,797 handwritten
# digits, and says so.

# %%
import matplotlib.pyplot as plt
import numpy as np

dataset = fw.data.load(DATASET)
print(dataset)


def show(images, titles=None, columns=10):
    rows = -(-len(images) // columns)
    size = (1.2 * columns, 1.5 * rows)
    _, axes = plt.subplots(rows, columns, figsize=size, squeeze=False, layout='constrained')
    for axis in axes.flat:
        axis.axis('off')
    for n, (axis, image) in enumerate(zip(axes.flat, images, strict=False)):
        axis.imshow(np.clip(image / 255, 0, 1))
        axis.set_title(titles[n] if titles else '', fontsize=9)
    plt.show()


names = [dataset.class_names[label] for label in dataset.train_labels[:20]]
show(dataset.train_images[:20], names)

# %% [markdown]
# ## Augment
#
# A cat moved by a few pixels, or seen in a mirror, is still a cat. So the network never gets to see
# quite the same picture twice. Each image is
#
# - *normalised*: shifted and scaled so that each colour has mean 0 and standard deviation 1 over
#   the training images;
# - *cropped*: grown by 4 pixels on each side, mirrored at the border, and cut back to 32 × 32 at a
#   random place;
# - *flipped* left to right, or not, as a coin falls;
# - *cut out*: a random square of 8 × 8 pixels is blanked, so that no single detail decides.
#
# These are plain functions of images and a seed. During training they run on the device itself,
# inside the compiled loop, anew in each epoch. Below, each row is one image as five epochs might
# see it, after the original on the left.

# %%
from functools import partial

mean, std = fw.data.mean_std(dataset.train_images)
normalize = partial(fw.augment.normalize, mean=mean, std=std)
augment = fw.augment.compose(
    [
        partial(fw.augment.random_crop, padding=4),
        fw.augment.random_flip,
        partial(fw.augment.random_cutout, size=8),
    ]
)

originals = dataset.train_images[:4]
versions = [augment(normalize(originals), seed=(SEED, draw)) for draw in range(5)]
versions = [fw.augment.denormalize(images, mean, std) for images in versions]
show([images[n] for n in range(4) for images in (originals, *versions)], columns=6)

# %% [markdown]
# ## Model
#
# ResNet-9 has eight convolutions and a dense layer. Going down the table the image shrinks from 32
# × 32 to 4 × 4 while the number of filters grows; in two of the blocks two convolutions add their
# result to their input, which is what makes it a residual network. Batch norm after each
# convolution allows the high learning rates below. The last layer scales its output by 1/8, which
# keeps the network from being too sure of itself early on.

# %%
keras.utils.set_random_seed(SEED)
model = fw.models.resnet9(
    input_shape=dataset.image_shape,
    num_classes=dataset.num_classes,
    widths=[max(1, round(WIDTH * filters)) for filters in (64, 128, 256, 512)],
)
model.summary()

# %% [markdown]
# ## Loss
#
# Cross-entropy: minus the logarithm of the probability that the network gives to the right class. A
# network that knows nothing gives each of ten classes 1/10, which costs log 10 ≈ 2.3: that is about
# where the training begins.

# %%
loss = fw.losses.CrossEntropy()

# %% [markdown]
# ## Optimizer and schedule
#
# Stochastic gradient descent takes 512 images at a time, works out in which direction each weight
# should move to lower their loss, and takes a step. *Momentum* lets steps in a lasting direction
# build up; *weight decay* pulls all weights a little towards zero.
#
# How long the steps are is the *learning rate*. It rises in a straight line for the first fifth of
# the epochs, while large steps would still do harm, and falls in another to zero at the end, where
# small ones settle the details.

# %%
# The small sample gets smaller batches, so that an epoch still has steps enough, and
# proportionally smaller steps.
batch_size = 512 if len(dataset.train_images) >= 10_000 else 64
peak = 0.4 * batch_size / 512
steps_per_epoch = len(dataset.train_images) // batch_size
total_steps = EPOCHS * steps_per_epoch

schedule = fw.schedules.OneCycle(
    peak, total_steps=total_steps, warmup_steps=round(total_steps * 5 / 24)
)

steps = np.arange(total_steps + 1)
plt.figure(figsize=(8, 3))
plt.plot(steps / steps_per_epoch, schedule(steps))
plt.xlabel('epoch')
plt.ylabel('learning rate')
plt.show()

# %%
optimizer = fw.optimizers.SGD(schedule, momentum=0.9, nesterov=True, weight_decay=0.001)
if precision == 'float16':  # small gradients would vanish in it, unless they are scaled up
    optimizer = keras.optimizers.LossScaleOptimizer(optimizer)

# %% [markdown]
# ## Train
#
# Keras's own `fit` sends each batch to the device and waits. The `Trainer` puts all images on the
# device once, and then shuffles, augments and takes its steps there, in one compiled program: on a
# TPU or a GPU a whole epoch at a time, so the bar moves once an epoch. That program is compiled
# first, which takes a while.

# %%
trainer = fw.training.Trainer(
    model,
    optimizer,
    loss,
    batch_size=batch_size,
    normalize=normalize,
    augment=augment,
    seed=SEED,
)
history = trainer.fit(dataset.train_images, dataset.train_labels, EPOCHS)

# %%
_, (left, right) = plt.subplots(1, 2, figsize=(10, 3), layout='constrained')
left.plot(history.history['loss'], marker='.')
left.set(xlabel='epoch', ylabel='loss on the training images')
right.plot(history.history['accuracy'], marker='.')
right.set(xlabel='epoch', ylabel='accuracy on the training images')
plt.show()

# %% [markdown]
# ## Evaluate
#
# What counts is how the network does on images that it has not seen. These are not augmented.

# %%
score = trainer.evaluate(dataset.test_images, dataset.test_labels)
print(
    f'{100 * score.accuracy:.2f} % of the {len(dataset.test_images)} test images of '
    f'{dataset.name} are right, after {trainer.train_seconds:.1f} s of training '
    f'and {trainer.compile_seconds:.1f} s of compiling'
)

# %% [markdown]
# If you train again with another `SEED`, expect a slightly different number: for this network on
# CIFAR-10 [Page](https://myrtle.ai/learn/how-to-train-your-resnet-8-bag-of-tricks/) reported a
# standard deviation of 0.15 points from run to run, so single runs that differ by less say little.
#
# ## Save it and load it back
#
# The saved model should take pictures as they come, with pixels from 0 to 255, so the normalisation
# goes into it as a first layer. Whoever loads it needs Keras and `import fenwicks`, which makes its
# layers known. In Colab the file appears in the folder pane on the left, from where you can
# download it.

# %%
classifier = keras.Sequential(
    [
        keras.Input(dataset.image_shape),
        keras.layers.Normalization(
            mean=mean.tolist(), variance=np.square(std).tolist(), dtype='float32'
        ),
        model,
    ]
)
classifier.save(MODEL_FILE)

loaded = keras.models.load_model(MODEL_FILE)
logits = loaded.predict(dataset.test_images, batch_size=500, verbose=0)
guesses = logits.argmax(axis=1)
loaded_accuracy = np.mean(guesses == dataset.test_labels)
print(f'{MODEL_FILE}, loaded back, gets {100 * loaded_accuracy:.2f} % right')

captions = [
    dataset.class_names[guess] + ('' if guess == label else f',\nnot {dataset.class_names[label]}')
    for guess, label in zip(guesses[:20], dataset.test_labels[:20], strict=True)
]
show(dataset.test_images[:20], captions)

# %% [markdown]
# ## Where to go from here
#
# What you have just trained is `fenwicks24`, which also has batch norm of 64 images at a time, as
# eight devices do, or on a CPU a small edition of it. A *recipe* holds all such settings as data;
# the next cell prints three of them with their tricks and with what was published for them.
# `page10` gets by with 10 epochs; `speed94` is a smaller network with another
# optimizer, Muon, that held a speed record. To train one here, in at most `EPOCHS` epochs and at
# `WIDTH` of its width, write its name between the quotes of `RECIPE` and run the cell.

# %%
from fenwicks import recipes
from fenwicks.assemble import build_trainer, views

for name in ('fenwicks24', 'page10', 'speed94'):
    print(f'{name}: {recipes.get(name).epochs} epochs. {recipes.PRESETS[name].source}')
    for trick in recipes.PRESETS[name].tricks:
        print(f'    {trick}: {recipes.TRICKS[trick].summary}')

RECIPE = setting('RECIPE', '')

if RECIPE:
    recipe = recipes.get(RECIPE).with_width(WIDTH)
    recipe = recipe.with_epochs(min(recipe.epochs, EPOCHS))
    if dataset.name == 'digits':
        recipe = recipe.for_small_data()
    fast = build_trainer(recipe, dataset, precision=precision, seed=SEED)
    fast.fit(dataset.train_images, dataset.train_labels, recipe.epochs)
    fast_score = fast.evaluate(dataset.test_images, dataset.test_labels, tta=views(recipe))
    print(
        f'{RECIPE}: {100 * fast_score.accuracy:.2f} % right, '
        f'after {fast.train_seconds:.1f} s of training'
    )

# %% [markdown]
# Everything in this notebook also works on its own, in your Keras projects: the layers, the loss,
# the schedules and the optimizer in plain `compile` and `fit`, the augmentations in `tf.data`. The
# [README](https://github.com/fenwicks/fenwicks#readme) shows how, says where each step lives, and
# lists the measured results.
