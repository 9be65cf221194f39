"""Lists of image files: folders, CSV files, patterns, and what is wrong with them."""

import os

import numpy as np
import pytest

from fenwicks.data import ImageList


def touch(root, *paths):
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(b'x')
    return root


def refused(call, error=ValueError, match=''):
    with pytest.raises(error, match=match) as caught:
        call()
    assert '\n' not in str(caught.value)
    return str(caught.value)


# Folders.


def test_a_folder_for_each_class(tmp_path):
    touch(tmp_path, 'dog/2.JPG', 'dog/deep er/1.png', 'cat/ü 1.jpeg', 'cat/.hidden.png')
    touch(tmp_path, 'cat/notes.txt', '.git/x.png', '__MACOSX/cat/1.png')
    images = ImageList.from_folders(tmp_path)
    assert images.class_names == ('cat', 'dog')
    assert images.paths == ('cat/ü 1.jpeg', 'dog/2.JPG', 'dog/deep er/1.png')
    assert images.labels.tolist() == [0, 1, 1]
    assert images.labels.dtype == np.int32
    assert images.files[0] == tmp_path / 'cat' / 'ü 1.jpeg'
    assert (len(images), images.num_classes) == (3, 2)
    assert repr(images) == f'ImageList({str(tmp_path)!r}, 3 images, 2 classes)'
    selected = images.select([2, 0])
    assert selected.paths == ('dog/deep er/1.png', 'cat/ü 1.jpeg')
    assert selected.labels.tolist() == [1, 0]
    assert images.select(images.labels == 1).paths == images.paths[1:]


def test_files_that_are_left_out_are_told(tmp_path, caplog):
    """Files that may well be pictures; not the texts that often lie beside them."""
    touch(tmp_path, 'cat/1.png', 'cat/2.HEIC', 'cat/3.heic', 'cat/notes.txt', 'dog/1.png', 'dog/2')
    (tmp_path / 'dog' / 'lost.png').symlink_to(tmp_path / 'nowhere.png')
    assert len(ImageList.from_folders(tmp_path)) == 2
    assert [record.message for record in caplog.records] == [
        f'{tmp_path}: 4 files that are no known images '
        '(2 .heic, 1 links to nothing, 1 without an extension) are left out: '
        "'cat/2.HEIC', 'cat/3.heic', 'dog/2' and 1 more"
    ]
    caplog.clear()
    assert len(ImageList.unlabelled(tmp_path / 'cat')) == 1
    assert '(2 .heic)' in caplog.text


def test_a_class_of_files_of_another_kind_is_not_called_empty(tmp_path):
    touch(tmp_path, 'cat/1.png', 'dog/1.heic', 'dog/deep/2.avif')
    line = refused(lambda: ImageList.from_folders(tmp_path), match="no image in 'dog', but '.avif")
    assert "'.heic': convert files that are none of .bmp" in line


def test_two_names_of_one_look(tmp_path):
    touch(tmp_path, 'caf\u00e9/1.png', 'cafe\u0301/1.png', 'tea/1.png')
    if len(os.listdir(tmp_path)) < 3:
        pytest.skip('this file system has one name for both')
    refused(lambda: ImageList.from_folders(tmp_path), match='names of classes must look different')


def test_names_that_differ_in_a_blank(tmp_path):
    touch(tmp_path, 'red fox/1.png', 'red fox /1.png', 'tea/1.png')
    line = refused(lambda: ImageList.from_folders(tmp_path), match='must look different')
    assert line.endswith("Received: 'red fox' and 'red fox '")


def test_names_that_differ_in_case_are_told(tmp_path, caplog):
    """Letters may be such classes; of other names it is a slip that was silent."""
    touch(tmp_path, 'Circle/1.png', 'circle/1.png', 'tea/1.png')
    if len(os.listdir(tmp_path)) < 3:
        pytest.skip('this file system has one name for both')
    assert ImageList.from_folders(tmp_path).class_names == ('Circle', 'circle', 'tea')
    (told,) = caplog.messages
    assert "upper and lower case alone: 'Circle' and 'circle'; rename one" in told
    touch(tmp_path, 'A/1.png', 'a/1.png')
    ImageList.from_folders(tmp_path)
    assert "'A' and 'a', and 1 more; rename" in caplog.messages[-1]


def test_names_that_are_no_unicode(tmp_path):
    name = os.fsdecode(b'\xff\xfe.png')
    try:
        touch(tmp_path, f'a/{name}', 'b/1.png')
    except (OSError, UnicodeError):
        pytest.skip('this file system takes Unicode only')
    images = ImageList.from_folders(tmp_path)
    assert images.files[0].read_bytes() == b'x'


