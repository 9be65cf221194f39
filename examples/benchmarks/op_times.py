"""Attributes a program's time to its operations, on TensorFlow's CPU device.

TensorFlow's profiler records when each operation ran on which thread. An operation keeps the name
that it got when its graph was built, and the graph records the lines of Python that built it. From
these follow the operation's layer, source line and direction (forward, or backward in a gradient).
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import glob
import os
import tempfile
from collections.abc import Callable, Iterable

import keras
import tensorflow as tf
from model_layers import layers_with_paths

import fenwicks

KINDS = (
    'convolution, forward',
    'convolution, input gradient',
    'convolution, kernel gradient',
    'batch norm, forward',
    'batch norm, backward',
    'activation, forward',
    'activation, backward',
    'pooling, forward',
    'pooling, backward',
    'head, forward',
    'head, backward',
    'loss',
    'optimizer',
    'averages of weights',
    'augmentation',
    'casts',
    'other',
)
IDLE = 'no operation running'
_PACKAGE = os.path.join(os.path.dirname(fenwicks.__file__), '')


@dataclasses.dataclass(frozen=True)
class Event:
    """One run of an operation: its name in the graph, its type, start and end in seconds."""

    name: str
    type: str
    start: float
    end: float


@dataclasses.dataclass(frozen=True)
class Source:
    """Where in the model and in the source an operation comes from.

    Attributes:
        kind: one of `KINDS`.
        layer: path of the layer, '' outside of the model.
        line: the innermost line of fenwicks that built the operation, such as `convolution.py:80`.
    """

    kind: str
    layer: str
    line: str


def trace(work: Callable) -> list[Event]:
    """Runs `work` under the profiler and returns the operations that it recorded.

    Raises:
        RuntimeError: the profiler recorded no operations.
    """
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    options = tf.profiler.experimental.ProfilerOptions(host_tracer_level=2, python_tracer_level=0)
    with tempfile.TemporaryDirectory() as folder:
        tf.profiler.experimental.start(folder, options)
        try:
            work()
        finally:
            tf.profiler.experimental.stop()
        space = xplane_pb2.XSpace()
        for path in glob.glob(f'{folder}/**/*.xplane.pb', recursive=True):
            with open(path, 'rb') as file:
                space.MergeFromString(file.read())
    events = [event for plane in space.planes for event in _operations(plane)]
    if not events:
        raise RuntimeError('the profiler recorded no operations')
    return events


def _operations(plane):
    """The operations among a plane's events.

    Their events are called NAME:TYPE, except that asynchronous operations, such as XLA's programs,
    are events of the executor with both as statistics.
    """
    names = {key: value.name for key, value in plane.event_metadata.items()}
    statistics = {key: value.name for key, value in plane.stat_metadata.items()}
    for line in plane.lines:
        for event in line.events:
            name, colon, kind = names[event.metadata_id].rpartition(':')
            if name == 'ExecutorState::ProcessAsync:' and kind == 'Start':
                known = {
                    statistics[one.metadata_id]: one.str_value or statistics.get(one.ref_value, '')
                    for one in event.stats
                }
                name, kind = known.get('name', ''), known.get('kernel_type', 'Async')
            elif not colon or not kind.isidentifier() or name.endswith(':'):
                continue
            start = line.timestamp_ns / 1e9 + event.offset_ps / 1e12
            yield Event(name, kind, start, start + event.duration_ps / 1e12)


def share_time(events: Iterable[Event]) -> collections.Counter:
    """Computes the seconds of each `(name, type)`; with `IDLE` they add up to the elapsed time.

    While several operations run at once, each gets an equal share of the time, so that nothing is
    counted twice.

    Example:

    >>> share_time([Event('a', 'Mul', 0, 3), Event('b', 'Add', 2, 4), Event('a', 'Mul', 5, 6)])
    Counter({('a', 'Mul'): 3.5, ('b', 'Add'): 1.5, 'no operation running': 1})
    """
    changes = []
    for event in events:
        if event.end > event.start:
            changes += [(event.start, 1, event), (event.end, -1, event)]
    changes.sort(key=lambda change: change[:2])
    seconds, running, now = collections.Counter(), collections.Counter(), None
    for time, change, event in changes:
        passed = time - now if now is not None else 0
        if passed and running:
            count = running.total()
            for key, times in running.items():
                seconds[key] += passed * times / count
        elif passed:
            seconds[IDLE] += passed
        running[event.name, event.type] += change
        running += collections.Counter()  # drops those at 0
        now = time
    return seconds


def profile_steps(trainer, scopes, epoch: int, steps: int) -> tuple[list[dict], dict[str, float]]:
    """Profiles the first steps of an epoch of which a `Trainer` has taken some before.

    Args:
        trainer: with data and a compiled program.
        scopes: of its model, from `note_scopes`, called before the program was compiled.
        epoch: the epoch, from 0.
        steps: how many steps.

    Returns:
        A dict for each operation, the longest first: its `type`, the fields of its `Source`, its
        `milliseconds` and its `runs` in a step; and the milliseconds of a step by kind, those of
        `IDLE` included.
    """
    events = trace(lambda: trainer.run_steps(epoch, 0, steps))
    seconds = share_time(events)
    idle = seconds.pop(IDLE, 0.0)
    find = Sources(trainer.graph(epoch), scopes).find
    runs = collections.Counter((event.name, event.type) for event in events)
    operations = [
        {
            'type': key[1],
            **dataclasses.asdict(find(*key)),
            'milliseconds': 1000 * spent / steps,
            'runs': runs[key] / steps,
        }
        for key, spent in seconds.most_common()
    ]
    kinds = dict.fromkeys(KINDS, 0.0)
    for operation in operations:
        kinds[operation['kind']] += operation['milliseconds']
    return operations, {**kinds, IDLE: 1000 * idle / steps}


def note_scopes(model) -> dict[str, tuple[keras.layers.Layer, str]]:
    """A dict from name scopes to layers and their paths; it fills while the graph is built."""
    scopes = {}

    def note(layer, path):
        call = layer.call

        @functools.wraps(call)
        def noted(*args, **kwargs):
            scopes[tf.get_current_name_scope()] = layer, path
            return call(*args, **kwargs)

        layer.call = noted

    for layer, path in list(layers_with_paths(model)):
        note(layer, path)
    return scopes


class Sources:
    """Finds the `Source` of the operations of a traced function.

    Args:
        graph: the function's graph; the bodies of its loops are searched as well.
        scopes: the layers' name scopes, from `note_scopes`.
    """

    def __init__(self, graph, scopes):
        self._frames, self._scopes = {}, {}
        for operation in _all_operations(graph):
            frames = [(frame.filename, frame.lineno, frame.name) for frame in operation.traceback]
            self._frames[operation.name] = frames
        for scope, (layer, path) in scopes.items():
            self._scopes[scope] = (_kind_of_layer(layer), path)
        for name, frames in self._frames.items():
            kind = _kind_of_place(frames)
            scope = name.rpartition('/')[0]
            if kind and scope.count('/') and not name.startswith('gradient_tape/'):
                self._scopes.setdefault(scope, (kind, ''))

    def find(self, name, type) -> Source:
        """The source of the operation that the profiler calls `name`."""
        # Operations in the body of a loop are called while/body/_1/NAME.
        name = _outside_of_loops(name)
        frames = self._frames.get(name, ())
        back = name.startswith('gradient_tape/')
        kind, layer = self._innermost(name.removeprefix('gradient_tape/'))
        place = _kind_of_place(frames)
        if place and not layer:
            kind = place
        if type == 'Cast' and kind not in ('augmentation', 'loss', 'optimizer'):
            kind = 'casts'
        if kind == 'convolution':
            kind += f', {_direction(type, frames) if back else "forward"}'
        elif kind in ('batch norm', 'activation', 'pooling', 'head'):
            kind += ', backward' if back else ', forward'
        return Source(kind, layer, _line(frames))

    def _innermost(self, name):
        scope = name
        while scope:
            if scope in self._scopes:
                return self._scopes[scope]
            scope = scope.rpartition('/')[0]
        return 'other', ''


def _line(frames):
    """The innermost line of the package that isn't shared by all operations."""
    for filename, number, function in reversed(frames):
        place = os.path.basename(filename), function
        if place == ('tensorflow.py', '_differentiate'):
            return ''  # the call that builds the whole backward pass
        # All functions that XLA compiles are called in one place, which isn't theirs.
        if filename.startswith(_PACKAGE) and place != ('xla.py', 'call'):
            return f'{place[0]}:{number}'
    return ''


