"""The progress bar of a training."""

from __future__ import annotations

import sys

import tqdm

from fenwicks.training.history import logs_of


class Progress:
    """One bar over all images of a training: rate, loss, accuracy, learning rate, time to go.

    Args:
        total_images: images of the whole training, all epochs together.
        done_images: those that an earlier, interrupted part has trained on.
        epochs: number of epochs.
        verbose: 0 shows nothing, 1 bar and lines, 2 the lines alone; see `check_verbose`.
    """

    def __init__(self, total_images, done_images, epochs, verbose=1):
        self._epochs, self._shown = epochs, bool(verbose)
        self._bar = tqdm.tqdm(
            total=total_images,
            initial=done_images,
            unit=' images',
            file=sys.stderr,
            dynamic_ncols=True,
            disable=verbose != 1,
        )

    def advance(self, epoch, images, loss, accuracy, rate):
        """Moves the bar by `images` and shows the running means of the epoch (from 0)."""
        self._bar.set_description(f'epoch {epoch + 1}/{self._epochs}', refresh=False)
        share = '' if accuracy is None else f'accuracy {accuracy:.3f}, '
        self._bar.set_postfix_str(f'loss {loss:.3f}, {share}rate {rate:.4f}', refresh=False)
        self._bar.update(images)

    def finish_epoch(self, record):
        """Prints the line of an epoch that stays on the screen."""
        if not self._shown:
            return
        reached = ''.join(
            f'   {name} {value:.4f}'
            for name, value in logs_of(record).items()
            if isinstance(value, float)
        )
        self._bar.write(
            f'epoch {record["epoch"]:3d}/{self._epochs}{reached}   '
            f'rate {record["learning_rate"]:.4f}   '
            f'{record["images_per_second"]:.0f} images/s   {record["seconds"]:.1f} s',
            file=sys.stderr,
        )

    def close(self):
        self._bar.close()


def check_verbose(verbose: str | int) -> int:
    """A checked `verbose` of Keras's `fit` as 0, 1 or 2.

    'auto' is 1 on a terminal and in a notebook, and 2 elsewhere, as where a log is written.

    Raises:
        ValueError: it is none of those.
    """
    if verbose == 'auto':
        return 1 if sys.stderr.isatty() or _in_notebook() else 2
    if isinstance(verbose, bool) or verbose not in (0, 1, 2):
        raise ValueError(f"`verbose` must be 'auto', 0, 1 or 2. Received: verbose={verbose!r}")
    return int(verbose)


def _in_notebook():
    """Whether this process is a notebook's kernel; having its package imported isn't enough."""
    interactive = getattr(sys.modules.get('IPython'), 'get_ipython', lambda: None)()
    return getattr(interactive, 'kernel', None) is not None
