"""Class names in a model's file: they travel with it, and Keras doesn't mind."""

import zipfile

import keras
import numpy as np
import pytest

from fenwicks import models


@pytest.fixture
def path(tmp_path):
    """A model's file without class names."""
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    model.save(tmp_path / 'model.keras')
    return tmp_path / 'model.keras'


def test_names_come_back_and_the_model_loads_as_before(path):
    before = keras.saving.load_model(path)
    assert models.read_class_names(path) is None
    models.write_class_names(path, ['Kätzchen', 'dog'])
    assert models.read_class_names(path) == ('Kätzchen', 'dog')
    after = keras.saving.load_model(path)
    for old, new in zip(before.get_weights(), after.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_names_are_written_once(path):
    models.write_class_names(path, ['cat', 'dog'])
    with pytest.raises(ValueError, match=r'model\.keras must have no class names yet'):
        models.write_class_names(path, ['cat', 'dog'])


def test_files_that_are_no_models_are_named(path):
    path.write_bytes(b'no archive')
    for function in (models.read_class_names, lambda path: models.write_class_names(path, [])):
        with pytest.raises(ValueError, match=r'model\.keras must be a model as Keras saves it'):
            function(path)
    with zipfile.ZipFile(path, 'w') as archive:
        archive.writestr('class_names.json', '{"0": "cat"}')
    with pytest.raises(ValueError, match='without a list of names'):
        models.read_class_names(path)
    path.unlink()
    with pytest.raises(FileNotFoundError):
        models.read_class_names(path)
