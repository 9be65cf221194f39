"""One model in several formats."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import pathlib
import tempfile
import warnings
from collections.abc import Iterator, Sequence

import keras
import numpy as np

from fenwicks._checks import sequence
from fenwicks._errors import one_line
from fenwicks._files import check_writable, written_whole
from fenwicks.export import onnx_operations
from fenwicks.layers import ClassNames

# The file of each format, in the folder of a run.
FORMATS = {
    'saved_model': 'saved_model',
    'litert': 'model.tflite',
    'onnx': 'model.onnx',
    'safetensors': 'model.safetensors',
}

# The package that a format needs besides Keras; a backend that isn't named can't write it.
_PACKAGES = {
    'saved_model': {'tensorflow': 'tensorflow', 'jax': 'tensorflow'},
    'litert': {'tensorflow': 'tensorflow'},
    'onnx': {'tensorflow': 'tf2onnx'},
    'safetensors': dict.fromkeys(('tensorflow', 'jax', 'torch'), 'safetensors'),
}
_ANY_SIZE = 32  # pixels of an image for a model that takes images of any size


def check_formats(formats: Sequence[str]) -> None:
    """Raises where a format can't be written here: call it before a training.

    Args:
        formats: names among `FORMATS`.

    Raises:
        ValueError: there is no such format, or Keras can't write it on this backend.
        ImportError: a package is missing; the message says how to install it.
    """
    backend = keras.backend.backend()
    for name in sequence('formats', formats, 'names'):
        if name not in FORMATS:
            raise ValueError(f'`formats` must be among {", ".join(FORMATS)}. Received: {name}')
        if backend not in _PACKAGES[name]:
            raise ValueError(
                f'`formats` must be what Keras can write on {backend}: export afterwards, by '
                'KERAS_BACKEND=tensorflow python -m fenwicks.export RUN --formats=... '
                f'Received: {name}'
            )
        package = _PACKAGES[name][backend]
        if importlib.util.find_spec(package) is None:
            raise ImportError(f'the format {name} needs {package}: pip install {package}')


def write(
    model: keras.Model, folder: str | os.PathLike[str], formats: Sequence[str]
) -> list[pathlib.Path]:
    """Writes a model in some formats; each file appears whole or not at all.

    Args:
        model: a Functional or Sequential model in float32 from a batch of images to logits, such as
            `assemble.with_normalization` returns.
        folder: where the files go, named as in `FORMATS`; it is made where there is none.
        formats: names among `FORMATS`, in any order.

    Returns:
        The paths, in the order of `formats`.

    Raises:
        ValueError: a format isn't known or can't be written on this backend, or can't hold the
            model's operations; or the model isn't built, has no input or several, or computes in
            another precision than float32.
        ImportError: a package is missing.
        OSError: the disk doesn't take a file.

    Example:

    ```python
    model = keras.saving.load_model('out/my_run/model.keras')
    fenwicks.export.write(model, 'out/my_run', ['saved_model', 'onnx'])
    ```
    """
    formats = sequence('formats', formats, 'names')
    check_formats(formats)
    folder = pathlib.Path(folder).expanduser()
    if 'onnx' in formats:
        onnx_operations.register()
    if formats:
        _check_model(model, weights_alone=set(formats) == {'safetensors'})
        check_writable(folder)
    paths = [folder / FORMATS[name] for name in formats]
    for name, path in zip(formats, paths, strict=True):
        if name == 'saved_model' and path.exists() and not (path / 'saved_model.pb').is_file():
            raise ValueError(
                f'`folder` must hold no {path.name} but a SavedModel, which is replaced. '
                f'Received: {path}, something else'
            )
    if set(formats) - {'safetensors'}:
        exported = _with_constants(model)
        size = [_ANY_SIZE if side is None else side for side in model.input_shape[1:]]
        exported(np.zeros((1, *size), np.float32))  # Keras exports models that were called
    for name, path in zip(formats, paths, strict=True):
        with _one_line_errors(path):
            if name == 'safetensors':
                _write_weights(model, path)
            elif name == 'saved_model':
                _write_folder(exported, path)
            else:
                with written_whole(path) as part, _quiet():
                    exported.export(str(part), format=name, verbose=False)
    return paths


def _check_model(model, weights_alone):
    shape = getattr(model, 'input_shape', None)  # of two inputs a list; some models have none
    if not getattr(model, 'built', False) or not (weights_alone or isinstance(shape, tuple)):
        raise ValueError(
            '`model` must be a Functional or Sequential model that is built, with one input: give '
            f'it a keras.Input. Received: {getattr(model, "name", model)}'
        )
    for layer in _layers(model):
        if layer.compute_dtype != 'float32':
            raise ValueError(
                '`model` must compute in float32 (see `assemble.with_normalization`). '
                f'Received: {layer.compute_dtype} in {layer.name}'
            )


def _with_constants(model: keras.Model) -> keras.Model:
    """A model of the same layers in which a `Normalization` is a `Rescaling` of the same numbers.

    Mean and variance are tensors that the layer holds beside its variables, and tf2onnx makes
    inputs of the graph of such. The layers themselves are shared with `model`.
    """

    def replaced(layer):
        if isinstance(layer, keras.layers.Normalization):
            mean, std = (
                np.asarray(keras.ops.convert_to_numpy(each), np.float64)
                for each in (layer.mean, keras.ops.sqrt(layer.variance))
            )
            std = np.maximum(std, keras.config.epsilon())
            if layer.invert:
                return keras.layers.Rescaling(std, mean, name=layer.name, dtype='float32')
            return keras.layers.Rescaling(1 / std, -mean / std, name=layer.name, dtype='float32')
        return _with_constants(layer) if isinstance(layer, keras.Model) else layer

    if not any(isinstance(layer, keras.layers.Normalization) for layer in _layers(model)):
        return model
    return keras.models.clone_model(model, clone_function=replaced)


def _layers(model: keras.Layer) -> Iterator[keras.Layer]:
    """The layers of a model, and of the models within it."""
    for layer in model.layers if isinstance(model, keras.Model) else ():
        yield layer
        yield from _layers(layer)


def class_names(model: keras.Model) -> tuple[str, ...]:
    """The names that a model's last `ClassNames` keeps, in models within it, too; else none."""
    kept = [layer.class_names for layer in _layers(model) if isinstance(layer, ClassNames)]
    return kept[-1] if kept else ()