@pytest.mark.parametrize('name', [b'caf\xe9', b'two\nlines', b'\x1b[31mred'])
def test_classes_whose_names_are_no_line_of_text(tmp_path, name):
    """They failed where the trained model was saved."""
    try:
        touch(tmp_path, f'{os.fsdecode(name)}/1.png', 'b/1.png')
    except (OSError, UnicodeError):
        pytest.skip('this file system takes Unicode only')
    for make in (
        lambda: ImageList.from_folders(tmp_path),
        lambda: ImageList.from_pattern(tmp_path, r'(?s)^(.*)/'),
    ):
        line = refused(make, match='each name of a class must be one line of UTF-8: rename it')
        assert line.removeprefix(str(tmp_path)).isascii()


def test_a_line_break_in_a_label_of_a_csv_file(tmp_path):
    touch(tmp_path, '1.png', '2.png')
    path = csv_of(tmp_path, 'path,label\n1.png,"a\nb"\n2.png,b\n')
    assert refused(lambda: ImageList.from_csv(path), match='one line of UTF-8').endswith(r"'a\nb'")


def test_an_empty_class(tmp_path):
    touch(tmp_path, 'a/1.png', 'b/1.png', 'c/readme.txt')
    (tmp_path / 'd').mkdir()
    refused(lambda: ImageList.from_folders(tmp_path), match="no image in 'c', 'd'")


def test_one_class_only(tmp_path):
    touch(tmp_path, 'a/1.png', 'loose.png')
    refused(
        lambda: ImageList.from_folders(tmp_path),
        match="at least 2. Received: folders for 'a', and 1 image in it",
    )


def test_images_beside_the_classes_are_left_out(tmp_path, caplog):
    touch(tmp_path, 'a/1.png', 'b/1.png', 'loose.png')
    assert len(ImageList.from_folders(tmp_path)) == 2
    assert "1 image outside of the classes is left out: 'loose.png'" in caplog.text


def test_links_in_a_loop(tmp_path, caplog):
    touch(tmp_path, 'data/a/1.png', 'data/b/1.png', 'elsewhere/2.png')
    root = tmp_path / 'data'
    (root / 'a' / 'loop').symlink_to(root)
    (root / 'a' / 'self').symlink_to('self')
    (root / 'b' / 'up').symlink_to(root / 'b')
    (root / 'b' / 'more').symlink_to(tmp_path / 'elsewhere')
    (root / 'b' / 'broken.png').symlink_to('nowhere.png')
    (root / 'loop').symlink_to(root)
    (root / 'self').symlink_to('self')
    images = ImageList.from_folders(root)
    assert images.paths == ('a/1.png', 'b/1.png', 'b/more/2.png')
    assert caplog.text.count('is left out') == 3


def test_a_root_that_is_no_folder(tmp_path):
    touch(tmp_path, 'file')
    for root in (tmp_path / 'nowhere', tmp_path / 'file'):
        for make in (
            ImageList.from_folders,
            ImageList.unlabelled,
            lambda root: ImageList.from_pattern(root, '(.)'),
        ):
            refused(lambda make=make, root=root: make(root), FileNotFoundError, '`root` must be')


def test_unlabelled(tmp_path):
    touch(tmp_path, 'b.png', 'a/1.png')
    images = ImageList.unlabelled(tmp_path)
    assert images.paths == ('a/1.png', 'b.png')
    assert images.labels is None
    assert images.num_classes == 0
    (tmp_path / 'empty').mkdir()
    refused(lambda: ImageList.unlabelled(tmp_path / 'empty'), match='at least one image')


def test_one_class_of_those_that_a_model_knows(tmp_path):
    touch(tmp_path, 'cat/1.jpg', 'cat/2.jpg')
    assert ImageList.from_folders(tmp_path, min_classes=1).class_names == ('cat',)
    refused(lambda: ImageList.from_folders(tmp_path), match='each class, at least 2. Received')
    (tmp_path / 'cat').rename(tmp_path / '.cat')
    refused(lambda: ImageList.from_folders(tmp_path, min_classes=1), match='each class, at least 1')


# CSV.


def csv_of(tmp_path, text, name='labels.csv', encoding='utf-8'):
    path = tmp_path / name
    path.write_bytes(text.encode(encoding) if isinstance(text, str) else text)
    return path


