"""Networks that were trained before, with a new head: for `keras.applications` and KerasHub."""

from __future__ import annotations

import importlib.util
import os
import pathlib
import zipfile
from collections.abc import Sequence
from typing import Any

import keras

from fenwicks._checks import channels_last
from fenwicks._errors import one_line
from fenwicks.layers import Classifier, FastAiHead, ImageNetNormalization, init_pytorch
from fenwicks.models._checks import image_shape
from fenwicks.models.pixels import take_statistics
from fenwicks.models.stages import unfreeze

HEADS = ('fastai', 'linear')
HUB = 'keras_hub:'

# Families of `keras.applications`: the names of their networks begin like this, and the longest
# match counts. Each with the mode of its normaliser (`''`: the network has its own) and the side of
# the images with which it was trained.
_FAMILIES = {
    'ConvNeXt': ('', 224),
    'DenseNet': ('torch', 224),
    'EfficientNet': ('', 224),
    'EfficientNetB1': ('', 240),
    'EfficientNetB2': ('', 260),
    'EfficientNetB3': ('', 300),
    'EfficientNetB4': ('', 380),
    'EfficientNetB5': ('', 456),
    'EfficientNetB6': ('', 528),
    'EfficientNetB7': ('', 600),
    'EfficientNetV2': ('', 224),
    'EfficientNetV2B1': ('', 240),
    'EfficientNetV2B2': ('', 260),
    'EfficientNetV2B3': ('', 300),
    'EfficientNetV2L': ('', 480),
    'EfficientNetV2M': ('', 480),
    'EfficientNetV2S': ('', 384),
    'Inception': ('tf', 299),
    'MobileNet': ('tf', 224),
    'MobileNetV3': ('', 224),
    'NASNetLarge': ('tf', 331),
    'NASNetMobile': ('tf', 224),
    'ResNet': ('caffe', 224),
    'ResNet50V2': ('tf', 224),
    'ResNet101V2': ('tf', 224),
    'ResNet152V2': ('tf', 224),
    'VGG': ('caffe', 224),
    'Xception': ('tf', 299),
}
# Means and standard deviations of the channels of ImageNet, for `_efficientnet_scale`.
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def applications() -> tuple[str, ...]:
    """The names of the networks of `keras.applications`.

    >>> 'ResNet50' in applications()
    True
    """
    return tuple(name for name in dir(keras.applications) if name[0].isupper())


def default_image_size(name: str) -> int:
    """The side, in pixels, of the images with which a network of `keras.applications` was trained.

    Args:
        name: of the network, in upper or lower case.

    Raises:
        ValueError: there is no such network.

    >>> default_image_size('xception')
    299
    """
    return _family(_known(name))[1]


