"""fenwicks: CIFAR-10 to 94 % in minutes, in Keras; every trick a block you can lift out.

The modules, in the order in which the data flow:

    data -> augment -> layers, models -> losses -> optimizers, schedules -> training -> evaluate

beside them `precision` and `devices`, which select the dtype policy and the devices. `recipes`
holds whole trainings as data, `assemble` makes a trainer of one, `ablation` measures what each of
its tricks is worth, `diagnostics` looks into a training, `export` writes a model for other
runtimes, `runlog` and `hardware` record runs, `plots` draws all of it, `report` makes a page of
runs (both with Matplotlib), and `tpu` estimates what a training takes on a TPU. The modules from
`recipes` on are loaded when they are first used: `import fenwicks` is enough.

Importing fenwicks sets three environment variables, unless they are set already or
`FENWICKS_KEEP_ENVIRONMENT` is 1:

- `TF_CPU_ALLOCATOR_USE_BFC=true`: TensorFlow keeps memory between steps on a CPU, where it would
  return each large activation to the operating system.
- `TF_ENABLE_ONEDNN_OPTS=1`, on x86 processors, if TensorFlow isn't imported yet: its convolutions
  are oneDNN's, as they are by default on the newer of these processors only.
- `KERAS_BACKEND=jax`, where no backend was chosen, TensorFlow is not installed and JAX is; and for
  the command `python -m fenwicks.tpu`, which compiles programs of JAX, whatever was chosen.

With `FENWICKS_QUIET=1`, and in the commands `python -m fenwicks...`, what TensorFlow prints on
standard error while it is imported is held back, and `TF_CPP_MIN_LOG_LEVEL=2`, unless set,
silences the notes that it prints later.
"""

import importlib
import types

from fenwicks import _backend

_backend.prepare()

with _backend.named_backend(), _backend.quiet_start():
    from fenwicks import (
        augment,
        data,
        devices,
        evaluate,
        layers,
        losses,
        models,
        optimizers,
        precision,
        schedules,
        training,
    )

__version__ = '0.2.0'

__all__ = [
    'augment',
    'data',
    'devices',
    'evaluate',
    'layers',
    'losses',
    'models',
    'optimizers',
    'precision',
    'schedules',
    'training',
]

_ON_FIRST_USE = (
    *('ablation', 'assemble', 'diagnostics', 'export', 'hardware', 'plots', 'recipes', 'report'),
    *('runlog', 'tpu'),
)


def __getattr__(name: str) -> types.ModuleType:
    if name in _ON_FIRST_USE:
        return importlib.import_module(f'fenwicks.{name}')
    raise AttributeError(f"module 'fenwicks' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, *_ON_FIRST_USE, '__version__'])
