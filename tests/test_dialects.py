"One random data set, written in every dialect that is read, comes back equal; the table in data/README.md is that list."
import os, shutil
import pytest
from hypothesis import given, settings, strategies as st

import dialects
from dialects import DIALECTS, README, Row
from fsic_nb.readers import READERS, read

# a blank, a hyphen, an apostrophe, two alphabets, a number: what labels are made of
NAMES = ['cat', 'dining table', 't-shirt', "driver's seat", 'Löwe', '猫', 'gate 3']

@st.composite
def data_sets(draw):
    "Draw up to nine images, each label on at least one, and something in each part."
    names = draw(st.lists(st.sampled_from(NAMES), min_size=1, max_size=5, unique=True))
    rows = []
    for i in range(draw(st.integers(2, 9))):
        yes = draw(st.lists(st.sampled_from(names), unique=True))
        rest = [n for n in names if n not in yes]
        unknown = draw(st.lists(st.sampled_from(rest), unique=True)) if rest else []
        box = st.tuples(st.sampled_from(yes), *[st.integers(1, 20)]*4) if yes else st.nothing()
        boxes = draw(st.lists(box, max_size=3, unique=True)) if yes else []
        part = draw(st.sampled_from(['train', 'val', 'test']))
        rows.append(Row(f'{draw(st.sampled_from(["a", "Ä b", "img 1"]))} {i}.jpg', tuple(yes), tuple(unknown), part, tuple(boxes)))
    rows += [Row('all.jpg', tuple(names)), Row('none.jpg', ())]   # so that no column has only blanks and ones
    return names, rows

def said(images, keeps):
    "List what an image set says of each file, as far as the dialect can say it."
    out = {}
    for i, p in enumerate(images.paths):
        def names(table): return {n for n, v in zip(images.names, table[i]) if v}
        unknown = names(images.unknown) if images.unknown is not None else set()
        part = (images.parts or ['']*len(images))[i] if 'parts' in keeps else ''
        boxes = images.boxes[i] if images.boxes and 'boxes' in keeps else []
        out[p.name] = names(images.labels), unknown, part, sorted((images.names[c], *map(float, b)) for c, *b in boxes)
    return out

@settings(deadline=None, max_examples=25)
@pytest.mark.parametrize('dialect', DIALECTS, ids=lambda d: d.name)
@given(data_sets())
def test_what_is_written_is_read(tmp_path_factory, dialect, data):
    names, rows = data
    root = tmp_path_factory.mktemp('dialect')
    keeps = dialect.keeps
    where = root/(dialect.write(root, rows, names) or '')
    if dialect.data=='csv' and (root/'labels.csv').exists(): where = root/'labels.csv'
    images = read(dialect.data, where, **(dict(negatives=True) if 'negatives' in keeps else {}))
    want = {r.name: (set(r.yes), set(r.unknown) if 'unknown' in keeps else set(), r.part if 'parts' in keeps else '',
                     sorted((n, *map(float, b)) for n, *b in r.boxes) if 'boxes' in keeps else [])
            for r in rows if r.yes or 'negatives' in keeps}
    assert said(images, keeps)==want
    assert set(images.names)==set(names)
    assert images.info['dialect'] and images.describe()
    shutil.rmtree(root)

def test_a_dialect_is_read_from_inside_its_folder(tmp_path, monkeypatch):
    "A root of '.', and a file without a folder, mean the same."
    rows = [Row('1.jpg', ('cat',)), Row('2.jpg', ('cat', 'dog')), Row('3.jpg', ('dog',))]
    for k, d in enumerate(DIALECTS):
        root = tmp_path/str(k)
        where = d.write(root, rows, ['cat', 'dog']) or '.'
        monkeypatch.chdir(root)
        assert read(d.data, where).counts().tolist()==[2, 2], d.name
        if (root/'labels.csv').exists(): assert read(d.data, 'labels.csv').counts().tolist()==[2, 2], d.name

def test_every_reader_is_in_the_table():
    assert {d.data for d in DIALECTS}|{d for _, d, *_ in dialects.OFFICIAL}==set(READERS)

def test_the_table_in_the_readme_is_this_list():
    text = README.read_text(encoding='utf-8')
    assert dialects.BEGIN in text and dialects.written(text)==text, 'run python tests/dialects.py'
