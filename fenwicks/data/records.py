"""The image, the label and the group in a record of a TFRecord shard."""

from __future__ import annotations

import contextlib
import os

import numpy as np

from fenwicks._checks import some_of
from fenwicks.data.example import ExampleError, decode_example
from fenwicks.data.images import Options, decode_image, resize_image
from fenwicks.data.limits import damage_named


def decode_record(
    name: str,
    record: bytes,
    options: Options,
    image_feature: str,
    label_feature: str | None,
) -> tuple[np.ndarray, int | None, str | None]:
    """The image, the label and the group of one record.

    Args:
        name: what to call it in errors.
        record: a serialized Example.
        options: of `decode_image`, by `checked_options`.
        image_feature, label_feature: see `decode_shards`.

    Returns:
        uint8 `(height, width, channels)`; an integer, or None without a `label_feature`; and the
        text in the feature `group`, or None without one.

    Raises:
        ValueError: it is damaged, or lacks a feature.
    """
    with damage_named(name, f'be an example with {image_feature!r}'):
        features = decode_example(record)
    _check_features(name, features, image_feature, label_feature)
    raw = features[image_feature][0]
    label = None if label_feature is None else _class_number(name, features, label_feature)
    first = next(iter(features.get('group', ())), None)
    group = os.fsdecode(first) if isinstance(first, bytes) else None
    shape = features.get('shape')
    if shape is None:
        return decode_image(raw, *options, name=name), label, group
    with damage_named(name, f'be an example with {image_feature!r}'):
        height, width, depth = map(int, shape)
        pixels = np.frombuffer(raw, np.uint8).reshape(height, width, depth)
    return resize_image(pixels, *options, name=name), label, group


def _check_features(name, features, image_feature, label_feature):
    """Raises unless there is an image, and a label where one is wanted."""
    wanted = {image_feature: 'the bytes of an image', label_feature: 'the number of its class'}
    wanted.pop(None, None)
    for feature, what in wanted.items():
        if not len(features.get(feature, ())):
            there = some_of(sorted(key for key in features if len(features[key])), 10)
            raise ValueError(
                f'{name}: must have a feature {feature!r}, {what}. Received: {there or "none"}'
            )
    if not isinstance(features[image_feature][0], bytes):
        raise ValueError(
            f'{name}: the feature {image_feature!r} must be the bytes of an image. '
            f'Received: {features[image_feature][0]}, a number'
        )
    if label_feature is not None:
        _class_number(name, features, label_feature)


def _class_number(name, features, label_feature):
    value = features[label_feature][0]
    number = None
    with contextlib.suppress(ValueError, OverflowError):  # of a text, of NaN
        number = int(value)
    if number is None or not (isinstance(value, bytes) or number == value):
        raise ValueError(
            f'{name}: the feature {label_feature!r} must be an integer, the number of the class. '
            f'Received: {value!s:.80}'
        )
    if not 0 <= number < 2**31:
        raise ValueError(f'{name}: the label must be in [0, 2**31). Received: {number}')
    return number


def check_first(name, record, image_feature, label_feature):
    """Raises where the first record lacks a feature; damage is left to decoding."""
    with contextlib.suppress(ExampleError):
        features = decode_example(record)
        _check_features(name, features, image_feature, label_feature)