def pretrained(
    name: str,
    num_classes: int,
    *,
    input_shape: Sequence[int | None] | None = None,
    weights: str | os.PathLike[str] | None = 'imagenet',
    head: str = 'fastai',
    trainable_stages: int | None = None,
) -> keras.Model:
    """A network that was trained before, with a new head, from raw pixels to logits.

    ```
    logits = head(backbone(normalize(pixels)))
    ```

    The normaliser that the network was trained with is part of the model. The batch norms of the
    backbone are frozen: they use the statistics with which they came, also in training.
    `fenwicks.models.unfreeze` trains more of the backbone or less, and
    `fenwicks.optimizers.stage_groups` gives its stages learning rates of their own.

    Args:
        name: a network of `keras.applications`, such as `'EfficientNetV2B0'`, in upper or lower
            case; or `'keras_hub:PRESET'`, an image backbone of KerasHub, whose outputs are a
            feature map.
        num_classes: number of logits, at least 1.
        input_shape: `(height, width, 3)` of the images; None for those that the network was trained
            with.
        weights: `'imagenet'`, which Keras downloads once (for KerasHub, those of the preset); the
            path of a file with weights of the whole network or of the backbone (`.h5` as Keras
            publishes them, `.weights.h5`), or of a model that was made by this function (`.keras`);
            or None for random weights.
        head: `'fastai'` for `fenwicks.layers.FastAiHead`; `'linear'` for a global average and a
            `fenwicks.layers.Classifier`.
        trainable_stages: as in `fenwicks.models.unfreeze`.

    Returns:
        A functional `keras.Model` from pixels `(batch, height, width, 3)`, 0 to 255 of any dtype,
        to logits `(batch, num_classes)` in float32. Its last layer is called `head`.

    Raises:
        ValueError: an argument breaks its rule, or the weights are another network's.
        OSError: the weights can't be read or downloaded.
        ImportError: KerasHub is not installed.

    Example:

    >>> from fenwicks.models import pretrained
    >>> model = pretrained('MobileNetV3Small', 4, input_shape=(32, 32, 3), weights=None)
    >>> model.output_shape
    (None, 4)

    Reference:
        https://keras.io/api/applications/
    """
    channels_last('pretrained', keras.config.image_data_format())
    if not isinstance(name, str):
        raise ValueError(
            f"`name` must be the name of a network, such as 'ResNet50'. Received: name={name!r}"
        )
    if head not in HEADS:
        raise ValueError(f'`head` must be one of {", ".join(HEADS)}. Received: head={head!r}')
    if input_shape is not None:
        input_shape = image_shape(input_shape, smallest=1)
        if input_shape[-1] != 3:
            raise ValueError(
                '`input_shape` must have 3 channels, which the weights are for. '
                f'Received: input_shape={input_shape}'
            )
    path = None
    if weights is not None and not isinstance(weights, str | os.PathLike):
        raise ValueError(
            f"`weights` must be 'imagenet', None or an existing file. Received: weights={weights!r}"
        )
    if weights not in ('imagenet', None):
        path = pathlib.Path(weights).expanduser()
        if not path.is_file():
            raise FileNotFoundError(
                "`weights` must be 'imagenet', None or an existing file. "
                f'Received: weights={os.fspath(weights)!r}'
            )
    build = _from_hub if name.lower().startswith(HUB) else _from_applications
    normalize, backbone = build(name, input_shape, weights, path)
    images = keras.Input(backbone.input_shape[1:], name='images')
    h = images
    for layer in normalize:
        h = layer(h)
    h = backbone(h)
    if len(h.shape) != 4:
        raise ValueError(
            '`name` must be of a network whose outputs are a feature map (batch, height, width, '
            f'channels). Received: name={name!r}, with outputs of shape {h.shape}'
        )
    if head == 'fastai':
        logits = FastAiHead(num_classes, init_pytorch, name='head')(h)
    else:
        h = keras.layers.GlobalAveragePooling2D(name='global_pool')(h)
        logits = Classifier(num_classes, init_pytorch, name='head')(h)
    model = keras.Model(images, logits, name=f'{backbone.name}_classifier')
    unfreeze(model, trainable_stages)
    return model


def _known(name):
    """The network's name as Keras spells it."""
    spelled = {each.lower(): each for each in applications()}
    if name.lower() not in spelled:
        raise ValueError(
            f"`name` must be one of {', '.join(spelled.values())}, or '{HUB}PRESET'. "
            f'Received: name={name!r}'
        )
    return spelled[name.lower()]


def _family(name):
    return _FAMILIES[max((each for each in _FAMILIES if name.startswith(each)), key=len)]


