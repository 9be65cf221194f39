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
# # Your images
#
# From a folder of pictures to a network that tells them apart, saved and exported. You need a
# folder for each class, named after it, with a few dozen pictures or more in each:
#
# ```
# pictures/
#     cat/     1.jpg  2.jpg  ...
#     dog/     a.png  b.png  ...
# ```
#
# **To start,** choose a TPU, a GPU or a CPU under *Runtime > Change runtime type*, then *Runtime >
# Run all*. Without pictures of yours the notebook draws some, so that you can look first.

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
# ## Your pictures
#
# `SOURCE_KIND` says where they are:
#
# - `generated`: circles, squares and triangles, drawn below;
# - `folder`: the path in `FOLDER`, on this machine;
# - `upload`: a zip file of the folder, which Colab asks for;
# - `drive`: a folder of your Google Drive: `FOLDER` is its path below *My Drive*.

# %% cellView="form"
# @title Your pictures
SOURCE_KIND = 'generated'  # @param ["generated", "folder", "upload", "drive"]
FOLDER = 'pictures'  # @param {type: "string"}
IMAGE_SIZE = 32  # @param {type: "integer"}
VALIDATION_SHARE = 0.2  # @param {type: "number"}
SEED = 0  # @param {type: "integer"}


def setting(name, chosen):
    """The form's choice, unless the environment has another, as in this notebook's tests."""
    return type(chosen)(os.environ.get(f'FENWICKS_{name}', chosen))


FOLDER = pathlib.Path(setting('FOLDER', FOLDER)).expanduser()


def draw_pictures(folder, of_each=120):
    """Draws circles, squares and triangles of random colours, sizes and places."""
    import numpy as np
    from PIL import Image, ImageDraw

    rng = np.random.default_rng(SEED)
    for kind in ('circle', 'square', 'triangle'):
        (folder / kind).mkdir(parents=True, exist_ok=True)
        for number in range(of_each):
            paper, ink = (tuple(rng.integers(0, 256, 3).tolist()) for _ in range(2))
            image = Image.new('RGB', (64, 48), paper)
            x, y, radius = rng.integers(18, 46), rng.integers(16, 32), rng.integers(8, 15)
            box = [int(x - radius), int(y - radius), int(x + radius), int(y + radius)]
            pen = ImageDraw.Draw(image)
            if kind == 'circle':
                pen.ellipse(box, fill=ink)
            elif kind == 'square':
                pen.rectangle(box, fill=ink)
            else:
                pen.polygon([(box[0], box[3]), (box[2], box[3]), (int(x), box[1])], fill=ink)
            image.save(folder / kind / f'{number}.png')


if SOURCE_KIND == 'upload':
    import zipfile

    from google.colab import files

    uploaded, *others = files.upload() or ['']
    if others or not zipfile.is_zipfile(uploaded):
        received = ', '.join([uploaded, *others]) or 'none'
        raise ValueError(f'choose one zip file. Received: {received}')
    FOLDER = FOLDER.with_name('uploaded') / pathlib.Path(uploaded).stem
    if FOLDER.exists():
        raise FileExistsError(f'{FOLDER} is there already: remove it, or rename the zip file')
    zipfile.ZipFile(uploaded).extractall(FOLDER)
elif SOURCE_KIND == 'drive':
    from google.colab import drive

    drive.mount('/content/drive')
    FOLDER = pathlib.Path('/content/drive/MyDrive') / FOLDER
elif SOURCE_KIND == 'generated':
    FOLDER = FOLDER.with_name(f'generated_{FOLDER.name}')  # never among pictures of yours
    draw_pictures(FOLDER)

# A zip file often holds one folder that holds those of the classes.
hidden = ('.', '__MACOSX')
inside = [x for x in FOLDER.iterdir() if x.is_dir() and not x.name.startswith(hidden)]
if len(inside) == 1:
    FOLDER = inside[0]
photos = fw.data.ImageList.from_folders(FOLDER)
print(photos)

# %% [markdown]
# ## Look at them first
#
# Most trouble with a network is trouble with its pictures: damaged files, the same picture twice,
# a class with hardly any. The report names what it finds.

# %%
report = fw.data.check_images(photos, show_progress=False)
print(report)

