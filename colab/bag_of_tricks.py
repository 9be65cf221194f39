# ---
# jupyter:
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
# # A bag of tricks
#
# Nine tricks took the training of David Page's network for CIFAR-10 from 75 seconds on a V100 GPU
# to 26, at 94 % of the test images: his
# [bag of tricks](https://myrtle.ai/learn/how-to-train-your-resnet-8-bag-of-tricks/). A tenth comes
# from a later record. Here you see what each of them does, as a picture, and read what it is worth.
# A whole training, step by step, is in the notebook `cifar10_in_two_minutes`.
#
# **To start,** choose *Runtime > Run all*. A CPU is enough: one short training of a narrow network
# is all that is trained here.

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
# ## What a trick is worth
#
# Page added the tricks one after the other; *published* is what he, or the source of a later one,
# reported. *Here* is what the runs of this project's ablations say: one trick added to `page24`,
# which has none, or removed from `page10`, which has all of Page's; or, in whole trainings on a
# GPU, removed from `speed94`. ± is two standard errors, and a difference in parentheses is smaller
# than that: the runs do not show that there is one.
#
# <!-- table: measured -->
# Measured from `page24` 71.47 ± 3.20 % and `page10` 70.31 ± 3.20 %: cifar10, the first 12,800
# images, 8 epochs, 0.25 of the width, float32, tensorflow, AMD EPYC (avx512_bf16), 2 cores.
# <!-- end of table -->
#
# So the runs of `page24` and `page10` are small, and their errors large beside the tenths of a
# point that Page resolved with 50 runs of a wide network for each. They cannot confirm his numbers;
# they say what stands out in a short training.

# %% cellView="form"
# @title Settings
DATASET = 'auto'  # @param ["auto", "cifar10", "cifar100", "digits"]
SEED = 0  # @param {type: "integer"}
EPOCHS = 0  # @param {type: "integer"}
WIDTH = 0.0  # @param {type: "number"}

from functools import partial

import matplotlib.pyplot as plt
import numpy as np

from fenwicks import layers


def setting(name, chosen):
    """The form's choice, unless the environment has another, as in this notebook's tests."""
    return type(chosen)(os.environ.get(f'FENWICKS_{name}', chosen))


def panels(count, width=3.2, height=2.8):
    """Panels side by side."""
    return plt.subplots(1, count, figsize=(width * count, height), layout='constrained')[1]


def numbers(tensor):
    """A tensor as a NumPy array."""
    return keras.ops.convert_to_numpy(tensor)


fw.precision.set_precision('float32')  # all is small here
dataset = fw.data.load(setting('DATASET', DATASET))
mean, std = fw.data.mean_std(dataset.train_images)
normalize = partial(fw.augment.normalize, mean=mean, std=std)
images = numbers(normalize(dataset.train_images[:512]))
names = dataset.class_names
print(dataset)

# %% [markdown]
# ## 1. Augmentation in groups
#
# A random crop, flip or cutout for each single image is slow where images are moved one by one.
# Page kept the data set on the device and let a *group* of images share its random choice: at most
# 200 choices of each kind an epoch. `fw.augment.in_groups` forms new groups in each epoch, so that
# a batch still holds many choices. In the picture twelve images have two groups, for the sake of
# seeing it: those with the same part blanked share a group.
#
# <!-- table: worth_group_augmentation -->
# *Published:* 75 s to 70 s, at 94.1 %. *Here, added to `page24`:* (+0.45 ± 4.52) points, n=3,
# unresolved. *Here, removed from `page10`:* (-1.70 ± 4.52) points, n=3, unresolved.
# <!-- end of table -->

