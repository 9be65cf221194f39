"""Keras's metrics within the compiled steps, and of a whole set of images."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from fenwicks._checks import sequence
from fenwicks._errors import one_line
from fenwicks.training import targets

_ACCURACY = ('accuracy', 'acc')
# Names that a record of an epoch has already.
_TAKEN = ('loss', 'accuracy', 'learning_rate', 'epoch', 'seconds', 'images_per_second')
# Metrics that are of probabilities and can't be told that they get logits.
_OF_PROBABILITIES = (
    keras.metrics.BinaryAccuracy,
    keras.metrics.BinaryIoU,
    keras.metrics.FalseNegatives,
    keras.metrics.FalsePositives,
    keras.metrics.KLDivergence,
    keras.metrics.Poisson,
    keras.metrics.Precision,
    keras.metrics.PrecisionAtRecall,
    keras.metrics.Recall,
    keras.metrics.RecallAtPrecision,
    keras.metrics.SensitivityAtSpecificity,
    keras.metrics.SpecificityAtSensitivity,
    keras.metrics.TrueNegatives,
    keras.metrics.TruePositives,
)


@keras.saving.register_keras_serializable(package='fenwicks')
class OfProbabilities(keras.metrics.Metric):
    """A metric of probabilities, for a model that returns logits.

    ```
    metric(labels, activation(logits))
    ```

    Args:
        metric: a `keras.metrics.Metric` of probabilities.
        activation: `'sigmoid'`, for labels that exclude none, or `'softmax'`.
        name: string; by default the metric's.

    Call arguments:
        y_true: labels as the metric takes them.
        y_pred: logits `(batch, outputs)`.

    Example:

    >>> recall = OfProbabilities(keras.metrics.Recall(), 'sigmoid')
    >>> float(recall(np.array([[1.0, 0.0, 1.0]]), np.array([[2.0, 3.0, -1.0]])))
    0.5
    """

    def __init__(self, metric: keras.metrics.Metric, activation: str, name: str | None = None):
        super().__init__(name=name or metric.name)
        if activation not in ('sigmoid', 'softmax'):
            raise ValueError(
                f"`activation` must be 'sigmoid' or 'softmax'. Received: activation={activation!r}"
            )
        self.metric, self.activation = metric, activation

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Adds a batch."""
        probabilities = keras.activations.get(self.activation)(ops.convert_to_tensor(y_pred))
        self.metric.update_state(y_true, probabilities, sample_weight)

    def result(self) -> Any:
        """The metric's result."""
        return self.metric.result()

    def reset_state(self) -> None:
        """Forgets all batches."""
        self.metric.reset_state()

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        metric = keras.saving.serialize_keras_object(self.metric)
        return {'metric': metric, 'activation': self.activation, 'name': self.name}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> OfProbabilities:
        """The metric of a configuration."""
        return cls(**{**config, 'metric': keras.saving.deserialize_keras_object(config['metric'])})


