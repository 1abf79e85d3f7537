"Readers on small trees in the official formats: against the truth they were written from, against pycocotools, and with one thing spoilt at a time."
import contextlib, csv, gzip, io, json, os, re, shutil, tempfile
from pathlib import Path

import numpy as np, pytest
from hypothesis import given, settings, strategies as st

from fsic_nb.core import FsicError
from fsic_nb.readers import IMATERIALIST_MAP, NUSWIDE_NAMES, READERS, _zero_one, read, read_imaterialist, read_nuswide
from fsic_nb.records import inside

def names_of(s): return {p.name: {n for n, v in zip(s.names, row) if v} for p, row in zip(s.paths, s.labels)}

@st.composite
def truths(draw, names):
    "Up to 12 images with any of these labels, at least one label in all."
    sets = draw(st.lists(st.sets(st.sampled_from(names)), min_size=1, max_size=12))
    return sets if any(sets) else [{names[0]}]


# --- what all share ----------------------------------------------------------------------------------------------------

@pytest.mark.parametrize('name', ['', '.\0', '..', '../a', 'a/..', 'a/../b', '/a', 'C:a', 'c:/a', 'a\\b', '..\\a'])
def test_names_that_lead_out(name):
    with pytest.raises(FsicError, match='list, line 3: file name .* leads out'): inside('images', name, 'list, line 3')

@settings(deadline=None)
@given(st.text(alphabet='ab./\\:C', max_size=12))
def test_what_is_let_in_stays_in(name):
    try: p = inside('/data/images', name, 'x')
    except FsicError: return
    assert os.path.commonpath(['/data/images', os.path.normpath(p)])=='/data/images'

def test_read_knows_all_and_suggests():
    assert list(READERS)==['voc', 'coco', 'nuswide', 'imaterialist', 'folder', 'csv', 'manifest']
    for wrong, near in (('imaterialst', 'imaterialist'), ('Coco', 'coco'), ('nus-wide', 'nuswide')):
        with pytest.raises(FsicError, match=f"data '{wrong}'.*did you mean.*{near}"): read(wrong, 'x')
    for data in READERS:
        with pytest.raises(FsicError, match='nowhere') as e: read(data, 'nowhere')
        assert '\n' not in str(e.value)


# --- NUS-WIDE --------------------------------------------------------------------------------------------------------------

def write_nus(root, truth, lines=None, split=None, end='\n'):
    "AllLabels, or TrainTestLabels with the first `split` images for training."
    lines = lines or [f'dir{k%3}\\{k:04d}_{k+100}.jpg' for k in range(len(truth))]
    for p, part in ({'': slice(None)} if split is None else {'Train': slice(split), 'Test': slice(split, None)}).items():
        folder = root/'Groundtruth'/('TrainTestLabels' if p else 'AllLabels')
        folder.mkdir(parents=True, exist_ok=True); (root/'ImageList').mkdir(exist_ok=True)
        (root/'ImageList'/f'{p}Imagelist.txt').write_bytes(end.join([*lines[part], '']).encode())
        for n in NUSWIDE_NAMES:
            (folder/f'Labels_{n}{"_" if p else ""}{p}.txt').write_bytes(end.join([*(str(int(n in v)) for v in truth[part]), '']).encode())
    for l in lines:
        f = root/'Flickr'/l.replace('\\', '/')
        f.parent.mkdir(parents=True, exist_ok=True); f.write_bytes(b'x')
    return root

