"""What commands say of errors that have no line of their own."""

import pytest

from fenwicks import command


class ResourceExhaustedError(Exception):
    """Named as TensorFlow's, which is no RuntimeError."""


@pytest.mark.parametrize(
    'error',
    [
        ResourceExhaustedError('OOM when allocating\ntensor with shape[9,9]' + 500 * '.'),
        RuntimeError('RESOURCE_EXHAUSTED: Out of memory while trying to allocate 9 bytes.'),
    ],
)
def test_no_room_in_memory_is_one_line(error, monkeypatch):
    def main():
        raise error

    with pytest.raises(SystemExit) as ended:
        command.call(main, 'train.py')
    line = ended.value.code
    assert line.startswith('train.py: the memory must have room for the network and a batch: make')
    assert '\n' not in line
    assert len(line) < 350
    monkeypatch.setenv('FENWICKS_TRACEBACK', '1')
    with pytest.raises(type(error)):
        command.call(main, 'train.py')


def test_a_fault_of_the_code_has_its_traceback():
    def main():
        raise TypeError('a fault')

    with pytest.raises(TypeError, match='a fault'):
        command.call(main, 'train.py')