class MetricSet:
    """The metrics of a Trainer beside the accuracy, which it counts by itself.

    Args:
        metrics: names, functions or `keras.metrics.Metric`s, as `keras.Model.compile` takes them.
        loss: the Trainer's, which may be of logits.

    Raises:
        ValueError: one is no metric, or is of probabilities while the loss is of logits.
    """

    def __init__(self, metrics: Sequence[Any] | None, loss: Any):
        given = keras.tree.flatten(sequence('metrics', metrics or (), 'metrics or their names'))
        self._given = [each for each in given if each not in _ACCURACY]
        self._asks_for_accuracy = len(self._given) < len(given)
        self._loss = loss
        self.metrics = self.copies()
        _check_names([metric.name for metric in self.metrics])
        self._adapt = [_unchanged for _ in self.metrics]

    @property
    def variables(self) -> list[keras.Variable]:
        return [variable for metric in self.metrics for variable in metric.variables]

    def copies(self) -> list[keras.metrics.Metric]:
        """Metrics like these, with variables of their own."""
        of_logits = targets.of_logits(self._loss)
        return [_metric(each, of_logits) for each in self._given]

    def check(self, labels: np.ndarray, outputs: int) -> None:
        """Raises a `ValueError` where a metric doesn't take labels of this form."""
        if self._asks_for_accuracy and not targets.has_accuracy(self._loss, labels):
            raise ValueError(
                '`metrics` must not name the accuracy where the loss may be of numbers: where the '
                "largest is the class, pass keras.metrics.CategoricalAccuracy('top') or integer "
                f'labels. Received: labels of {labels.shape[1]} numbers for each image'
            )
        _check_names([name for each in self.metrics for name in _names(each, labels, outputs)])

    def fit_to(self, labels: np.ndarray) -> None:
        """Chooses for each metric whether it gets labels of the training as they are or one-hot.

        That isn't seen from a batch, whose labels an augmentation may have mixed.
        """
        self._adapt = self._adapters(labels)

    def _adapters(self, labels):
        return [_adapter(metric, labels) for metric in self.metrics]

    def reset(self) -> None:
        """Forgets all batches."""
        for metric in self.metrics:
            metric.reset_state()

    def update(self, labels: Any, outputs: Any) -> None:
        """Adds a batch, in the metrics' variables."""
        for metric, adapt in zip(self.metrics, self._adapt, strict=True):
            metric.update_state(adapt(labels, outputs), outputs)

    def updated(self, values: Sequence[Any], labels: Any, outputs: Any) -> list[Any]:
        """The values of the variables after a batch, from those before it."""
        values, after = list(values), []
        for metric, adapt in zip(self.metrics, self._adapt, strict=True):
            count = len(metric.variables)
            before, values = values[:count], values[count:]
            after += metric.stateless_update_state(before, adapt(labels, outputs), outputs)
        return after

    def of_all(self, labels: Any, outputs: Any) -> list[Any]:
        """The results of a set of images, with their labels as they were given, and without the
        variables."""
        adapters = self._adapters(labels)
        return [
            _result(metric, adapt(labels, outputs), outputs)
            for metric, adapt in zip(self.metrics, adapters, strict=True)
        ]

    def results(self) -> dict[str, Any]:
        """The results so far, by name."""
        return self.named([metric.result() for metric in self.metrics])

    def named(self, results: Sequence[Any]) -> dict[str, Any]:
        """Results by the metrics' names, as numbers, or lists where there are several."""
        named: dict[str, Any] = {}
        for metric, result in zip(self.metrics, results, strict=True):
            each = result if isinstance(result, dict) else {metric.name: result}
            named |= {
                name: np.asarray(ops.convert_to_numpy(value)).tolist()
                for name, value in each.items()
            }
        warn_unless_finite(named)
        return named


def warn_unless_finite(scores: dict[str, Any]) -> None:
    """Warns of scores that are infinite or NaN.

    It is no error: a metric may have no value, such as the precision where nothing is positive, and
    a model that diverged may be scored.
    """
    for name, value in scores.items():
        if not np.isfinite(value).all():
            warnings.warn(
                f'`{name}` should be finite: the model, or the metric, may hold NaN. '
                f'Received: {name}={value}',
                stacklevel=3,
            )


def _check_names(names):
    names = [*_TAKEN, *names]
    names += [f'val_{name}' for name in names]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(
                '`metrics` must have different names, other than those of the records. '
                f'Received: {name} twice'
            )