def test_labels_from_csv(tmp_path):
    touch(tmp_path, 'pictures/b 1.png', 'pictures/ä,1.png', 'pictures/c.png')
    text = (
        '\ufefffile,class,patient\r\nb 1.png,dog,p1\r\n"ä,1.png",cat,p2\r\n\r\n./c.png, dog ,p1\r\n'
    )
    images = ImageList.from_csv(
        csv_of(tmp_path, text), tmp_path / 'pictures', 'file', 'class', 'patient'
    )
    assert images.paths == ('b 1.png', 'ä,1.png', 'c.png')
    assert images.class_names == ('cat', 'dog')
    assert images.labels.tolist() == [1, 0, 1]
    assert images.groups.tolist() == ['p1', 'p2', 'p1']
    assert images.select([2]).groups.tolist() == ['p1']
    unlabelled = ImageList.from_csv(
        csv_of(tmp_path, text), tmp_path / 'pictures', label_column=None
    )
    assert unlabelled.labels is None


def test_csv_beside_its_images_with_an_extension(tmp_path):
    touch(tmp_path, '1.jpg', '2.jpg')
    images = ImageList.from_csv(csv_of(tmp_path, 'id,y\n1,a\n2,b\n'), extension='.jpg')
    assert images.paths == ('1.jpg', '2.jpg')
    assert images.root == tmp_path


@pytest.mark.parametrize('separator', [',', ';', '\t'])
def test_csv_as_spreadsheets_write_it(tmp_path, separator):
    touch(tmp_path, '1.png', '2.png')
    rows = (('path', 'label'), ('1.png', 'a'), ('2.png', 'b, c'))
    lines = [separator.join(f'"{cell}"' for cell in row) for row in rows]
    text = '\ufeff' + '\r\n'.join(lines)
    images = ImageList.from_csv(csv_of(tmp_path, text))
    assert images.class_names == ('a', 'b, c')


@pytest.mark.parametrize(
    'text',
    [
        'path,"class; species; genus"\n1.png,a\n2.png,b\n',
        '"path, as seen";class\n1.png;a\n2.png;b\n',
    ],
)
def test_separators_within_a_header(tmp_path, text):
    touch(tmp_path, '1.png', '2.png')
    images = ImageList.from_csv(csv_of(tmp_path, text), tmp_path, 0, 1)
    assert images.class_names == ('a', 'b')


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('path,label\n1.png,a\n2.png,b\n1.png,a\n', r"once. Received: '1.png' in lines 2 and 4"),
        ('path,label\n1.png,a\n./1.png,b\n', r"once. Received: '1.png' in lines 2 and 3"),
        ('path,label\n1.png,a\n2.png,\n', 'line 3 has no value in column 1'),
        ('path,label\n1.png,a\n2.png\n', 'line 3 has no value in column 1'),
        ('path\n1.png\n2.png\n', "must have a column 1. Received: 'path'"),
        ('', 'must have a header, and a line for each image'),
        ('\n \n', 'must have a column 1'),
        ('1.png,a\n2.png,b\n', "must begin with a header, not with '1.png', an image"),
        ('path,label\n', 'must have a line for each image. Received: a header alone'),
        ('path,label\n1.png,a\n2.png,a\n', "at least two classes. Received: 'a'"),
        ('path,label\n"1.png,a\n', r'must be a CSV .*\(line 2: a quotation mark is not closed\)'),
        ('path,label\n1.png,"a\n' + 'x' * 200_000, r'line 2: a quotation mark is not closed'),
        ('path,label\n1.png,a\n"2.png"x,b\n', r'must be a CSV file in UTF-8 \(line 3: '),
        ('path,label\n1.png,\0\n', 'line 2 must be text. Received: a NUL byte in column 1'),
        ('path,label\n1.png\0,a\n', 'line 2 must be text. Received: a NUL byte in column 0'),
        ('path,label\n1.png,' + 'x' * 200_000, r'\(line 2: a value must have at most 131,072 char'),
        (
            'path,label\n1.png,a\nhttps://x.org/2.png,b\n',
            "line 3 must name a file on this machine: fetch it first. Received: 'https://x.org/2.p",
        ),
        (b'path,label\n\xff\xfe.png,a\n', 'must be a CSV file in UTF-8'),
    ],
)
def test_bad_csv(tmp_path, text, message):
    touch(tmp_path, '1.png', '2.png')
    path = csv_of(tmp_path, text)
    found = refused(lambda: ImageList.from_csv(path), (ValueError, OSError), message)
    assert str(tmp_path) in found