def _all_operations(graph):
    for operation in graph.get_operations():
        yield operation
        for part in ('_body_graph', '_true_graph', '_false_graph'):
            inner = getattr(operation, part, None)
            if inner is not None:
                yield from _all_operations(inner)


def _outside_of_loops(name):
    """`name` without the prefix of the loop or branch that contains it."""
    parts = name.split('/')
    for i in range(len(parts) - 1, 1, -1):
        if parts[i - 1] in ('body', 'cond', 'then', 'else') and parts[i].lstrip('_').isdigit():
            return '/'.join(parts[i + 1 :])
    return name


def _kind_of_layer(layer):
    name = type(layer).__name__
    if isinstance(layer, keras.layers.Activation) or name in ('GELU', 'SiLU', 'CELU', 'ReLU'):
        return 'activation'
    for word, kind in (
        ('Norm', 'batch norm'),
        ('Pool', 'pooling'),
        ('Conv2D', 'convolution'),
        ('PatchWhitening', 'convolution'),
        ('Dense', 'head'),
        ('Classifier', 'head'),
        ('Scaling', 'head'),
    ):
        if word in name:
            return kind
    return 'other'


def _kind_of_place(frames):
    """The kind of an operation according to the files that built it, or ''."""
    files = [filename for filename, _, _ in frames]
    for word, kind in (
        (f'{_PACKAGE}augment{os.sep}', 'augmentation'),
        (f'{_PACKAGE}losses.py', 'loss'),
        (f'{os.sep}averaging.py', 'averages of weights'),
        (f'{os.sep}optimizers{os.sep}', 'optimizer'),
    ):
        if any(word in filename for filename in files):
            return kind
    # The gather of a batch, its normalization and augmentation.
    if any(name == 'inputs' and filename.startswith(_PACKAGE) for filename, _, name in frames):
        return 'augmentation'
    return ''


def _direction(type, frames):
    """Which gradient of a convolution an operation belongs to."""
    names = {name for filename, _, name in frames if filename.startswith(_PACKAGE)}
    if (
        'BackpropFilter' in type
        or type == 'BiasAddGrad'
        or any('kernel_gradient' in name for name in names)
    ):
        return 'kernel gradient'
    return 'input gradient'
