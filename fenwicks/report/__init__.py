"""One HTML page from a training run, or from several: what came out, and how.

    python -m fenwicks.report out/20261125-page24               # writes report.html into the folder
    python -m fenwicks.report out/a out/b out/c -o page.html    # compares three runs

The page needs no network and no script: it can be mailed, and opened from a disk. It follows the
reader's choice of a light or a dark screen, and fits a phone.

**What a run's folder holds.**

- `result.json`, required: what `examples/cifar10.py` writes. Of its keys the page needs `recipe`,
  `dataset`, `test_accuracy`, `train_seconds` and `history`; all others are shown where they are
  there, among them `settings`, `versions`, `commit`, `clean`, `class_names` and `command`, the
  command line that trains the same again.
- `report.npz`, optional: a `Material`, which holds predictions and images. Without it the page has
  no confusion matrix, no mistakes and no augmented samples.

`write` needs Matplotlib; saving a `Material` doesn't.
"""

from __future__ import annotations

import os
import pathlib
from collections.abc import Iterable

from fenwicks._files import check_target, written_whole
from fenwicks.report.material import Material

__all__ = ['Material', 'write']


def write(
    runs: str | os.PathLike | Iterable[str | os.PathLike],
    path: str | os.PathLike | None = None,
) -> pathlib.Path:
    """Writes the page of a run, or of several.

    Args:
        runs: the folder of a run; or several folders. A folder without a run of its own stands
            for all runs in the folders within it, as `examples/cifar10.py --runs=5` leaves them.
        path: of the page, which ends in .html; `None` for `report.html` in the folder, of which
            there must be one then.

    Returns:
        The path of the page.

    Raises:
        ValueError: a folder holds no run, or a file in it is damaged, and the message names it; or
            `path` has another ending.
        OSError: a file can't be read or written.
        ImportError: Matplotlib is missing.

    Example:

    ```python
    fenwicks.report.write('out/20261125-page24')
    ```
    """
    from fenwicks.report.pages import page  # which needs Matplotlib
    from fenwicks.report.runs import find_runs

    folders: list[str | os.PathLike] = []
    if isinstance(runs, str | os.PathLike):
        folders = [runs]
    elif isinstance(runs, Iterable):
        folders = list(runs)
    if not folders or not all(isinstance(folder, str | os.PathLike) for folder in folders):
        raise ValueError(
            f'`runs` must be the folder of a run, or a list of such folders. Received: {runs!r:.80}'
        )
    if path is None:
        if len(folders) != 1:
            raise ValueError(f'`path` must be given for several runs. Received: {len(folders)}')
        folder = pathlib.Path(folders[0]).expanduser()
        path = (folder.parent if folder.is_file() else folder) / 'report.html'
    found = find_runs(folders)
    path = check_target(path, writable=True)  # before the pictures are drawn, which takes seconds
    if path.suffix.lower() not in ('.html', '.htm'):  # such as a file of the run
        raise ValueError(f'`path` must end in .html. Received: path={path}')
    text = page(found)
    with written_whole(path) as part:
        part.write_text(text, encoding='utf-8', errors='backslashreplace')  # names of folders
    return path