def test_one_image_by_several_paths(tmp_path):
    """It had two classes."""
    touch(tmp_path, 'pics/a/0.png', 'pics/1.png', 'pics/b/0.png')
    root = tmp_path / 'pics'
    (root / 'link').symlink_to('a')
    for other in ('../pics/a/0.png', f'{root}/a/0.png', 'link/0.png', 'b/../a/./0.png'):
        path = csv_of(tmp_path, f'path,label\na/0.png,x\n1.png,y\n{other},y\n')
        refused(
            lambda path=path: ImageList.from_csv(path, root),
            match=r'must name each image once. Received: .*0.png. in lines 2 and 4',
        )
    (root / '2.png').symlink_to('1.png')  # equal images may be stored once
    path = csv_of(tmp_path, 'path,label\n1.png,x\n2.png,y\nb/0.png,y\na/0.png,y\n')
    assert len(ImageList.from_csv(path, root)) == 4


def test_a_csv_in_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv('HOME', str(tmp_path))
    touch(tmp_path, '1.png', '2.png')
    csv_of(tmp_path, 'path,label\n1.png,a\n2.png,b\n')
    assert ImageList.from_csv('~/labels.csv').root == tmp_path
    assert ImageList.from_csv('~/labels.csv', '~').root == tmp_path


def test_a_csv_without_header_loses_no_image(tmp_path):
    touch(tmp_path, 'in/1.jpg', 'in/2.jpg')
    path = csv_of(tmp_path, 'a;1\nb;2\n')
    refused(
        lambda: ImageList.from_csv(path, tmp_path / 'in', 1, 0, extension='.jpg'),
        match=r"labels.csv: must begin with a header, not with '1', an image",
    )


def test_csv_that_names_missing_files(tmp_path):
    touch(tmp_path, '1.png')
    path = csv_of(tmp_path, 'path,label\n1.png,a\n2.png,b\n')
    refused(
        lambda: ImageList.from_csv(path),
        FileNotFoundError,
        r"labels.csv: line 3 names '2.png', which is no file",
    )
    refused(lambda: ImageList.from_csv(tmp_path / 'nowhere.csv'), FileNotFoundError, 'nowhere.csv')
    refused(
        lambda: ImageList.from_csv(path, path_column='file'),
        match="must have a column 'file'. Received",
    )


# Patterns.


def test_labels_from_the_path(tmp_path):
    touch(tmp_path, 'p1/cat_1.jpg', 'p1/dog_1.jpg', 'p2/cat 2.jpg', 'p2/cat_3.jpg')
    (tmp_path / 'p2/cat 2.jpg').unlink()
    images = ImageList.from_pattern(tmp_path, r'([a-z]+)_\d+\.jpg$')
    assert images.class_names == ('cat', 'dog')
    assert images.labels.tolist() == [0, 1, 0]
    named = ImageList.from_pattern(tmp_path, r'(?P<group>p\d)/(?P<label>[a-z]+)_')
    assert named.groups.tolist() == ['p1', 'p1', 'p2']


def test_paths_that_do_not_match(tmp_path, caplog):
    touch(tmp_path, 'cat_1.jpg', 'dog_1.jpg', 'x.jpg', 'y.jpg', '_1.jpg', 'z.jpg')
    pattern = r'([a-z]*)_\d'
    refused(
        lambda: ImageList.from_pattern(tmp_path, pattern),
        match="does not match '_1.jpg', 'x.jpg', 'y.jpg' and 1 more",
    )
    assert len(ImageList.from_pattern(tmp_path, pattern, skip_unmatched=True)) == 2
    assert "4 images whose path does not match are left out: '_1.jpg', 'x.jpg'" in caplog.text


@pytest.mark.parametrize('pattern', ['(', 'x', '(a)(b)', '(?P<other>a)(b)', '(?P<group>a)'])
def test_bad_patterns(tmp_path, pattern):
    touch(tmp_path, 'a.png')
    refused(lambda: ImageList.from_pattern(tmp_path, pattern), match='`pattern` must')


def test_patterns_with_one_class_or_none(tmp_path):
    touch(tmp_path, 'a1.png', 'a2.png')
    refused(lambda: ImageList.from_pattern(tmp_path, '(a)'), match='at least two classes')
    refused(
        lambda: ImageList.from_pattern(tmp_path, '(q)', skip_unmatched=True), match='at least one'
    )


