"""Class names in a model's file: whoever gets the file knows what its logits stand for."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Sequence

_MEMBER = 'class_names.json'


def write_class_names(path: str | os.PathLike[str], class_names: Sequence[str]) -> None:
    """Adds the names of the classes to a `.keras` file that has none yet.

    The file is a ZIP archive, and Keras leaves members alone that it doesn't know: it loads the
    model as before. A model that is loaded and saved anew has lost them.

    Args:
        path: of the file, as `model.save` wrote it.
        class_names: one name for each logit, in their order.

    Raises:
        ValueError: the file is no `.keras` file, or has names already.
        OSError: the file can't be read or written.

    Example:

    ```python
    model.save('model.keras')
    fenwicks.models.write_class_names('model.keras', dataset.class_names)
    ```
    """
    if read_class_names(path) is not None:
        raise ValueError(f'{path} must have no class names yet. Received: one that has')
    with zipfile.ZipFile(path, 'a') as archive:
        archive.writestr(_MEMBER, json.dumps([str(name) for name in class_names]))


def read_class_names(path: str | os.PathLike[str]) -> tuple[str, ...] | None:
    """The names of the classes in a `.keras` file, in the order of the logits.

    Args:
        path: of the file.

    Returns:
        The names; `None` where the file has none.

    Raises:
        ValueError: the file is no `.keras` file, or its names are damaged.
        OSError: the file can't be read.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            if _MEMBER not in archive.namelist():
                return None
            names = json.loads(archive.read(_MEMBER))
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise ValueError(f'{_MEMBER} without a list of names')
    except (ValueError, zipfile.BadZipFile) as error:
        raise ValueError(f'{path} must be a model as Keras saves it. Received: {error}') from None
    return tuple(names)
