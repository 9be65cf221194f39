"""One interface to trainings in fenwicks and in plain PyTorch, for the scripts in this folder.

The framework and the library are imported when a training is created, so that only the side in use
costs time and memory.
"""

from __future__ import annotations

import math
import time

import logged
from absl import flags

from fenwicks import command, data, evaluate, hardware, precision, recipes
from fenwicks.recipes import flags as recipe_flags

SIDES = ('fenwicks', 'pytorch')
PYTORCH_RECIPES = ('speed94_muon',)  # the recipes that are written in PyTorch too
PYTORCH_FIELDS = {  # what of them may differ there
    *('name', 'batch_size', 'epochs', 'widths', 'image_sizes', 'peak_learning_rate'),
    *('whitening_bias_epochs', 'whitening_images'),
}
DEVICES = ('auto', 'cpu', 'gpu')


def define_flags(changes=True):
    """Defines the flags of every script: what is trained on what.

    Args:
        changes: whether flags may change the recipe.
    """
    flags.DEFINE_enum('dataset', 'cifar10', data.DATASETS, 'What to train on.')
    flags.DEFINE_string('data_dir', None, 'Folder that holds the data set.')
    flags.DEFINE_integer('limit', None, 'Train on the first N images only.')
    flags.DEFINE_integer('test_limit', None, 'Evaluate on the first N test images only.')
    if changes:
        recipe_flags.define_changes()
        flags.adopt_module_key_flags(recipe_flags)
    flags.DEFINE_enum('precision', 'auto', precision.PRECISIONS, 'Of both sides.')
    flags.DEFINE_enum('device', 'auto', DEVICES, 'What to train on.')
    flags.DEFINE_bool('compile', False, "Whether PyTorch's side uses torch.compile.")


SHARED_FLAGS = (
    'dataset',
    'data_dir',
    'limit',
    'test_limit',
    *recipe_flags.CHANGES,
    'precision',
    'device',
    'compile',
)


def given_flags(values, changes=True):
    """The flags of `define_flags` that have a value, as arguments of a command.

    Args:
        values: of the flags.
        changes: whether those that change the recipe are among them.
    """
    given = []
    for name in SHARED_FLAGS:
        if name in recipe_flags.CHANGES and not changes:
            continue
        value = values[name].value
        several = value if isinstance(value, list) else [value]
        given += [f'--{name}={each}' for each in several if each is not None]
    return given


def load_dataset(values):
    """The data set that the flags name."""
    dataset = data.load(values.dataset, values.data_dir).limit(values.limit)
    if values.test_limit is not None:
        if not 1 <= values.test_limit <= len(dataset.test_images):
            raise ValueError(
                f'`test_limit` must be in [1, {len(dataset.test_images)}]. '
                f'Received: test_limit={values.test_limit}'
            )
        dataset = data.Dataset(
            dataset.name,
            dataset.train_images,
            dataset.train_labels,
            dataset.test_images[: values.test_limit],
            dataset.test_labels[: values.test_limit],
            dataset.class_names,
            dataset.source,
        )
    return dataset


def find_recipe(name, values):
    """The recipe called `name` with the budget that the flags give it.

    With another batch size SGD's rates change in proportion: PyTorch's side has them for a loss
    that is summed over the batch, which comes to the same.
    """
    with command.renamed({'name': 'recipe'}):
        recipe = recipes.get(name)
    return recipe_flags.changed(recipe, values, scale_rate=True)


def make(side, recipe, dataset, values, seed=0):
    """The training of `side`, one of `SIDES`."""
    return {'fenwicks': Fenwicks, 'pytorch': PyTorch}[side](recipe, dataset, values, seed)