def _metric(given, of_logits):
    """A metric of the Trainer's own, which shares no variable with that of the caller."""
    rule = (
        '`metrics` must be names or objects of keras.metrics, whose get_config returns all '
        'arguments of their constructors'
    )
    try:
        metric = keras.metrics.get(given)
        if not isinstance(metric, keras.metrics.Metric):
            name = given if isinstance(given, str) else given.__name__
            metric = keras.metrics.MeanMetricWrapper(metric, name=name)
        elif isinstance(given, str):
            logits = {'from_logits': True} if of_logits and _from_logits(metric) is False else {}
            metric = type(metric).from_config({**metric.get_config(), 'name': given, **logits})
        else:
            _check_config(metric)
            metric = type(metric).from_config(metric.get_config())
    except (AttributeError, NotImplementedError, TypeError, ValueError) as error:
        reason = one_line(error, 200)
        raise ValueError(f'{rule}. Received: {given!r} ({reason})') from None
    kind = type(metric).__name__
    if of_logits and _from_logits(metric) is False:
        raise ValueError(
            f'`metrics` must take logits, as the model returns them: pass {kind}(from_logits=True)'
        )
    if of_logits and (
        isinstance(metric, _OF_PROBABILITIES) or getattr(metric, 'threshold', None) is not None
    ):
        raise ValueError(
            '`metrics` must take logits, as the model returns them: pass training.metrics.'
            f"OfProbabilities({kind}(...), 'sigmoid' or 'softmax'). Received: {kind}"
        )
    return metric


def _check_config(metric):
    """Raises where a metric made of another's configuration would have lost some arguments."""
    metric = getattr(metric, 'metric', metric)  # of an `OfProbabilities`
    if type(metric).__module__.startswith('keras.'):
        return
    config = metric.get_config()
    lost = [
        parameter.name
        for parameter in inspect.signature(type(metric)).parameters.values()
        if parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        and parameter.name not in ('name', 'dtype', *config)
    ]
    if lost:
        raise ValueError(f'get_config lacks {", ".join(lost)}')


def _from_logits(metric):
    return metric.get_config().get('from_logits')


def _adapter(metric, labels):
    """A function of labels and outputs to the form in which a metric takes the labels."""
    if len(labels.shape) > 1:
        return _unchanged
    return _class_numbers if _takes_integers(metric) else _one_hot


def _names(metric, labels, outputs):
    """The names of a metric's results; raises where it doesn't take labels of this form."""
    adapt = _adapter(metric, labels)
    # Another number of rows than of columns, lest one is broadcast over the other.
    labels = np.resize(labels, (outputs + 1, *labels.shape[1:]))
    values = ops.convert_to_tensor(np.full((len(labels), outputs), 1 / outputs, np.float32))
    try:
        result = _result(metric, adapt(ops.convert_to_tensor(labels), values), values)
    except Exception as error:  # a metric may raise anything
        reason = one_line(error, 200)
        form = f'{outputs} numbers' if labels.ndim > 1 else 'a class'
        raise ValueError(
            f'`metrics` must take the labels. Received: {metric.name}, and labels that are {form} '
            f'for each image ({reason})'
        ) from None
    return list(result) if isinstance(result, dict) else [metric.name]


def _result(metric, labels, outputs):
    """Of one set of images, without the metric's variables."""
    values = metric.stateless_update_state(metric.stateless_reset_state(), labels, outputs)
    return metric.stateless_result(values)


def _takes_integers(metric):
    """Whether a metric is of class numbers; Keras's others would broadcast them in silence."""
    metric = getattr(metric, 'metric', metric)  # of an `OfProbabilities`
    names = (type(metric).__name__, metric.name)
    if any(name.lower().startswith('sparse') for name in names):
        return True
    home = getattr(metric, '_fn', type(metric)).__module__  # of a function, that is wrapped
    return getattr(metric, 'sparse_y_true', not home.startswith('keras.'))


def _unchanged(labels, outputs):
    return labels


def _class_numbers(labels, outputs):
    """Of an augmentation that mixes labels, the class of the largest share."""
    return labels if len(labels.shape) == 1 else ops.argmax(labels, -1)


def _one_hot(labels, outputs):
    if len(labels.shape) > 1:  # an augmentation mixed them
        return labels
    return ops.one_hot(labels, outputs.shape[-1], dtype='float32')