@settings(deadline=None, max_examples=10)
@given(truths(NUSWIDE_NAMES), st.sampled_from(['\n', '\r\n', ' \n']), st.booleans())
def test_nuswide_is_read_back(tmp_path_factory, truth, end, divided):
    root = write_nus(tmp_path_factory.mktemp('nus'), truth+[{'sky'}], split=1 if divided else None, end=end)
    s = read_nuswide(root)
    assert names_of(s)=={f'{k:04d}_{k+100}.jpg': v for k, v in enumerate(truth+[{'sky'}]) if v} and s.names==NUSWIDE_NAMES
    assert s.info['listed']==len(truth)+1
    assert s.info['left_out']=={'photographs listed twice': 0, 'images without a label': sum(not v for v in truth), 'images without a file': 0}
    assert s.parts==(['train' if k<1 else 'test' for k, v in enumerate(truth+[{'sky'}]) if v] if divided else ['']*len(s))
    assert len(read_nuswide(root, negatives=True))==len(truth)+1

@settings(deadline=None)
@given(st.lists(st.sampled_from(['0', '1', '1 ', '\t0', '0\r', '-1130179', '', '2', '10', '01', 'x']), min_size=1, max_size=5), st.data())
def test_noughts_and_ones_are_what_a_slow_reader_says(tmp_path_factory, lines, data):
    "Also where the number of lines, or of bytes, is that of a sound file."
    f = tmp_path_factory.mktemp('z')/'Labels_sky.txt'
    f.write_text('\n'.join(lines)+'\n', newline='')
    words = [l.strip() for l in lines]
    while words and not words[-1]: words.pop()
    n = data.draw(st.sampled_from([max(len(words), 1), (len('\n'.join(words))+1)//2 or 1, 3]))
    try: got = _zero_one(f, n, 'Imagelist.txt').tolist()
    except FsicError as e:
        bad = [k for k, w in enumerate(words) if w not in ('0', '1')]
        assert (f'line {bad[0]+1}: expected 0 or 1' in str(e)) if bad else (len(words)!=n)
    else: assert got==[w=='1' for w in words] and len(words)==n

@pytest.mark.parametrize('text', ['0x1', '000', '2\n0', '1\n3'])
def test_bytes_that_only_look_like_two_lines(tmp_path, text):
    (tmp_path/'Labels_sky.txt').write_text(text)
    with pytest.raises(FsicError, match='Labels_sky.txt, line [12]: expected 0 or 1'): _zero_one(tmp_path/'Labels_sky.txt', 2, 'Imagelist.txt')

def test_nuswide_a_photograph_listed_twice_counts_once(tmp_path):
    s = read_nuswide(write_nus(tmp_path, [{'sky'}, {'sky', 'sun'}, {'sun'}], ['a\\0001_7.jpg', 'b\\0002_7.jpg', 'b\\0003_8.jpg']))
    assert names_of(s)=={'0001_7.jpg': {'sky'}, '0003_8.jpg': {'sun'}} and s.info['left_out']['photographs listed twice']==1

def put(text): return lambda f: (f.parent.mkdir(exist_ok=True), f.write_text(text))
@pytest.mark.parametrize('rel, change, says', [
    ('ImageList/Imagelist.txt', lambda f: f.unlink(), 'Imagelist.txt: cannot be read'),
    ('ImageList/Imagelist.txt', put('a\\0001_1.jpg\na\\0001_1.jpg\n'), 'Imagelist.txt, line 2: a/0001_1.jpg is listed already'),
    ('ImageList/Imagelist.txt', put('a\\1_1.jpg\n\na\\1_2.jpg\n'), "line 2: file name '' leads out"),
    ('ImageList/Imagelist.txt', put('..\\..\\x.jpg\nb\n'), "line 1: file name '../../x.jpg' leads out"),
    ('ImageList/Imagelist.txt', put('a\\1_1.jpg\n'), 'Labels_airport.txt: has 2 lines, but Imagelist.txt lists 1 images'),
    ('Groundtruth/AllLabels/Labels_lake.txt', put('0\n-1130179\n'), "Labels_lake.txt, line 2: expected 0 or 1, found '-1130179'; restore the file, or use Groundtruth/AllLabels"),
    ('Groundtruth/AllLabels/Labels_lake.txt', lambda f: f.unlink(), 'Labels_lake.txt: cannot be read'),
    ('Groundtruth/AllLabels/Labels_lake.txt', put(''), "line 1: expected 0 or 1, found ''"),
    ('Groundtruth', shutil.rmtree, 'neither AllLabels nor TrainTestLabels'),
    ('Flickr', shutil.rmtree, 'Flickr: no such folder'),
    ('Flickr/dir1/0001_101.jpg', lambda f: f.unlink(), 'Imagelist.txt, line 2: '),
    ('Flickr/dir1/0001_101.jpg', put(''), '0001_101.jpg is empty'),
    ('ConceptsList/Concepts81.txt', put('sky\n'), 'Concepts81.txt: differs from the 81 concepts in airport')])
def test_a_spoilt_nuswide_tree_names_the_line(tmp_path, rel, change, says):
    read_nuswide(write_nus(tmp_path, [{'sky'}, {'sun'}]))
    change(tmp_path/rel)
    with pytest.raises(FsicError, match=re.escape(says)) as e: read_nuswide(tmp_path)
    assert '\n' not in str(e.value)


# --- iMaterialist ------------------------------------------------------------------------------------------------------------

NAMES = ['Argyle', 'Hosiery, Stockings, Tights', 'V-Necks']
def write_imat(root, train=(), validation=(), ids=('1', '89', '214'), change=None, mapped=True, spell=('imageId', 'labelId', str)):
    "Image k has the names of train[k]; the official map, cut to three labels and out of order."
    image, label, kind = spell
    for part, truth in dict(train=train, validation=validation).items():
        d = dict(images=[{'url': ['u'], image: kind(k+1)} for k in range(len(truth))],
                 annotations=[{image: kind(k+1), label: [kind(ids[NAMES.index(n)]) for n in v]} for k, v in enumerate(truth) if v])
        (root/f'{part}.json').write_text(json.dumps({**d, **(change or {})} if part=='train' else d))
        (root/part).mkdir()
        for k in range(len(truth)): (root/part/f'{k+1}.jpg').write_bytes(b'x')
    if mapped: (root/IMATERIALIST_MAP).write_text('labelId,taskId,labelName,taskName\n'+''.join(f'{i},1,"{n}",t\n' for i, n in list(zip(ids, NAMES))[::-1]))
    return root

@settings(deadline=None, max_examples=25)
@given(truths(NAMES), truths(NAMES), st.sampled_from([('imageId', 'labelId', str), ('image_id', 'label_id', int)]))
def test_imaterialist_is_read_back(tmp_path_factory, train, validation, spell):
    s = read_imaterialist(write_imat(tmp_path_factory.mktemp('imat'), train, validation, spell=spell))
    got = {(p.parent.name, int(p.stem)): {n for n, v in zip(s.names, row) if v} for p, row in zip(s.paths, s.labels)}
    assert got=={(part, k+1): v for part, t in (('train', train), ('validation', validation)) for k, v in enumerate(t) if v}
    assert s.names==NAMES and s.parts==[dict(train='train', validation='val')[p.parent.name] for p in s.paths]

def test_imaterialist_names(tmp_path):
    s = read_imaterialist(write_imat(tmp_path, [{'V-Necks'}], mapped=False, ids=('1', '2', '228')))
    assert s.names==[str(k) for k in range(1, 229)] and np.flatnonzero(s.labels[0]).tolist()==[227]
    (tmp_path/'map.json').write_text(json.dumps({'228': 'last', '3': 'third'}))
    assert read_imaterialist(tmp_path, tmp_path/'map.json').names==['third', 'last']
    for text, says in (('{"x": "y"}', 'expected columns labelId'), ('[]', 'expected columns labelId'), ('{', 'not valid JSON')):
        (tmp_path/'map.json').write_text(text)
        with pytest.raises(FsicError, match='map.json.*'+says): read_imaterialist(tmp_path, tmp_path/'map.json')
    for text in ('id,name\n1,a\n', 'labelId,labelName\n1\n', 'labelId,labelName\n1,\n', 'labelId,labelName\nx,a\n', ''):
        (tmp_path/'map.csv').write_text(text)
        with pytest.raises(FsicError, match='map.csv: expected columns'): read_imaterialist(tmp_path, tmp_path/'map.csv')
    for text, says in (('1,a\n1,b\n', 'labels: id 1 appears 2 times'), ('228,a\n2,a\n', "'a' appears twice in names")):
        (tmp_path/'map.csv').write_text('labelId,labelName\n'+text)
        with pytest.raises(FsicError, match=says): read_imaterialist(tmp_path, tmp_path/'map.csv')

def note(*labels, i='1'): return dict(annotations=[dict(imageId=i, labelId=list(labels))])
@pytest.mark.parametrize('change, says', [
    (note('229'), 'train.json, annotations[0]: image 1 has label id 229, known are the 3 from 1 to 214'), (note('0'), 'has label id 0'), (note('-1'), 'has label id -1'),
    (note(1.5), 'has label id 1.5'), (note('1', i='9'), 'annotations[0]: image 9 is not among images'), (note('1', i='../1'), 'annotations[0]: expected an imageId, a number'),
    (dict(annotations=note('1')['annotations']*2), 'train.json, annotations: id 1 appears 2 times'), (dict(images=[dict(imageId='1')]*3), 'images: id 1 appears 3 times'),
    (dict(annotations=[dict(imageId='1')]), 'annotations[0]: image 1 has no list labelId'), (dict(images=[5]), 'images[0]: expected an imageId'),
    (dict(images=None), 'no list is called images'), (dict(annotations=[]), 'imaterialist: no image carries a label')])
def test_a_spoilt_imaterialist_file_names_the_record(tmp_path, change, says):
    with pytest.raises(FsicError, match=re.escape(says)) as e: read_imaterialist(write_imat(tmp_path, [{'Argyle'}], change=change))
    assert '\n' not in str(e.value)

def test_imaterialist_images_that_could_not_be_fetched(tmp_path):
    write_imat(tmp_path, [{'Argyle'}, {'V-Necks'}], [{'Argyle'}])
    (tmp_path/'train'/'2.jpg').unlink(); (tmp_path/'validation'/'1.jpg').write_bytes(b'')
    with pytest.raises(FsicError, match=r'train.json, image 2: .*2.jpg is missing, as 2 of 3'): read_imaterialist(tmp_path)
    s = read_imaterialist(tmp_path, files='present')
    assert len(s)==1 and s.info['left_out']['images without a file']==2
    assert len(read_imaterialist(tmp_path, files='unchecked'))==3


# --- the real annotations, where they are ----------------------------------------------------------------------------------------

def test_real_nuswide_labels(photos, tmp_path):
    "61,256 real label sets, written in the official format and read back."
    with gzip.open(photos/'labels'/'nuswide81_labels.json.gz') as f: d = json.load(f)
    assert d['names']==NUSWIDE_NAMES
    truth = list({**d['scpnet_val'], **d['deephash']}.values())
    root, table = tmp_path, np.zeros((len(truth), 81), bool)
    for k, v in enumerate(truth): table[k, v] = True
    (root/'Groundtruth'/'AllLabels').mkdir(parents=True); (root/'ImageList').mkdir()
    (root/'ImageList'/'Imagelist.txt').write_text(''.join(f'a\\{k:04d}_{k}.jpg\n' for k in range(len(truth))))
    for c, n in enumerate(NUSWIDE_NAMES): (root/'Groundtruth'/'AllLabels'/f'Labels_{n}.txt').write_text(''.join('01'[v]+'\n' for v in table[:, c].astype(int)))
    s = read_nuswide(root, files='unchecked')
    assert (s.labels==table[table.any(1)]).all() and len(s)==table.any(1).sum()
