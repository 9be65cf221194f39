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
# imported. The last lines that it prints say where and when the outputs below were made.

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
    needed = ('absl', 'google_crc32c', 'keras', 'matplotlib', 'PIL', 'safetensors', 'simplejpeg')
    if not all(map(has, (*needed, 'tqdm'))):
        return True
    if not has('jax') and not has('tensorflow'):
        return True
    package = importlib.util.find_spec('fenwicks')
    if package is None or package.origin is None:  # None for a mere folder of that name
        return True
    return tuple(map(int, metadata.version('keras').split('.')[:2])) != (3, 15)


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
            [*pip, f'fenwicks{extra} @ {SOURCE}', 'matplotlib', 'safetensors'],
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
os.environ.setdefault('FENWICKS_QUIET', '1')  # without TensorFlow's notes on its own start
if 'KERAS_BACKEND' not in os.environ:
    os.environ['KERAS_BACKEND'] = best_backend()

import fenwicks as fw

device = fw.devices.select_device('auto')
precision = fw.precision.set_precision('auto', device)

import keras

about = fw.hardware.provenance()
version = f'commit {about["commit"][:12]}' if about['commit'] else f'fenwicks {fw.__version__}'
if about['clean'] is False:
    version += ' with changes'
print(f'Keras {keras.__version__} on {keras.backend.backend()}, {device}, {precision}')
print(f'{about["date"]}, {fw.hardware.describe(device)}, {version}')

# %% [markdown]
# ## Settings
#
# These are the knobs of the original tutorial. Change what you like, then *Runtime > Run after*
# (or run all cells again). 0 in the last two stands for what suits the runtime: 24 epochs of the
# whole network on a TPU or a GPU; 8 epochs of a quarter of its width on a CPU, which takes some
# minutes.

# %% cellView="form"
# @title Settings
DATASET = 'auto'  # @param ["auto", "cifar10", "cifar100", "digits"]
BATCH_SIZE = 512  # @param {type: "integer"}
MOMENTUM = 0.9  # @param {type: "number"}
WEIGHT_DECAY = 0.001  # @param {type: "number"}
PEAK_RATE = 0.4  # @param {type: "number"}
WARMUP_SHARE = 0.2083  # @param {type: "number"}
SEED = 0  # @param {type: "integer"}
EPOCHS = 0  # @param {type: "integer"}
WIDTH = 0.0  # @param {type: "number"}


def setting(name, chosen):
    """The form's choice, unless the environment has another, as in this notebook's tests."""
    return type(chosen)(os.environ.get(f'FENWICKS_{name}', chosen))


on_cpu = device == 'cpu'
DATASET = setting('DATASET', DATASET)
EPOCHS = setting('EPOCHS', EPOCHS) or (8 if on_cpu else 24)
WIDTH = setting('WIDTH', WIDTH) or (0.25 if on_cpu else 1.0)
print(f'{EPOCHS} epochs of {WIDTH:g} of the width, peak learning rate {PEAK_RATE}')

# %% [markdown]
# ## Data
#
# CIFAR-10 is 60,000 photographs of 32 × 32 pixels in ten classes: 50,000 to train on, 10,000 to
# test on. The next cell looks for it on this machine and otherwise downloads it (170 MB); either
# way it is checked against known digests. Without a network it falls back on 1,797 handwritten
# digits, and says so.

# %%
dataset = fw.data.load(DATASET)
print(dataset)
fw.plots.images(
    dataset.train_images[:20],
    [dataset.class_names[label] for label in dataset.train_labels[:20]],
    columns=10,
)

# %% [markdown]
# Does each class have its share of the images? Where one is rare, a network does well by never
# naming it.

# %%
fw.plots.class_counts(dataset.train_labels, dataset.class_names)

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
fw.plots.augmentation(dataset.train_images[:4], augment, mean, std, versions=5, seed=(SEED, 0))

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
# Stochastic gradient descent takes a batch of images at a time, works out in which direction each
# weight should move to lower their loss, and takes a step. *Momentum* lets steps in a lasting
# direction build up; *weight decay* pulls all weights a little towards zero.
#
# How long the steps are is the *learning rate*. It rises in a straight line for the first fifth of
# the epochs, while large steps would still do harm, and falls in another to zero at the end, where
# small ones settle the details.

