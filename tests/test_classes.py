"""Tables of classes: the forms they have, and the lines that are refused."""
import numpy as np
import pytest

from cac_mmseg.errors import UserError
from cac_mmseg.stack.classes import (ClassTable, default_palette, read_classes,
                                     write_classes)

ROAD = ClassTable(['road', 'traffic light'], [[128, 64, 128], [0, 0, 9]], {
    (128, 64, 128): 0,
    (0, 0, 9): 1,
    (1, 2, 3): 255
})
FORMS = {
    'spaces':
    '\n# mine\nroad 128 64 128\ntraffic light 0 0 9  # red\nignore 1 2 3',
    'tabs': 'road\t128\t64\t128\r\ntraffic light\t0\t0\t9\nignore\t1\t2\t3\n',
    'csv': '\ufeffname,r,g,b\nroad,128,64,128\n"traffic light", 0, 0, 9\n'
    'ignore,1,2,3\n',
    'semicolons': 'Class;Red;Green;Blue\nroad;128;64;128\ntraffic light;0;0;9'
    '\nignore;1;2;3',
    'cvat': '# label:color_rgb:parts:actions\nroad:128,64,128::\n'
    'traffic light:0,0,9::\nignore:1,2,3::',
    'camvid': '128 64 128\troad\n0 0 9\ttraffic light\n1 2 3\tignore',
}


def read(tmp_path, text):
    path = tmp_path / 'classes.txt'
    path.write_text(text, encoding='utf-8')
    return read_classes(path)


@pytest.mark.parametrize('form', FORMS)
def test_every_form_is_read(tmp_path, form):
    assert read(tmp_path, FORMS[form]) == ROAD


def test_values_names_and_classes_of_several_colours(tmp_path):
    table = read(tmp_path, 'lane 2 7\n'.replace(' 7', '\t7') + 'sky\t65535')
    assert table.names == ['lane 2', 'sky']
    assert table.keys == {(7, ): 0, (65535, ): 1}
    table = read(tmp_path, 'name\nroad\ndoor, double\n')
    assert table == (['road', 'door, double'], default_palette(2), {})
    table = read(tmp_path, 'a 1 1 1\nb 2 2 2\na 3 3 3\n')
    assert table == (['a', 'b'], [[1, 1, 1], [2, 2, 2]], {
        (1, 1, 1): 0,
        (2, 2, 2): 1,
        (3, 3, 3): 0
    })


@pytest.mark.parametrize('text, words', [
    ('a 1 2 3\nb 4\n', "line 2 must be like 'name r g b'"),
    ('a\nb 4\n', "line 2 must be like 'name'"),
    ('a 1 2\n', 'line 1 must be like'),
    ('a 1.5\n', 'line 1 must be like'),
    ('1 2 3\n', 'line 1 must be like'),
    ('a,b,3\n', 'line 1 must be like'),
    ('a 1 2 3\n\nb 1 2 3\n', "line 3 gives 1 2 3 to 'b', but it is that of "
     "'a'"),
    ('ignore 1\nb 1\n', "line 2 gives 1 to 'b', but it is that of 'ignore'"),
    ('a 0 0 256', 'line 1: numbers must be 0 to 255, got 256'),
    ('a -1', 'line 1: numbers must be 0 to 65535, got -1'),
    ('a 65536', 'line 1: numbers must be 0 to 65535, got 65536'),
    ('a\nb\na\n', "line 3 names 'a' a second time"),
    ('# none\n', 'names no class'),
    ('ignore 3\n', 'names no class'),
    (''.join(f'class {i}x\n' for i in range(256)), 'names 256 classes'),
])
def test_a_line_that_is_wrong_is_named(tmp_path, text, words):
    with pytest.raises(UserError) as info:
        read(tmp_path, text)
    assert words in str(info.value) and 'classes.txt' in str(info.value)


@pytest.mark.parametrize('table', [
    ROAD,
    ClassTable(['a, b', 'lane 2'], default_palette(2), {
        (5, ): 0,
        (300, ): 1,
        (255, ): 255
    }),
    ClassTable(['a', 'b c'], default_palette(2), {}),
    ClassTable(['b', 'a'], [[9, 9, 9], [1, 1, 1]], {
        (1, 1, 1): 1,
        (9, 9, 9): 0,
        (0, 0, 0): 1
    }),
])
def test_what_is_written_is_read(tmp_path, table):
    path = tmp_path / 'classes.txt'
    write_classes(path, table)
    assert read_classes(path) == table
    with pytest.raises(UserError, match='classes.txt exists'):
        write_classes(path, table)


@pytest.mark.parametrize(
    'names',
    [['a', 'a'], ['a', 'ignore'], ['a', 'b 2'], ['a', 'b #c'], ['a', 'b\nc']])
def test_names_that_would_be_read_as_others_are_not_written(tmp_path, names):
    with pytest.raises(UserError, match='cannot hold these classes'):
        write_classes(tmp_path / 'classes.txt', ClassTable(names, [], {}))
    assert not [*tmp_path.iterdir()]


def test_colours_are_apart():
    palette = np.array(default_palette(255))
    assert palette.min() == 0 and palette.max() <= 255
    distances = np.abs(palette[:, None] - palette).sum(2)
    assert distances[~np.eye(255, dtype=bool)].min() >= 32
    assert default_palette(3) == palette[:3].tolist()