class Training:
    """A training that runs as a whole or a few steps at a time.

    Args:
        recipe: a `recipes.Recipe`.
        dataset: a `data.Dataset`.
        values: values of the flags of `define_flags`.
        seed: seed of weights, shuffle and augmentation.

    Attributes:
        device, precision: the chosen ones.
        preprocess_seconds: seconds of the preparations.
        replicas: how many devices share each batch.
    """

    replicas = 1

    def __init__(self, recipe, dataset, values, seed):
        began = time.perf_counter()
        self.recipe, self.dataset, self.seed = recipe, dataset, seed
        recipe.steps_per_epoch(len(dataset.train_images))  # raises where a batch is too large
        self.device, self.precision = self._choose(values)
        self._build(values)
        self.preprocess_seconds = time.perf_counter() - began

    def run(self) -> dict:
        """Trains the whole recipe, evaluates on the test images, and returns the result."""
        times = self._train()
        began = time.perf_counter()
        logits, plain_logits = self._predict(self.dataset.test_images)
        eval_seconds = time.perf_counter() - began
        score, plain = (
            evaluate.metrics(some, self.dataset.test_labels) for some in (logits, plain_logits)
        )
        trained_on = self.total_steps() * self.recipe.batch_size
        return {
            **self.describe(),
            'test_images': len(self.dataset.test_images),
            'test_accuracy': score.accuracy,
            'test_accuracy_plain': plain.accuracy,
            'test_loss': score.loss,
            'preprocess_seconds': self.preprocess_seconds,
            **times,
            'eval_seconds': eval_seconds,
            'images_per_second': trained_on / times['train_seconds'],
            'peak_memory_mb': hardware.peak_memory_mb(),
            'device_memory_mb': self._device_memory_mb(),
        }

    def describe(self) -> dict:
        """Recipe, data, hardware and versions, for the log."""
        return {
            'recipe': self.recipe.name,
            'widths': list(self.recipe.widths),
            'dataset': self.dataset.name,
            'train_images': len(self.dataset.train_images),
            'batch_size': self.recipe.batch_size,
            'epochs': self.recipe.epochs,
            'seed': self.seed,
            'precision': self.precision,
            'backend': self._backend(),
            'device': self.device,
            'replicas': self.replicas,
            'hardware': self._hardware(),
            'settings': logged.recipe_settings(self.recipe),
            **hardware.provenance(),
        }

    def total_steps(self):
        steps_per_epoch = self.recipe.steps_per_epoch(len(self.dataset.train_images))
        return self.recipe.total_steps(steps_per_epoch)

    def parts(self) -> list[tuple[int, int, int]]:
        """The parts of the training whose steps take different times: sizes of images, and whether
        the whitening's bias learns. Of each an epoch and a step that lie in it, and its steps."""
        from fenwicks.training.phases import Phases

        steps_per_epoch = self.recipe.steps_per_epoch(len(self.dataset.train_images))
        phases = Phases(self.recipe.image_size_epochs(), self.recipe.freeze_epochs())
        return phases.programs(self.total_steps(), steps_per_epoch)

    def take_steps(self, epoch, step, count) -> float:
        """Seconds of `count` steps of an epoch from `step` on, both counted from 0."""
        raise NotImplementedError

    def memory(self) -> dict:
        return {
            'peak_memory_mb': hardware.peak_memory_mb(),
            'device_memory_mb': self._device_memory_mb(),
        }