# %%
images = fw.data.decode_images(
    photos, (IMAGE_SIZE, IMAGE_SIZE), skip_damaged=True, show_progress=False
)
train, test = fw.data.train_validation_split(
    len(images), VALIDATION_SHARE, SEED, labels=images.labels
)
dataset = images.dataset(train, test)
print(dataset)
every = max(1, len(dataset.train_images) // 20)  # they are sorted by class
shown, labels = dataset.train_images[::every][:20], dataset.train_labels[::every][:20]
fw.plots.images(shown, [dataset.class_names[label] for label in labels], columns=10)

# %%
fw.plots.class_counts(dataset.train_labels, dataset.class_names)

# %% [markdown]
# One part is kept aside: the network never trains on it, and what it gets right *there* is what
# counts. Pictures that belong together, as frames of one film, must be on one side; see `groups` of
# `fw.data.train_validation_split`.
#
# ## Settings
#
# A *recipe* is all settings of a training. `page10` is David Page's for CIFAR-10; for some hundred
# pictures it goes without the average of weights, the noisy batch norm and the shared augmentation,
# which want more steps, and with small batches. 0 epochs stands for 20.

# %% cellView="form"
# @title Settings
EPOCHS = 0  # @param {type: "integer"}
WIDTH = 0.25  # @param {type: "number"}
PEAK_RATE = 0.0  # @param {type: "number"}

import dataclasses

from fenwicks import recipes

EPOCHS = setting('EPOCHS', EPOCHS) or 20
WIDTH = setting('WIDTH', WIDTH)
recipe = recipes.get('page10', removed=['ema', 'ghost_batch_norm', 'group_augmentation'])
recipe = recipe.with_width(WIDTH).with_epochs(EPOCHS)
if len(dataset.train_images) < 10_000:
    recipe = recipe.with_batch_size(min(32, len(dataset.train_images)), scale_rate=True)
if PEAK_RATE:
    recipe = dataclasses.replace(recipe, peak_learning_rate=PEAK_RATE)
print(recipe.name, f'{recipe.epochs} epochs of batches of {recipe.batch_size}')

# %% [markdown]
# ## What the network gets to see
#
# Each row is one picture as five epochs might see it, after the original on the left. Are these
# still what they were? A digit in a mirror isn't: then the recipe needs `flip='none'`, by
# `dataclasses.replace(recipe, flip='none')`.

# %%
mean, std = fw.data.mean_std(dataset.train_images)
augment = fw.augment.compose(fw.assemble.augmentations(recipe, mean, std))
fw.plots.augmentation(shown[::5], augment, mean, std, versions=5, seed=(SEED, 0))

# %% [markdown]
# ## How large are the steps?
#
# The *learning-rate finder* takes a hundred steps, each at a greater learning rate than the one
# before, and then puts everything back. A good peak lies where the loss still falls, some way
# before it explodes. Where that is far from the recipe's, write it into `PEAK_RATE` above, and run
# the cells from there on.

# %%
trainer = fw.assemble.build_trainer(recipe, dataset, precision=precision, seed=SEED)
found = fw.diagnostics.find_learning_rate(trainer, dataset.train_images, dataset.train_labels)
print(f'{found.reason}. The peak of the recipe: {recipe.peak_learning_rate:g}')
fw.plots.learning_rate_finder(
    found.learning_rates, found.smoothed, found.suggestion, measured=found.losses
)

# %% [markdown]
# ## Train
#
# `val_accuracy`, in the line of each epoch, is that on the pictures kept aside.

# %%
history = trainer.fit(
    dataset.train_images,
    dataset.train_labels,
    recipe.epochs,
    validation_data=(dataset.test_images, dataset.test_labels),
)
fw.plots.learning_curves(trainer.records, ['train_accuracy', 'val_accuracy'])

# %% [markdown]
# Training accuracy is taken while the network learns, on augmented pictures, so it may be the lower
# one. Where it is far above the other, the network learns its pictures by heart: get more of them.
#
# ## What it gets wrong

# %%
logits = trainer.predict(dataset.test_images)
score = fw.evaluate.metrics(logits, dataset.test_labels)
print(
    f'{100 * score.accuracy:.1f} % of the {len(dataset.test_images)} pictures kept aside are '
    f'right, after {trainer.train_seconds:.1f} s of training'
)
fw.plots.confusion_matrix(dataset.test_labels, logits.argmax(axis=1), dataset.class_names)

# %% [markdown]
# The mistakes of which it was surest. A picture in the wrong folder shows up here first.

# %%
fw.plots.mistakes(dataset.test_images, dataset.test_labels, logits, dataset.class_names)

# %% [markdown]
# ## Save, and try a picture
#
# The saved model takes pictures as they come, with pixels from 0 to 255, and holds the names of the
# classes. In Colab, tick `UPLOAD` to choose a picture; elsewhere write its path into `PICTURE`.

# %% cellView="form"
# @title Save, and try a picture
UPLOAD = False  # @param {type: "boolean"}
PICTURE = ''  # @param {type: "string"}

from fenwicks.data.images import decode_image

MODEL_FILE = setting('MODEL_FILE', 'your_images.keras')
classifier = fw.assemble.with_normalization(
    trainer.model, mean, std, input_shape=dataset.image_shape, class_names=dataset.class_names
)
classifier.save(MODEL_FILE)

PICTURE = setting('PICTURE', PICTURE)
if UPLOAD and 'google.colab' in sys.modules:
    from google.colab import files

    PICTURE = next(iter(files.upload()), '')
loaded = keras.models.load_model(MODEL_FILE)
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
# 1. `IMAGE_SIZE = 64`: what does it cost in time, and is what you look for visible at 32?
# 2. Halve the pictures of one class. Which row of the confusion matrix changes?
# 3. `PEAK_RATE` ten times as high and a tenth of what the recipe has (`recipe.peak_learning_rate`).
# 4. Take a picture of something that is in none of your folders. How sure is the network?
# 5. Look at the mistakes, mend what is wrong in your folders, and train again: what did that bring,
#    compared with twice the `EPOCHS`?
#
# The [README](https://github.com/fenwicks/fenwicks#readme) has a short script for pictures in
# folders, and says where each step lives.
