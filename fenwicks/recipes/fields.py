"""What the fields of a recipe may hold."""

from __future__ import annotations

from typing import Any

from fenwicks._checks import finite_number, integer, positive_integer

CHOICES = {
    'flip': ('none', 'random', 'alternating'),
    'network': ('resnet9', 'speednet'),
    'activation': ('relu', 'celu', 'gelu', 'silu'),
    'head_initializer': ('pytorch', 'unit'),
    'whitening_bias_schedule': ('linear', 'common'),
    'whitening_bias_initializer': ('zeros', 'pytorch'),
    'averaging': ('none', 'ema', 'lookahead'),
    'tta': ('none', 'flip', 'flip_translate'),
}
POSITIVE = ('batch_size', 'epochs', 'whitening_images', 'averaging_every')
RANGES = {
    'warmup_epochs': {'low': 0},
    'peak_learning_rate': {'low': 0},
    'weight_decay': {'low': 0},
    'whitening_bias_epochs': {'low': 0},
    'celu_alpha': {'above': 0},
    'norm_momentum': {'low': 0, 'below': 1},
    'norm_epsilon': {'low': 0},
    'label_smoothing': {'low': 0, 'below': 1},
    'momentum': {'low': 0, 'below': 1},
    'bias_rate': {'above': 0},
    'head_rate': {'above': 0},
    'muon_learning_rate': {'low': 0},
    'muon_momentum': {'low': 0, 'below': 1},
    'start_share': {'low': 0},
    'plateau_epochs': {'low': 0},
    'plateau_share': {'low': 0},
    'averaging_decay': {'low': 0, 'below': 1},
    'averaging_power': {'above': 0},
}


def checked(name: str, kind: str, value: Any) -> Any:
    """The value of a field, as its plain Python type; raises where it breaks the field's rule."""
    if name in CHOICES:
        if value not in CHOICES[name]:
            raise ValueError(
                f'`{name}` of a recipe must be one of {", ".join(CHOICES[name])}. '
                f'Received: {name}={value!r}'
            )
        return value
    if kind == 'str':
        if not isinstance(value, str) or not value.strip():
            raise ValueError(f'`{name}` must be a text. Received: {name}={value!r}')
        return value
    if kind == 'bool':
        if not isinstance(value, bool):
            raise ValueError(f'`{name}` must be True or False. Received: {name}={value!r}')
        return value
    if kind.startswith('tuple'):
        if not isinstance(value, list | tuple):
            raise ValueError(f'`{name}` must be a tuple. Received: {name}={value!r}')
        if kind == 'tuple[int, ...]':
            return tuple(positive_integer(name, each) for each in value)
        return tuple(value)
    if kind == 'int':
        return positive_integer(name, value) if name in POSITIVE else integer(name, value, low=0)
    if value is None and kind.endswith('None'):
        return value
    number = finite_number(name, value, **RANGES.get(name, {}))
    return value if type(value) is int else number
