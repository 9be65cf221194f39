"""Trains a narrow network for some steps, each on all images, and prints what came of it as JSON.

`test_engines.py` runs it on each backend. With every image in every batch the order in which the
engines shuffle them doesn't matter; nor do their generators for the flips, whose coins are hashes.
"""

import functools
import json

import keras
import numpy as np

from fenwicks import augment, evaluate, losses, models, optimizers, schedules, training

STEPS = 5


def train():
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (32, 16, 16, 3), np.uint8)
    labels = random.integers(0, 10, 32, np.int32)
    model = models.resnet9(input_shape=(16, 16, 3), widths=(4, 8, 8, 16))
    for weight in model.trainable_variables:
        fresh = random.standard_normal(weight.shape, np.float32)
        weight.assign(fresh / np.sqrt(np.prod(weight.shape[:-1])) if fresh.ndim > 1 else 1 + fresh)
    trainer = training.Trainer(
        model,
        optimizers.SGD(
            schedules.OneCycle(0.05, STEPS, 1), momentum=0.9, nesterov=True, weight_decay=0.01
        ),
        losses.CrossEntropy(label_smoothing=0.1),
        batch_size=32,
        normalize=functools.partial(augment.normalize, mean=(127.5,) * 3, std=(64.0,) * 3),
        augment=augment.compose([augment.alternating_flip]),
        averaging=optimizers.EMA(0.6, every=2),
    )
    history = trainer.fit(images, labels, STEPS)
    return {
        'backend': keras.backend.backend(),
        'losses': history.history['loss'],
        'rates': history.history['learning_rate'],
        'accuracies': history.history['accuracy'],
        'logits': trainer.predict(images, batch_size=20).tolist(),
        'views': trainer.predict_views(images, 20, evaluate.FLIP_TRANSLATE).tolist(),
        'weights': [np.asarray(keras.ops.convert_to_numpy(v)).tolist() for v in model.variables],
    }


if __name__ == '__main__':
    print(json.dumps(train()))