def _write_weights(model: keras.Model, path: pathlib.Path) -> None:
    """The weights by their paths in the model, and what a reader must know as metadata."""
    from safetensors.numpy import save

    weights: dict[str, np.ndarray] = {}
    for variable in model.weights:
        if variable.path in weights:
            raise ValueError(f'`model` must have one weight a path. Received: {variable.path}')
        values = np.asarray(keras.ops.convert_to_numpy(variable))
        weights[variable.path] = np.ascontiguousarray(values)
    metadata = {'format': 'keras', 'class_names': json.dumps(class_names(model))}
    with written_whole(path) as part:
        part.write_bytes(save(weights, metadata))


def _write_folder(model: keras.Model, path: pathlib.Path) -> None:
    """A SavedModel, first beside its place; one that lay there goes at the end."""
    with tempfile.TemporaryDirectory(prefix='.saved_model.', dir=path.parent) as beside:
        part = pathlib.Path(beside) / path.name
        with _quiet():
            model.export(str(part), format='tf_saved_model', verbose=False)
        if not path.exists():
            os.replace(part, path)
            return
        former = f'{part}.former'
        os.replace(path, former)  # at once, and not file by file
        try:
            os.replace(part, path)
        except BaseException:
            if not path.exists():
                os.replace(former, path)
            raise


@contextlib.contextmanager
def _one_line_errors(path: pathlib.Path) -> Iterator[None]:
    """What is raised while a file is written, also by TensorFlow, as a line that names it.

    Raises:
        OSError: the disk doesn't take it.
        ValueError: its format doesn't take the model.
    """
    try:
        yield
    except Exception as error:
        of_tensorflow = type(error).__module__.startswith('tensorflow.')
        # Those of a disk have a number for the kind, and aren't OSErrors; a converter's have none.
        of_disk = of_tensorflow and isinstance(getattr(error, 'error_code', None), int)
        if of_tensorflow and not of_disk:
            raise ValueError(
                f'`model` must consist of operations that {path.name} can hold. '
                f'Received: {one_line(error)}'
            ) from error
        if not of_disk and not isinstance(error, OSError):
            raise
        if 'the disk must take' in str(error) or 'can be written to' in str(error):
            raise
        raise OSError(
            f'the disk must take the whole of {path}. Received: {one_line(error)}'
        ) from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the warnings of converters about NumPy and about gradients, which no export holds."""
    with warnings.catch_warnings():
        warnings.filterwarnings('ignore', '.*np.object.*', FutureWarning)
        warnings.filterwarnings('ignore', category=DeprecationWarning)
        yield
