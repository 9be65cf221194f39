"""Trains a small network in the ways that the arguments name, and prints what came of it as JSON.

`test_replicas.py` runs it with several devices of this machine, alone or beside its like.
"""

import dataclasses
import json
import pathlib
import sys
import tempfile

import keras
import numpy as np
from training_toys import order_of, toy

from fenwicks import augment, devices, layers, optimizers, training

BATCH, EPOCHS = 32, 2


@dataclasses.dataclass(frozen=True)
class Case:
    """A training; `ghosts` are the images that are normalized together, 0 for the device's all, and
    `None` for no normalization."""

    count: int | None
    ghosts: int | None = 0
    batch_norm: str = 'per_replica'
    optimizer: str = 'sgd'
    resumed: bool = False
    loss: keras.losses.Loss | None = None
    streamed: bool = False
    accumulate: int = 1
    hard: bool = False  # half of each batch trains, which a proxy finds hardest
    validated: bool = False  # with metrics, callbacks and weights of the images, too


class TwiceTheMean(keras.losses.Loss):
    """A user's own, which Keras has nothing left to average of."""

    def call(self, targets, logits):
        losses = keras.losses.sparse_categorical_crossentropy(targets, logits, from_logits=True)
        return 2 * keras.ops.mean(losses)


CASES = {
    'ghosts_of_8': Case(1, 8, validated=True),
    'shares_on_4': Case(4, validated=True),
    'whole_on_1': Case(1, validated=True),
    'whole_on_4': Case(4, batch_norm='synchronized', validated=True),
    'muon_on_1': Case(1, 16, optimizer='muon'),
    'muon_on_2': Case(2, optimizer='muon'),
    'scaled_on_1': Case(1, 16, optimizer='scaled'),
    'scaled_on_2': Case(2, optimizer='scaled'),
    'ghosts_of_16': Case(1, 16),
    'resumed_on_2': Case(2, resumed=True),
    'plain_on_1': Case(1, 16, optimizer='plain_sgd'),
    'plain_resumed_on_2': Case(2, optimizer='plain_sgd', resumed=True),
    'own_loss_on_1': Case(1, 16, loss=TwiceTheMean()),
    'own_loss_on_2': Case(2, loss=TwiceTheMean()),
    'streamed_on_4': Case(4, streamed=True, validated=True),
    'streamed_whole_on_4': Case(4, batch_norm='synchronized', streamed=True, validated=True),
    'clipped_on_1': Case(1, None, optimizer='by_value'),
    'clipped_parts_on_2': Case(2, None, optimizer='by_value', accumulate=2),
    'globally_on_1': Case(1, 16, optimizer='by_global_norm'),
    'globally_on_2': Case(2, optimizer='by_global_norm'),
    'hard_on_2': Case(2, None, optimizer='plain_sgd', hard=True),
    'hard_parts_on_1': Case(1, None, optimizer='plain_sgd', accumulate=2, hard=True),
    'streamed_all': Case(None, streamed=True),
    'streamed_all_whole': Case(None, batch_norm='synchronized', streamed=True, validated=True),
    'all': Case(None),
    'all_plain': Case(None, optimizer='plain_sgd'),
    'all_whole': Case(None, batch_norm='synchronized', validated=True),
}


def sgd():
    return optimizers.SGD(0.05, momentum=0.9, nesterov=True, weight_decay=0.01, clipnorm=0.5)


OPTIMIZERS = {
    'sgd': (sgd, optimizers.EMA(0.5, every=3)),
    # Without clipping by norm JAX's devices divide kernels, velocities and averages.
    'plain_sgd': (
        lambda: optimizers.SGD(0.05, momentum=0.9, nesterov=True, weight_decay=0.01),
        optimizers.Lookahead(0.5, every=3),
    ),
    'muon': (
        lambda: optimizers.Muon(0.05, others=optimizers.SGD(0.05), others_match=['.*dense.*']),
        optimizers.Lookahead(0.5, every=3),
    ),
    'by_value': (lambda: optimizers.SGD(0.05, momentum=0.9, clipvalue=0.01), None),
    'by_global_norm': (
        lambda: keras.optimizers.SGD(0.05, momentum=0.9, global_clipnorm=0.1),
        None,
    ),
    'scaled': (lambda: keras.optimizers.LossScaleOptimizer(sgd(), initial_scale=256.0), None),
}


def trainer(case, replicas):
    make_optimizer, averaging = OPTIMIZERS[case.optimizer]
    with replicas.scope():
        # Every process begins with the weights of the chief.
        keras.utils.set_random_seed(1 if replicas.chief else 2)
        norm = layers.GhostBatchNormalization(case.ghosts) if case.ghosts else None
        norm = keras.layers.Identity() if case.ghosts is None else norm
        model = keras.Sequential(
            [
                keras.Input((8, 8, 3)),
                layers.Conv2D(4, 3, padding='same', kernel_regularizer='l2'),
                norm or layers.BatchNormalization(),
                layers.MaxPooling2D(),
                keras.layers.Flatten(),
                keras.layers.Dense(3, name='dense'),
            ]
        )
        if case.hard:
            with keras.name_scope('proxy'):
                pixels = [keras.Input((8, 8, 3)), keras.layers.Flatten()]
                small = keras.Sequential([*pixels, keras.layers.Dense(3)])
            model = training.HardExamples(model, small)
        return training.Trainer(
            model,
            make_optimizer(),
            case.loss,
            batch_size=BATCH,
            metrics=[
                keras.metrics.F1Score('macro'),
                keras.metrics.AUC(from_logits=True, name='auc'),
            ]
            if case.validated
            else None,
            augment=augment.compose([augment.alternating_flip]),
            averaging=averaging,
            replicas=replicas,
            accumulate=case.accumulate,
        )