class Fenwicks(Training):
    """The training in fenwicks, on Keras's backend."""

    def _choose(self, values):
        import keras

        from fenwicks import devices

        keras.utils.clear_session()  # graphs of earlier trainings; it resets the dtype policy
        device = devices.select_device(values.device)
        return device, precision.set_precision(values.precision, device)

    def _build(self, values):
        from fenwicks import assemble

        self._views = assemble.views(self.recipe)
        self._trainer = assemble.build_trainer(
            self.recipe, self.dataset, precision=self.precision, seed=self.seed
        )
        self._loaded, self.replicas = False, self._trainer.replicas.count

    def _train(self):
        self._trainer.fit(self.dataset.train_images, self.dataset.train_labels, self.recipe.epochs)
        return {
            'train_seconds': self._trainer.train_seconds,
            'compile_seconds': self._trainer.compile_seconds,
        }

    def _predict(self, images):
        views = self._trainer.predict_views(images, tta=self._views)
        return self._views.combine(views), views[0]

    def take_steps(self, epoch, step, count):
        if not self._loaded:
            self._trainer.load(self.dataset.train_images, self.dataset.train_labels)
            self._loaded = True
        self._trainer.compile(epoch)  # unless that is done
        began = time.perf_counter()
        self._trainer.run_steps(epoch, step, step + count)
        return time.perf_counter() - began

    def _backend(self):
        import keras

        return keras.backend.backend()

    def _hardware(self):
        return hardware.describe(self.device, self.replicas)

    def _device_memory_mb(self):
        if self._backend() != 'jax' or self.device == 'cpu':
            return None
        import jax

        peak = (jax.devices()[0].memory_stats() or {}).get('peak_bytes_in_use')
        return None if peak is None else round(peak / 2**20)


class PyTorch(Training):
    """The same training in plain PyTorch."""

    def _choose(self, values):
        import torch

        written = recipes.get('speed94_muon')
        differ = {k for k, value in vars(self.recipe).items() if value != getattr(written, k)}
        # Its rates are for a sum of losses.
        rate, known = (each.peak_learning_rate / each.batch_size for each in (self.recipe, written))
        if differ - PYTORCH_FIELDS or not math.isclose(rate, known):
            raise ValueError(
                f'`recipe` must be {" or ".join(PYTORCH_RECIPES)} for PyTorch. '
                f'Received: recipe={self.recipe.name}'
            )
        has_gpu = torch.cuda.is_available()
        device = values.device
        if device == 'auto':
            device = 'gpu' if has_gpu else 'cpu'
        if device == 'gpu' and not has_gpu:
            raise ValueError('`device` must be one that PyTorch finds: cpu. Received: device=gpu')
        chosen = values.precision
        if chosen == 'auto':
            fast = device == 'gpu' or precision.cpu_has_bfloat16()
            chosen = 'bfloat16' if fast else 'float32'
        return device, chosen

    def _build(self, values):
        import pytorch_speed94
        import pytorch_trainer

        pytorch_trainer.use_all_threads()
        settings = pytorch_speed94.Recipe(
            batch_size=self.recipe.batch_size,
            epochs=self.recipe.epochs,
            widths=self.recipe.widths,
            whitening_images=self.recipe.whitening_images,
            whitening_bias_epochs=self.recipe.whitening_bias_epochs,
            image_sizes=self.recipe.image_size_epochs(),
        )
        self._trainer = pytorch_trainer.Trainer(
            self.dataset.train_images,
            self.dataset.train_labels,
            self.dataset.num_classes,
            settings,
            precision=self.precision,
            device='cuda' if self.device == 'gpu' else 'cpu',
            seed=self.seed,
            compiled=values.compile,
        )

    def _train(self):
        self._trainer.run()
        return {
            'train_seconds': self._trainer.train_seconds,
            'compile_seconds': self._trainer.compile_seconds,
        }

    def _predict(self, images):
        return self._trainer.predict(images), self._trainer.predict(images, tta=False)

    def take_steps(self, epoch, step, count):
        self._trainer.begin_epoch(epoch, step)
        return self._trainer.run(self._trainer.step + count)

    def _backend(self):
        return 'pytorch, compiled' if self._trainer.compiled else 'pytorch'

    def _hardware(self):
        import torch

        if self.device == 'cpu':
            return hardware.describe()
        return f'{self.replicas} x {torch.cuda.get_device_name()}'

    def _device_memory_mb(self):
        import torch

        if self.device == 'cpu':
            return None
        return round(torch.cuda.max_memory_allocated() / 2**20)


def say_run(result):
    """One line about a run."""
    return (
        f'{result["recipe"]}, {result["backend"]}, seed {result["seed"]}: '
        f'{100 * result["test_accuracy"]:.2f} % in {result["train_seconds"]:.1f} s of training'
    )