def test_lists_that_do_not_fit(tmp_path):
    refused(lambda: ImageList(tmp_path, ('a', 'b', 'a')), match="'a' 2 times")
    refused(lambda: ImageList(tmp_path, ('a',), np.array([0, 1])), match='`labels` must have')
    refused(lambda: ImageList(tmp_path, ('a',), groups=np.array(['x'] * 2)), match='`groups` must')
    refused(lambda: ImageList(tmp_path, ('a',), [0]), match='`class_names` must name the classes')
    refused(lambda: ImageList(tmp_path, ('a',), [2], ('x', 'y')), match=r'must be in \[0, 2\)')


def test_plain_values_become_what_they_stand_for(tmp_path):
    images = ImageList(str(tmp_path), ('a', 'b'), [0, 1], ('x', 'y'), ['g', 'h'])
    assert images.files == [tmp_path / 'a', tmp_path / 'b']
    chosen = images.select([1])
    assert (chosen.labels.tolist(), chosen.groups.tolist()) == ([1], ['h'])


@pytest.mark.parametrize('wrong', [[99], [], [0.5], [True], [-1], None, 'a'])
def test_images_that_cannot_be_selected(tmp_path, wrong):
    images = ImageList(tmp_path, ('a', 'b', 'c'))
    refused(
        lambda: images.select(wrong), match=r'`indices` must be at least one integer in \[0, 3\)'
    )
    refused(lambda: images.select([1, 1]), match="name each file once. Received: 'b' 2 times")
    assert images.select([True, False, True]).paths == ('a', 'c')


def test_commas_in_a_value_of_a_csv_file(tmp_path):
    """Labels were cut at the comma, and classes became one."""
    for name in ('0', '1', '2'):
        (tmp_path / f'{name}.png').write_bytes(b'')
    path = tmp_path / 'labels.csv'
    path.write_text('file, city\n0.png, "Portland, OR"\n1.png, "Portland, ME"\n2.png, Bath,\n')
    assert ImageList.from_csv(path, label_column='city').class_names == (
        'Bath',
        'Portland, ME',
        'Portland, OR',
    )
    path.write_text('file,city\n0.png,Portland, OR\n1.png,Bath\n')
    with pytest.raises(ValueError, match=r'line 2 must have at most 2 values.*Received: 3 values'):
        ImageList.from_csv(path)


def test_arguments_that_are_no_paths_are_named(tmp_path):
    refused(lambda: ImageList.from_pattern(tmp_path, None), match='`pattern` must be a text')
    refused(lambda: ImageList.from_folders(None), match='`root` must be the path of a folder')
    refused(lambda: ImageList.from_csv(None), match='`csv_file` must be the path of a file')
    path = csv_of(tmp_path, 'path,label\n')
    refused(
        lambda: ImageList.from_csv(path, extension=None),
        match=r'`extension` must be a text. Received: extension=None',
    )
    for number in ('a', 0, None):
        refused(
            lambda number=number: ImageList.from_folders(tmp_path, min_classes=number),
            match='`min_classes` must be a positive integer. Received: min_classes=',
        )


def test_a_folder_of_one_class_is_told_apart(tmp_path):
    touch(tmp_path, '1.png', '2.png')
    refused(
        lambda: ImageList.from_folders(tmp_path, min_classes=1),
        match='must hold a folder of images for each class, at least 1. '
        'Received: no folders, but 2 images in it',
    )


def test_columns_of_one_name_and_one_column_twice_are_refused(tmp_path):
    """The first was taken; each image was a class of its own."""
    touch(tmp_path, '1.png', '2.png')
    path = csv_of(tmp_path, 'path,label,label\n1.png,a,x\n2.png,b,y\n')
    refused(
        lambda: ImageList.from_csv(path, label_column='label'),
        match="must have one column 'label', or be read by a number. Received: columns 1, 2 of",
    )
    assert ImageList.from_csv(path, label_column=2).class_names == ('x', 'y')
    for column in (0, 'path'):
        refused(
            lambda column=column: ImageList.from_csv(path, label_column=column),
            match='`label_column` must be another column than `path_column`. Received: ',
        )


def test_an_extension_without_its_dot(tmp_path):
    touch(tmp_path, '1.png', '2.png')
    path = csv_of(tmp_path, 'path,label\n1,a\n2,b\n')
    assert ImageList.from_csv(path, extension='png').paths == ('1.png', '2.png')


def test_absolute_paths_in_a_csv_file(tmp_path):
    touch(tmp_path, 'far/1.png', 'far/2.png')
    path = csv_of(tmp_path, f'path,label\n{tmp_path}/far/1.png,a\n{tmp_path}/far/2.png,b\n')
    files = ImageList.from_csv(path).files
    assert files == [tmp_path / 'far' / '1.png', tmp_path / 'far' / '2.png']
