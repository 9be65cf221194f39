"""Learning rates of the stages of a pretrained network, as parameter groups."""

from __future__ import annotations

import itertools
import operator
import re
from collections.abc import Iterator, Sequence

import keras

from fenwicks._checks import finite_number
from fenwicks.models import backbone_stages
from fenwicks.optimizers.groups import ParameterGroup

_LONGEST = 1500  # characters of a pattern


def stage_groups(model: keras.Model, factor: float = 0.5) -> list[ParameterGroup]:
    """Parameter groups in which each stage of a backbone learns more slowly than the next.

    ```
    rate of the head         = the optimizer's rate
    rate of the last stage   = factor * the optimizer's rate
    rate of the one before   = factor**2 * the optimizer's rate, and so on
    ```

    Args:
        model: of `fenwicks.models.pretrained`. Stages that are frozen get no group: call
            `fenwicks.models.unfreeze` first.
        factor: in (0, 1]; 1 is the same rate everywhere.

    Returns:
        A list for `groups` of `SGD`, the first stage first.

    Raises:
        ValueError: an argument breaks its rule, or `model` contains no backbone.

    Example:

    >>> from fenwicks.models import pretrained
    >>> model = pretrained('VGG16', 4, input_shape=(32, 32, 3), weights=None, trainable_stages=2)
    >>> [(group.match, group.learning_rate) for group in stage_groups(model)]
    [('(block4).*', 0.25), ('(block5).*', 0.5)]

    Reference:
        Howard and Ruder, https://arxiv.org/abs/1801.06146, "discriminative fine-tuning"
    """
    factor = finite_number('factor', factor, above=0, high=1)
    stages = backbone_stages(model)
    trained = {id(variable) for variable in model.trainable_variables}
    paths = [
        [each.path for layer in stage for each in layer.variables if id(each) in trained]
        for stage in stages
    ]
    groups = []
    for place, in_stage in enumerate(paths):
        others = [each.path for each in model.trainable_variables if each.path not in set(in_stage)]
        for match in _patterns(in_stage, others):
            groups.append(ParameterGroup(match, factor ** (len(stages) - place)))
    return groups


def _patterns(paths: Sequence[str], others: Sequence[str]) -> Iterator[str]:
    """Regular expressions that match `paths` and none of the `others`, by how the paths begin."""
    found = sorted({_beginning(path, others) for path in paths})
    beginnings: list[str] = []  # without those that a shorter one includes
    for beginning in found:
        if not beginnings or not beginning.startswith(beginnings[-1]):
            beginnings.append(beginning)
    escaped = [re.escape(beginning) for beginning in beginnings]
    lengths = itertools.accumulate(len(each) + 1 for each in escaped)
    numbered = zip((length // _LONGEST for length in lengths), escaped, strict=True)
    for _, part in itertools.groupby(numbered, operator.itemgetter(0)):
        yield f'({"|".join(each for _, each in part)}).*'


def _beginning(path: str, others: Sequence[str]) -> str:
    """The shortest beginning of a path, up to the end of a word, that no other path has."""
    for end in re.finditer(r'(?<=[a-z0-9])(?=[^a-z0-9]|$)', path):
        beginning = path[: end.end()]
        if beginning and not any(other.startswith(beginning) for other in others):
            return beginning
    return path