# %%
in_groups = fw.augment.in_groups(partial(fw.augment.random_cutout, size=images.shape[1] // 3), 2)
alike = in_groups(images[:12], (SEED, 0), 0, np.arange(12), (SEED, 2))
fw.plots.images(fw.augment.denormalize(alike, mean, std), columns=12)

# %% [markdown]
# ## 2. Max pooling before batch norm
#
# A convolution, batch norm, ReLU, then max pooling: of four activations three are thrown away.
# Pooling right after the convolution leaves a quarter of them to normalize and to activate. Where
# the scale of the norm is negative, the results differ: pooling first takes the maximum where the
# other order would have taken the minimum. Below, one channel of a convolution of one image, whose
# scale is negative: as it is, then in the old order and in the new one. High values are black; each
# panel has greys of its own.
#
# <!-- table: worth_pool_first -->
# *Published:* 70 s to 64 s, for 0.1 points or one more epoch. *Here, added to `page24`:* (+1.25 ±
# 4.52) points, n=3, unresolved. *Here, removed from `page10`:* (-2.33 ± 4.52) points, n=3,
# unresolved.
# <!-- end of table -->

# %%
keras.utils.set_random_seed(SEED)
convolved = layers.Conv2D(8, 3, padding='same')(images[:64])
negative = keras.initializers.Constant(-1.0)
norm = layers.BatchNormalization(gamma_initializer=negative)
pool = layers.MaxPooling2D(2)
as_before = pool(keras.ops.relu(norm(convolved, training=True)))
pooled = pool(convolved)
pool_first = keras.ops.relu(norm(pooled, training=True))
maps = {
    f'before the norm: {convolved.shape[1]} x {convolved.shape[2]}': convolved,
    'norm, ReLU, pool': as_before,
    f'pool ({pooled.shape[1]} x {pooled.shape[2]}), norm, ReLU': pool_first,
}
axes = panels(3)
for each, (title, values) in zip(axes, maps.items(), strict=True):
    each.imshow(numbers(values)[0, :, :, 0], cmap='Greys')
    each.set_title(title, fontsize=9)
    each.set_axis_off()
plt.show()

# %% [markdown]
# ## 3. Label smoothing
#
# The loss no longer asks for certainty: of the target, a fifth is spread evenly over all classes.
#
# ```
# loss = 0.8 * cross_entropy(label) + 0.2 * mean over the classes of -log(probability)
# ```
#
# <!-- table: worth_label_smoothing -->
# *Published:* 94.2 % in 25 epochs, enough for 23. *Here, added to `page24`:* (+1.30 ± 4.52)
# points, n=3, unresolved. *Here, removed from `page10`:* -9.45 ± 4.52 points, n=3.
# <!-- end of table -->

# %%
hard = np.eye(len(names))[dataset.train_labels[0]]
smooth = 0.8 * hard + 0.2 / len(names)
logits = np.linspace(0, 12, 49)[:, None] * hard  # ever more certain of the right class
losses = {
    smoothing: [
        float(
            fw.losses.CrossEntropy(label_smoothing=smoothing)(dataset.train_labels[:1], row[None])
        )
        for row in logits.astype('float32')
    ]
    for smoothing in (0.0, 0.2)
}
left, right = panels(2, width=4)
places = np.arange(len(names))
left.bar(places - 0.2, hard, 0.4, color='0.75', label='as it was')
left.bar(places + 0.2, smooth, 0.4, color='0.2', label='smoothed')
left.set_xticks(places, names, rotation=60, fontsize=7)
left.set_ylabel('target')
left.legend(fontsize=8)
for (smoothing, values), line in zip(losses.items(), ('--', '-'), strict=True):
    right.plot(logits.max(axis=1), values, f'k{line}', label=f'smoothing {smoothing:g}')
right.set(xlabel='logit of the right class, all others 0', ylabel='loss')
right.legend(fontsize=8)
plt.show()

# %% [markdown]
# The smoothed loss has a minimum: beyond it more certainty costs.
#
# ## 4. CELU
#
# ```
# celu(x) = max(0, x) + min(0, alpha * (exp(x / alpha) - 1))
# ```
#
# ReLU has a kink at 0; CELU bends there, and its gradient for negative numbers isn't 0 at once. The
# smaller alpha, the nearer it is to ReLU.
#
# <!-- table: worth_celu -->
# *Published:* 94.3 % in 23 epochs, enough for 20. *Here, added to `page24`:* (+0.23 ± 4.52)
# points, n=3, unresolved. *Here, removed from `page10`:* -6.57 ± 4.52 points, n=3.
# <!-- end of table -->

# %%
x = np.linspace(-1, 1, 201).astype('float32')
left, right = panels(2, width=4)
for alpha, line in ((0.0, ':'), (0.075, '-'), (0.3, '--')):
    y = np.maximum(x, 0) if not alpha else numbers(layers.CELU(alpha)(x))
    label = f'CELU, alpha {alpha:g}' if alpha else 'ReLU'
    left.plot(x, y, f'k{line}', label=label)
    right.plot(x, np.gradient(y, x), f'k{line}', label=label)
left.set(xlabel='x', ylabel='activation')
right.set(xlabel='x', ylabel='slope')
left.legend(fontsize=8)
plt.show()

# %% [markdown]
# ## 5. Ghost batch norm
#
# Batch norm over a large batch knows mean and variance well. Over groups of 32 images they are
# noisier, and that noise regularises. Each point is a group's mean and deviation of one channel;
# the cross is that of the whole batch. `layers.GhostBatchNormalization(32)` normalizes each image
# by its own group.
#
# <!-- table: worth_ghost_batch_norm -->
# *Published:* 94.2 % in 20 epochs, enough for 18. *Here, added to `page24`:* (+0.83 ± 4.52)
# points, n=3, unresolved. *Here, removed from `page10`:* (-1.70 ± 4.52) points, n=3, unresolved.
# <!-- end of table -->

# %%
channel = images[..., 0]
groups = channel.reshape(len(channel) // 32, -1)
left, right = panels(2, width=4)
left.plot(groups.mean(axis=1), groups.std(axis=1), 'ko', markerfacecolor='white', label='32 images')
left.plot(channel.mean(), channel.std(), 'kX', markersize=10, label=f'{len(channel)} images')
left.set(xlabel='mean of a channel', ylabel='its deviation')
left.legend(fontsize=8)
both = {
    'the batch': layers.BatchNormalization(),
    'its group': layers.GhostBatchNormalization(32),
}
for (label, layer), line in zip(both.items(), ('--', '-'), strict=True):
    normalized = numbers(layer(images, training=True))[:32].mean(axis=(1, 2, 3))
    right.plot(normalized, f'k{line}', label=f'normalized by {label}')
right.set(xlabel='image of the first group', ylabel='its mean')
right.legend(fontsize=8)
plt.show()

# %% [markdown]
# ## A short training, for the next tricks
#
# A narrow network on a part of the images, with batch norm's scales trained, and with an average of
# its weights beside them. 0 epochs stands for 6, a width of 0 for an eighth.

# %%
EPOCHS = setting('EPOCHS', EPOCHS) or 6
WIDTH = setting('WIDTH', WIDTH) or 0.125
small = dataset.limit(min(6400, len(dataset.train_images)))
batch_size = 128 if len(small.train_images) >= 6400 else 32
steps_per_epoch = len(small.train_images) // batch_size
keras.utils.set_random_seed(SEED)
model = fw.models.resnet9(
    dataset.image_shape,
    dataset.num_classes,
    widths=[max(1, round(WIDTH * filters)) for filters in (64, 128, 256, 512)],
)
trainer = fw.training.Trainer(
    model,
    fw.optimizers.SGD(0.1, momentum=0.9, nesterov=True, weight_decay=5e-4),
    batch_size=batch_size,
    normalize=normalize,
    augment=fw.augment.compose(
        [partial(fw.augment.random_crop, padding=4), fw.augment.random_flip]
    ),
    averaging=fw.optimizers.EMA(1 - 1 / steps_per_epoch),
    seed=SEED,
)
test_images, test_labels = dataset.test_images[:2000], dataset.test_labels[:2000]
now, averaged = [], []
for epoch in range(1, EPOCHS + 1):
    trainer.fit(small.train_images, small.train_labels, epoch, verbose=0)
    averaged.append(trainer.evaluate(test_images, test_labels).accuracy)
    logits = trainer.model.predict(numbers(normalize(test_images)), verbose=0)
    now.append(fw.evaluate.metrics(logits, test_labels).accuracy)
print(f'{EPOCHS} epochs of {len(small.train_images)} images, {trainer.train_seconds:.0f} s')

# %% [markdown]
# ## 6. Frozen scales
#
# After a few epochs, where have batch norm's scales gone from 1? Each point is one channel, layer
# by layer. Page fixed them at 1 and trained the offsets alone: at 64 times the learning rate, with
# 1/64 of the decay, CELU's alpha at 0.3 and the logits times 1/16.
#
# <!-- table: worth_frozen_scales -->
# *Published:* 94.2 % in 18 epochs, enough for 17. *Here, removed from `speed94`:* -0.46 ± 0.11
# points, n=6. *Here, added to `page24`:* (-3.34 ± 4.52) points, n=3, unresolved. *Here, removed
# from `page10`:* (+3.48 ± 4.52) points, n=3, unresolved.
# <!-- end of table -->

# %%
scales = [v for v in trainer.model.trainable_variables if v.path.endswith('gamma')]
axes = panels(1, width=6.4)
for place, scale in enumerate(map(numbers, scales), 1):
    axes.plot(np.full(len(scale), place), scale, 'ko', markersize=4, markerfacecolor='white')
axes.axhline(1, color='0.5', linestyle='--')
axes.set(xlabel='layer', ylabel='scale of a channel', ylim=(0, None))
plt.show()

# %% [markdown]
# ## 7. Whitening of patches
#
# Neighbouring pixels are alike, and so the inputs of the first convolution are strongly correlated,
# which makes gradient descent slow. The first layer is fixed: its filters are the eigenvectors of
# the patches' covariance over the roots of its eigenvalues, so that its outputs are not correlated.
# Below, the filters, from the most common pattern to the rarest.
#
# <!-- table: worth_whitening -->
# *Published:* 94.4 % in 17 epochs, enough for 14 at a higher rate and less cutout. *Here, added
# to `page24`:* (+2.70 ± 4.52) points, n=3, unresolved. *Here, removed from `page10`:* -5.78 ±
# 4.52 points, n=3.
# <!-- end of table -->

# %%
kernel = layers.whitening_filters(images[:200], kernel_size=3)
fw.plots.filters(kernel, columns=9)

# %% [markdown]
# And the correlations, in absolute value, of 27 numbers of a patch before it and of 27 outputs
# behind it. Black is 1.

# %%
patches = np.lib.stride_tricks.sliding_window_view(images[:200], (3, 3), axis=(1, 2))
before = patches.transpose(0, 1, 2, 4, 5, 3).reshape(-1, 27)
after = before @ kernel.reshape(27, 27)
axes = panels(2)
for each, values, title in zip(axes, (before, after), ('pixels', 'whitened'), strict=True):
    moments = values.T @ values / len(values)
    sizes = np.sqrt(np.diag(moments)) + 1e-6
    each.imshow(np.abs(moments) / np.outer(sizes, sizes), cmap='Greys', vmin=0, vmax=1)
    each.set_title(title, fontsize=9)
    each.set_axis_off()
plt.show()

# %% [markdown]
# ## 8. An average of the weights
#
# With a high learning rate the weights jump around a good place. An exponential moving average of
# them lies nearer to it. It needs steps enough to average over: in a training that is nearly over
# before the average has forgotten its beginning, it only lags. So it does in the runs of
# the ablation, of 200 steps with an average over 100. In the picture the rate stays high and the
# average is over an epoch: an old one is soon forgotten, and it leads.
#
# <!-- table: worth_ema -->
# *Published:* 94.3 % in 14 epochs, enough for 13. *Here, added to `page24`:* -4.65 ± 4.52 points,
# n=3. *Here, removed from `page10`:* +8.92 ± 4.52 points, n=3.
# <!-- end of table -->

# %%
axes = panels(1, width=6.4)
epochs = range(1, EPOCHS + 1)
axes.plot(epochs, [100 * value for value in now], 'k--o', markerfacecolor='white', label='weights')
axes.plot(epochs, [100 * value for value in averaged], 'k-s', label='their average')
axes.set(xlabel='epoch', ylabel='test accuracy, %', xticks=epochs)
axes.legend(fontsize=8)
plt.show()

# %% [markdown]
# ## 9. Flip at test time
#
# A mirrored cat is a cat; the network's answers to the two differ a little all the same. The mean
# of both logits errs less often than one of them, though not in each small sample: of
# 2,000 images the share of right answers is known to about a point. Here the image on which the two
# differ most.
#
# <!-- table: worth_flip_tta -->
# *Published:* 94.6 % in 13 epochs, enough for 10. *Here, added to `page24`:* (+0.91 ± 4.52)
# points, n=3, unresolved. *Here, removed from `page10`:* (-0.45 ± 4.52) points, n=3, unresolved.
# <!-- end of table -->

# %%
pair = [
    trainer.model.predict(np.ascontiguousarray(view), verbose=0)
    for view in (numbers(normalize(test_images)), numbers(normalize(test_images))[:, :, ::-1])
]
both = [fw.evaluate.probabilities(logits) for logits in (*pair, (pair[0] + pair[1]) / 2)]
place = int(np.abs(both[0] - both[1]).sum(axis=1).argmax())
left, middle, right = panels(3, width=3)
for axes, picture in ((left, test_images[place]), (middle, test_images[place][:, ::-1])):
    axes.imshow(picture.squeeze(), cmap='gray')
    axes.set_axis_off()
    axes.set_title(names[test_labels[place]], fontsize=9)
for values, color, label, shift in zip(
    both, ('0.8', '0.5', '0'), ('image', 'mirror', 'mean'), (-0.27, 0, 0.27), strict=True
):
    right.bar(places + shift, values[place], 0.27, color=color, label=label)
right.set_xticks(places, names, rotation=60, fontsize=7)
right.set_ylabel('probability')
right.legend(fontsize=8)
plt.show()

# %%
for label, values in zip(('image', 'mirror', 'mean of both'), both, strict=True):
    print(f'{label}: {100 * (values.argmax(axis=1) == test_labels).mean():.2f} % right')

# %% [markdown]
# ## 10. Alternating flip
#
# From a later record, of Keller Jordan: a random flip shows half of the images the same way in two
# epochs that follow each other. If each is mirrored in every second epoch, none. Each row is one
# image, each column an epoch; random above, alternating below.
#
# <!-- table: worth_alternating_flip -->
# *Published:* part of a record, not separately. *Here, removed from `speed94`:* (-0.07 ± 0.11)
# points, n=6, unresolved. *Here, added to `page24`:* (+1.20 ± 4.52) points, n=3, unresolved.
# <!-- end of table -->

# %%
fw.plots.augmentation(
    dataset.train_images[:3], fw.augment.random_flip, mean, std, versions=6, seed=(SEED, 0)
)

# %%
fw.plots.augmentation(
    dataset.train_images[:3], fw.augment.alternating_flip, mean, std, versions=6, seed=(SEED, 0)
)

# %% [markdown]
# ## All of them
#
# `page10` is Page's recipe with all nine of his tricks; `speed94`, another network, reaches 94 % on
# two CPU cores, with the alternating flip among its own tricks. `python examples/cifar10.py
# --recipe=page10 --without=whitening` trains without one of them, and `examples/ablation.py`
# measures what each is worth on your machine.

# %%
print(', '.join(fw.recipes.PRESETS['page10'].tricks))
print(fw.recipes.get('page10'))