# %%
# The small sample gets smaller batches, so that an epoch still has steps enough, and
# proportionally smaller steps.
batch_size = BATCH_SIZE if len(dataset.train_images) >= 10_000 else min(64, BATCH_SIZE)
peak = PEAK_RATE * batch_size / BATCH_SIZE
steps_per_epoch = len(dataset.train_images) // batch_size
total_steps = EPOCHS * steps_per_epoch
schedule = fw.schedules.OneCycle(
    peak, total_steps=total_steps, warmup_steps=round(total_steps * WARMUP_SHARE)
)
fw.plots.schedule(schedule, total_steps, steps_per_epoch)

# %%
optimizer = fw.optimizers.SGD(schedule, momentum=MOMENTUM, nesterov=True, weight_decay=WEIGHT_DECAY)
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

# %% [markdown]
# Is the peak of the learning rate well chosen? The *learning-rate finder* takes a hundred steps,
# each at a greater rate than the one before, and then puts everything back. A good peak lies where
# the loss still falls, some way before it explodes. What it suggests is a hint, not a law: with
# warm-up, higher rates go well too.

# %%
found = fw.diagnostics.find_learning_rate(trainer, dataset.train_images, dataset.train_labels)
print(found.reason)
fw.plots.learning_rate_finder(
    found.learning_rates, found.smoothed, found.suggestion, measured=found.losses
)

# %% [markdown]
# Now the training itself. The line of each epoch has loss and accuracy on the test images as
# `val_loss` and `val_accuracy`.

# %%
history = trainer.fit(
    dataset.train_images,
    dataset.train_labels,
    EPOCHS,
    validation_data=(dataset.test_images, dataset.test_labels),
)

# %% [markdown]
# ## How it went
#
# The accuracy on training images is taken *while* the network learns, on augmented images, which
# are harder: so it may lie below that on the test images, which are not augmented. Once the curve
# of the test images stops rising while the other still does, the network only learns its training
# images by heart.

# %%
# Keras calls `validation` what are the test images here.
records = [
    {name.replace('val_', 'test_'): value for name, value in record.items()}
    for record in trainer.records
]
fw.plots.learning_curves(records, ['train_accuracy', 'test_accuracy'])

# %%
fw.plots.learning_curves(records, ['train_loss', 'test_loss'])

# %% [markdown]
# ## Evaluate
#
# What counts is how the network does on images that it has not seen.

# %%
logits = trainer.predict(dataset.test_images)
score = fw.evaluate.metrics(logits, dataset.test_labels)
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
# Which classes does it take for which? Each row is a true class, each column what the network says.
# The diagonal is right; cats and dogs are the usual trouble.

# %%
fw.plots.confusion_matrix(dataset.test_labels, logits.argmax(axis=1), dataset.class_names)

# %% [markdown]
# And its worst mistakes: those of which it was surest. Some of them are labels that people argue
# about; others show what it looks at instead of the thing itself.

# %%
fw.plots.mistakes(dataset.test_images, dataset.test_labels, logits, dataset.class_names, count=12)

# %% [markdown]
# ## Save it and load it back
#
# The saved model should take pictures as they come, with pixels from 0 to 255, so the normalisation
# goes into it as a first layer, and the names of the classes as the last. Whoever loads it needs
# Keras and `import fenwicks`, which makes its layers known.

# %%
MODEL_FILE = setting('MODEL_FILE', 'cifar10.keras')
classifier = fw.assemble.with_normalization(
    trainer.model, mean, std, class_names=dataset.class_names
)
classifier.save(MODEL_FILE)

loaded = keras.models.load_model(MODEL_FILE)
_, loaded_accuracy = loaded.evaluate(dataset.test_images, dataset.test_labels, verbose=0)
print(f'{MODEL_FILE}, loaded back, gets {100 * loaded_accuracy:.2f} % right')

# %% [markdown]
# ## Try your own picture
#
# In Colab, tick `UPLOAD` and choose a file; elsewhere write the name of one into `PICTURE`. Of each
# picture the middle square is taken and shrunk to what the network saw. Without either, the first
# test image stands in. The network knows only its classes: show it a face, and it will name one of
# them all the same.

# %% cellView="form"
# @title Try your own picture
UPLOAD = False  # @param {type: "boolean"}
PICTURE = ''  # @param {type: "string"}

from fenwicks.data.images import decode_image

PICTURE = setting('PICTURE', PICTURE)
if UPLOAD and 'google.colab' in sys.modules:
    from google.colab import files

    PICTURE = next(iter(files.upload()), '')