class Share:
    """This process's share of the batches that a training on arrays takes, in their order."""

    def __init__(self, images, labels, replicas, weights=None):
        self.images, self.labels, self.replicas = images, labels, replicas
        self.weights = weights
        self.epoch, self.fetched = 0, set()

    def __len__(self):
        return len(self.images) // BATCH

    def stored_batch(self, index):
        size = BATCH // self.replicas.processes
        first = index * BATCH + self.replicas.process_index * size
        rows = order_of(self.epoch, 0, len(self.images))[first : first + size]
        self.fetched.update((self.epoch, row) for row in rows.tolist())
        weights = [] if self.weights is None else [self.weights[rows]]
        return self.images[rows], self.labels[rows], rows, *weights

    def __getitem__(self, index):
        images, labels, _, *weights = self.stored_batch(index)
        return images, labels, *weights


class Watch(keras.callbacks.Callback):
    """Notes what the model predicts at the end of an epoch."""

    def __init__(self, images):
        super().__init__()
        self.images, self.seen = images / np.float32(255), []

    def on_epoch_end(self, epoch, logs=None):
        self.seen.append(np.asarray(self.model(self.images)).tolist())


def validating(path):
    """Arguments of `fit`, and a callback that watches the training."""
    held_out, labels = toy(23, seed=3)
    watch = Watch(held_out[:3])
    callbacks = [
        keras.callbacks.EarlyStopping('val_loss', patience=9, restore_best_weights=True),
        keras.callbacks.ModelCheckpoint(path, 'val_f1_score', save_best_only=True, mode='max'),
        keras.callbacks.CSVLogger(path.with_suffix('.csv')),
        keras.callbacks.LearningRateScheduler(lambda epoch, rate: rate / 2),
        training.callbacks.BestWeights('val_loss'),
        watch,
    ]
    weights = np.linspace(0, 2, len(labels))
    return {'validation_data': (held_out, labels, weights), 'callbacks': callbacks}, watch


def train(case, folder):
    replicas = training.replicate(case.count, case.batch_norm, 'cpu')
    images, labels = toy(70)
    path = pathlib.Path(folder) / f'{replicas.chief}.npz'
    trained = trainer(case, replicas)
    if case.resumed:
        trained.fit(images, labels, 1, checkpoint=path)
        trained = trainer(case, replicas)
    options: dict = {}
    if case.validated:
        options, watch = validating(path.with_suffix('.keras'))
        options |= {'class_weight': {0: 2.0, 1: 0.5}}
    weights = np.linspace(0, 3, len(images)) if case.validated else None
    share = Share(images, labels, replicas, weights)
    data = (share,) if case.streamed else (images, labels)
    if not case.streamed:
        options['sample_weight'] = weights
    trained.fit(*data, epochs=EPOCHS, checkpoint=path, resume=case.resumed, **options)
    history = trained.history
    validated = {}
    if case.validated:
        best = keras.models.load_model(path.with_suffix('.keras'))
        validated = {
            'history': history.history,
            'watched': watch.seen,
            'best': np.concatenate([np.ravel(value) for value in best.get_weights()]).tolist(),
            'lines': len(path.with_suffix('.csv').read_text().splitlines()),
        }
    variables = [keras.ops.convert_to_numpy(v) for v in trained.variables]
    return {
        'replicas': replicas.count,
        'processes': replicas.processes,
        'checkpoint': path.exists(),
        'fetched': len(share.fetched),
        'uneven': uneven(trained, images, labels, replicas) if case.streamed else '',
        'losses': history.history['loss'],
        'accuracies': history.history['accuracy'],
        **validated,
        # As many as don't divide by the devices, and fewer than there are.
        'logits': trained.predict(images[:11], batch_size=8).tolist(),
        'variables': np.concatenate([np.ravel(value) for value in variables]).tolist(),
    }


def uneven(trained, images, labels, replicas):
    """What a Trainer says of processes that don't have equally many batches."""
    count = BATCH * (1 + replicas.process_index)
    try:
        trained.fit(Share(images[:count], labels[:count], replicas), epochs=EPOCHS)
    except ValueError as error:
        return str(error)
    return ''


def seeds():
    """What four devices of TensorFlow make of one seed."""
    import tensorflow as tf

    replicas = training.replicate(4, device='cpu')
    strategy = replicas.strategy
    draw = tf.function(lambda: strategy.run(lambda: replicas.local_seed((3, 4))), autograph=False)
    drawn = draw()
    return [seed.numpy().tolist() for seed in strategy.experimental_local_results(drawn)]


if __name__ == '__main__':
    devices.connect()
    with tempfile.TemporaryDirectory() as folder:
        found = {
            name: seeds() if name == 'seeds' else train(CASES[name], folder)
            for name in sys.argv[1:]
        }
    print(json.dumps(found))
