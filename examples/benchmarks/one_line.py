"""Errors that end a script with one line on standard error."""

from __future__ import annotations

import pathlib
import sys

from absl import flags


def fail(script, error):
    """Ends the script at the path `script`, for the reason `error`."""
    sys.exit(f'{pathlib.Path(script).name}: {" ".join(str(error).split())}')


def parse_flags(script, argv):
    """Checks the command's flags; there are no other arguments."""
    try:
        rest = flags.FLAGS(argv)
    except flags.Error as error:
        fail(script, error)
    except SystemExit:  # of --help, which absl ends with 1
        sys.exit(0)
    if len(rest) > 1:
        fail(script, f'there are no arguments besides flags. Received: {rest[1]}')
    return rest