if PICTURE:
    picture = decode_image(PICTURE, dataset.image_shape[:2])
else:
    picture = dataset.test_images[0]
(shares,) = fw.evaluate.probabilities(loaded.predict(picture[None], verbose=0))
best = shares.argsort()[::-1][:3]
answer = '\n'.join(f'{dataset.class_names[n]} {100 * shares[n]:.1f} %' for n in best)
print(answer)
fw.plots.images(picture[None], [answer])

# %% [markdown]
# ## Export and download
#
# Other runtimes need no Keras: a SavedModel runs in TensorFlow and its Serving, LiteRT on phones,
# ONNX nearly everywhere, and `safetensors` holds the weights alone. What the runtime lacks for a
# format is said in a line. In Colab, tick `DOWNLOAD`; the files also appear in the folder pane.

# %% cellView="form"
# @title Export and download
EXPORT = 'safetensors'  # @param ["saved_model", "litert", "onnx", "safetensors"]
DOWNLOAD = False  # @param {type: "boolean"}

EXPORT = setting('EXPORT', EXPORT)
try:
    exported = fw.export.write(classifier, pathlib.Path(MODEL_FILE).parent, [EXPORT])
except (ImportError, ValueError) as error:
    exported = []
    print(error)
for path in exported:
    print(path)
if DOWNLOAD and 'google.colab' in sys.modules:
    from google.colab import files

    for path in [MODEL_FILE, *(path for path in exported if path.is_file())]:
        files.download(str(path))

# %% [markdown]
# ## Now change this
#
# Guess first, then change one thing in the settings, run all cells again, and see whether you were
# right:
#
# 1. `PEAK_RATE` ten times as high, and a tenth. Which is worse, and what does the curve of the loss
#    look like?
# 2. `WARMUP_SHARE = 0`. Does the first epoch still learn anything?
# 3. Take `random_flip` out of the augmentation. Which classes suffer on CIFAR-10, and why is it
#    different for digits?
# 4. Twice the `EPOCHS`, or twice the `WIDTH`: which buys more accuracy for the time?
# 5. Train twice with different `SEED`s. How much of what you saw above was luck?
#
# Then let a *recipe* do it: it holds all such settings as data. `fenwicks24` is what you have just
# trained (on a CPU, a small edition of it), but normalizes batches in groups of 64 images, as eight
# devices do. `page10` gets by with 10 epochs; `speed94` is a smaller network with another
# optimizer, Muon, that held a speed record. To train one here, in at most `EPOCHS` epochs and at
# `WIDTH` of its width, choose it and run the cell.

# %% cellView="form"
# @title Train another recipe
RECIPE = ''  # @param ["", "fenwicks24", "page10", "speed94"]

from fenwicks import recipes

for name in ('fenwicks24', 'page10', 'speed94'):
    print(f'{name}: {recipes.get(name).epochs} epochs. {recipes.PRESETS[name].source}')
    for trick in recipes.PRESETS[name].tricks:
        print(f'    {trick}: {recipes.TRICKS[trick].summary}')

RECIPE = setting('RECIPE', RECIPE)
if RECIPE:
    recipe = recipes.get(RECIPE).with_width(WIDTH)
    recipe = recipe.with_epochs(min(recipe.epochs, EPOCHS))
    if dataset.name == 'digits':
        recipe = recipe.for_small_data()
    fast = fw.assemble.build_trainer(recipe, dataset, precision=precision, seed=SEED)
    fast.fit(dataset.train_images, dataset.train_labels, recipe.epochs)
    views = fw.assemble.views(recipe)
    fast_score = fast.evaluate(dataset.test_images, dataset.test_labels, tta=views)
    print(
        f'{RECIPE}: {100 * fast_score.accuracy:.2f} % right, '
        f'after {fast.train_seconds:.1f} s of training'
    )

# %% [markdown]
# Your own images: [the other
# notebook](https://colab.research.google.com/github/fenwicks/fenwicks/blob/main/colab/your_images.ipynb)
# goes from a folder of pictures to a trained and exported model. Everything in this one also works
# on its own, in your Keras projects: the layers, the loss, the schedules and the optimizer in plain
# `compile` and `fit`, the augmentations in `tf.data`. The
# [README](https://github.com/fenwicks/fenwicks#readme) shows how, says where each step lives, and
# lists the measured results.
