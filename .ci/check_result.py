"""Checks what a training left in its folder: every promised field, and a model that plain Keras
loads and evaluates to the accuracy that the result states."""

import argparse
import json
import pathlib

FIELDS = (
    'recipe', 'dataset', 'backend', 'device', 'precision', 'seed', 'epochs', 'train_images',
    'test_accuracy', 'test_accuracy_plain', 'test_loss', 'train_seconds', 'compile_seconds',
    'preprocess_seconds', 'eval_seconds', 'images_per_second', 'peak_memory_mb', 'versions',
    'history',
)  # fmt: skip

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument('folder', type=pathlib.Path)
parser.add_argument('--dataset', required=True)
parser.add_argument('--at_least', type=float, required=True, help='test accuracy, a fraction')
arguments = parser.parse_args()

result = json.loads((arguments.folder / 'result.json').read_text())
missing = [field for field in FIELDS if field not in result]
assert not missing, f'result.json lacks {missing}'
assert result['dataset'] == arguments.dataset, result['dataset']
assert result['test_accuracy'] >= arguments.at_least, result['test_accuracy']
assert not (arguments.folder / 'checkpoint.npz').exists()

import keras  # noqa: E402

import fenwicks  # noqa: E402

model = keras.saving.load_model(arguments.folder / 'model.keras')
if arguments.dataset == 'digits':
    dataset = fenwicks.data.load('digits')
    _, accuracy = model.evaluate(dataset.test_images, dataset.test_labels, verbose=0)
    plain = result['test_accuracy_plain']
    # The saved model computes in float32, whatever it was trained in.
    rounding = 1e-6 if result['precision'] == 'float32' else 0.01
    assert abs(accuracy - plain) < rounding, (accuracy, plain)
print(f'{arguments.folder}: {100 * result["test_accuracy"]:.2f} % on {result["dataset"]}')