def _from_applications(name, input_shape, weights, path):
    """The layers of the normaliser, and the backbone."""
    name = _known(name)
    mode, side = _family(name)
    input_shape = input_shape or (side, side, 3)
    constructor = getattr(keras.applications, name)
    normalize: list[keras.layers.Layer] = []
    if mode:
        normalize.append(ImageNetNormalization(mode, name='normalize', dtype='float32'))
    elif name.startswith('EfficientNetB') and weights != 'imagenet':
        normalize.append(_efficientnet_scale())
    try:
        backbone = constructor(
            include_top=False,
            weights='imagenet' if weights == 'imagenet' else None,
            input_shape=input_shape,
        )
    except ValueError as error:  # of the shape: all else was checked
        raise ValueError(
            f'`input_shape` must be one that {name} takes ({one_line(error)}). '
            f'Received: input_shape={input_shape}'
        ) from error
    except Exception as error:  # Keras raises bare Exceptions where a download fails
        if weights != 'imagenet':
            raise
        raise OSError(
            f"`weights` can't be downloaded ({one_line(error)}): name a file, or None for random "
            f"weights. Received: weights='imagenet' of {name}"
        ) from error
    if path is not None:
        _load(backbone, path, lambda: constructor(weights=None))
    return normalize, backbone


def _efficientnet_scale():
    """What Keras inserts into EfficientNetB0 to B7 for the weights of ImageNet only.

    It divides normalised pixels by the square root of the standard deviation once more:

        s * (x / 255 - mean) = (s * x + 255 * (1 - s) * mean) / 255 - mean
    """
    scale = [std**-0.5 for std in _STD]
    offset = [255 * (1 - s) * mean for s, mean in zip(scale, _MEAN, strict=True)]
    return keras.layers.Rescaling(scale, offset, name='normalize', dtype='float32')


def _load(backbone, path, whole):
    """Loads the backbone's weights from a file.

    Args:
        backbone: of the network.
        path: the file.
        whole: makes the whole network, for files that have its classifier too.
    """
    try:
        if zipfile.is_zipfile(path):
            _copy(_backbone_of(keras.saving.load_model(path, compile=False)), backbone)
            return
        try:
            backbone.load_weights(path)
        except ValueError:
            network = whole()
            network.load_weights(path)
            _copy(network, backbone)
    except Exception as error:  # h5py and Keras raise many kinds
        raise ValueError(
            f'`weights` must be a file of weights of {backbone.name} ({one_line(error)}). '
            f'Received: weights={os.fspath(path)!r}'
        ) from error


def _backbone_of(model):
    inner = [layer for layer in model.layers if isinstance(layer, keras.Model)]
    return inner[0] if inner else model


def _copy(source, target):
    """Copies weights; the source may have more behind them."""
    taken, wanted = source.weights[: len(target.weights)], target.weights
    shapes = [[tuple(each.shape) for each in weights] for weights in (taken, wanted)]
    if shapes[0] != shapes[1]:
        raise ValueError(f'its weights have other shapes, or there are {len(taken)} of them')
    for ours, theirs in zip(wanted, taken, strict=True):
        ours.assign(theirs)
    take_statistics(target)


def _from_hub(name, input_shape, weights, path):
    """The layers of the normaliser, and the backbone."""
    preset = name[len(HUB) :]
    if path is not None:
        raise ValueError(
            f"`weights` must be 'imagenet' or None for a preset of KerasHub, which may be a "
            f"folder: name='{HUB}FOLDER'. Received: weights={os.fspath(path)!r}"
        )
    if importlib.util.find_spec('keras_hub') is None:
        raise ImportError(f'name={name!r} needs KerasHub: pip install keras-hub')
    import keras_hub

    shape: dict[str, Any] = {} if input_shape is None else {'image_shape': input_shape}
    try:
        backbone = keras_hub.models.Backbone.from_preset(
            preset, load_weights=weights is not None, **shape
        )
        converter = keras_hub.layers.ImageConverter.from_preset(preset)
    except Exception as error:  # of downloads, of names, and of shapes
        raise ValueError(
            f'`name` must be an image preset of KerasHub that can be loaded ({one_line(error)}). '
            f'Received: name={name!r}'
        ) from error
    scale = 1.0 if converter.scale is None else converter.scale
    offset = 0.0 if converter.offset is None else converter.offset
    return [keras.layers.Rescaling(scale, offset, name='normalize', dtype='float32')], backbone
