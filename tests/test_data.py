"Image sets, label splits, the two filters and the VOC reader: against slow references, spoilt trees and, where present, real photos."
import json, os, re, shutil
from pathlib import Path

import numpy as np, pytest
from hypothesis import given, settings, strategies as st

from fsic_nb.core import FsicError
from fsic_nb.data import ImageSet, LabelSplit, PARTS, PROTOCOLS, enough, filter_counts, select, check_files
from fsic_nb.voc import DIFFICULT, ONLY_DIFFICULT, VOC_NAMES, VOC_SPLIT, parse_xml, read_objects, read_voc

ROOT = Path(__file__).resolve().parents[1]
REAL = Path(os.environ.get('FSIC_SHARED', ROOT.parent/'shared'/'mlfsic'))/'voc'


# --- image sets and filters --------------------------------------------------------------------------------------------

def image_set(labels):
    labels = np.asarray(labels, dtype=bool)
    return ImageSet([f'{i}.jpg' for i in range(len(labels))], [f'c{c}' for c in range(labels.shape[1])], labels, 'made')

@st.composite
def sets(draw, max_images=30, max_labels=8):
    n, c = draw(st.integers(1, max_images)), draw(st.integers(2, max_labels))
    seed, density = draw(st.integers(0, 2**32-1)), draw(st.sampled_from([.05, .2, .5, .9]))
    return image_set(np.random.default_rng(seed).random((n, c))<density)

def slow_select(images, names, protocol):
    "The definition, image by image, in sets."
    T, out = set(names), []
    for i, row in enumerate(images.labels):
        Y = {n for n, v in zip(images.names, row) if v}
        if (Y and Y<=T) if protocol=='strict' else Y & T: out.append(i)
    return out

@settings(deadline=None)
@given(sets(), st.data())
def test_select_is_the_definition(images, data):
    names = data.draw(st.lists(st.sampled_from(images.names), min_size=1, unique=True))
    for p in PROTOCOLS: assert select(images, names, p).tolist()==slow_select(images, names, p)
    assert set(select(images, names)) <= set(select(images, names, 'masked'))

@settings(deadline=None)
@given(sets(), st.data())
def test_filter_counts_add_up(images, data):
    names = data.draw(st.permutations(images.names))
    k = data.draw(st.integers(1, len(names)-1))
    split = LabelSplit('s', names[:k], [], names[k:])
    for r in filter_counts(images, split):
        T = split.labels(r['part'])
        for p in PROTOCOLS:
            ids = slow_select(images, T, p)
            want = len(ids) if r['label']=='(any)' else sum(bool(images.labels[i, images.names.index(r['label'])]) for i in ids)
            assert r[p]==want
        assert r['strict']<=r['masked']==r['images']

@settings(deadline=None)
@given(sets(), st.integers(1, 6), st.sampled_from(PROTOCOLS))
def test_restrict_leaves_only_labels_with_enough(images, need, protocol):
    h = len(images.names)//2
    split = LabelSplit('s', images.names[:h], [], images.names[h:])
    new, out = split.restrict(images, need, parts=('train', 'test'), protocol=protocol)
    for part in ('train', 'test'):
        assert sorted(new.labels(part)+list(out[part]))==sorted(split.labels(part))
        assert all(n<need for n in out[part].values())
        for t in new.tasks(part): assert enough(images, t, need, protocol)==(t, {})
    assert (new.name==split.name)==(not any(out.values()))

def test_many_tasks_are_filtered_one_by_one():
    images = image_set([[1,0,0,0], [1,1,0,0], [0,1,1,0], [0,0,1,1]])
    rows = {r['label']: r['strict'] for r in filter_counts(images, LabelSplit('s', [], [], [['c0', 'c1'], ['c2', 'c3']]))}
    # image 2 carries a label of each task, so neither may use it; the last '(any)' row belongs to test
    assert rows=={'c0': 2, 'c1': 1, 'c2': 1, 'c3': 1, '(any)': 3}

def test_labels_cannot_be_changed_from_inside_or_outside():
    y = np.ones((2, 1), dtype=bool)
    images = ImageSet(['a', 'b'], ['x'], y, 's')
    with pytest.raises(ValueError): images.labels[0, 0] = False
    y[0, 0] = False
    assert images.labels.all()
    assert y.flags.writeable

@pytest.mark.parametrize('make, says', [
    (lambda: ImageSet(['a'], ['x'], [[1, 0]], 's'), 'shape (1, 1), found (1, 2)'),
    (lambda: ImageSet(['a'], ['x'], [[2]], 's'), 'must be 0 or 1'),
    (lambda: ImageSet(['a'], ['x'], [[np.nan]], 's'), 'must be 0 or 1'),
    (lambda: ImageSet(['a', './a'], ['x'], [[1], [1]], 's'), "'a' appears twice in paths"),
    (lambda: ImageSet(['a'], ['x', 'x'], [[1, 1]], 's'), "'x' appears twice in names"),
    (lambda: image_set([[1, 1]]).index(['c9']), "no label is called 'c9'"),
    (lambda: LabelSplit('s', ['a'], ['a'], []), 'a in train and in val'),
    (lambda: LabelSplit('s', 'abc', [], []), "expected a list of tasks, found 'abc'"),
    (lambda: LabelSplit('s', [[]], [], []), 'task 0: expected a list of label names'),
    (lambda: LabelSplit('s', [['a', 3]], [], []), 'task 0: expected a list of label names'),
    (lambda: LabelSplit('s', ['x1'], [], ['c0']).check(image_set([[1, 1]])), "split s, train: made: no label is called 'x1'"),
    (lambda: select(image_set([[1, 1]]), ['c0'], 'lax'), "no protocol is called 'lax'"),
])
def test_errors_say_what_is_wrong(make, says):
    with pytest.raises(FsicError, match=re.escape(says)): make()


# --- splits on disk ----------------------------------------------------------------------------------------------------

def test_the_split_in_the_repository_is_the_one_in_the_library():
    assert LabelSplit.from_json(ROOT/'data'/'splits'/'voc.json')==VOC_SPLIT
    assert sorted(n for p in PARTS for n in VOC_SPLIT.labels(p))==sorted(VOC_NAMES)
    assert VOC_SPLIT.labels('test')=='cat dog pottedplant sheep sofa tvmonitor'.split()

@pytest.mark.parametrize('text, says', [
    ('{', 'not valid JSON'), ('[]', 'a split has lists of labels called test, train or val'), ('{"name": "s"}', 'a split has'),
    ('{"name": "s", "train": [], "val": [], "test": [], "tset": []}', 'a split has'),
    ('{"name": "s", "train": [["a"], []], "val": [], "test": []}', 'task 1: expected a list of label names'),
    ('{"name": "s", "train": {"a": 1}, "val": [], "test": []}', 's, train: expected a list of tasks'),
    ('{"name": "s", "train": ["a"], "val": [], "test": [["a"]]}', 'a in train and in test')])
def test_a_damaged_split_names_its_file(tmp_path, text, says):
    f = tmp_path/'mine.json'
    f.write_text(text)
    with pytest.raises(FsicError, match='mine.json.*'+re.escape(says)): LabelSplit.from_json(f)

def test_split_round_trip_and_fingerprint(tmp_path):
    s = LabelSplit('s', [['a', 'b'], ['c']], [], ['d'], 'me')
    s.to_json(tmp_path/'s.json')
    assert LabelSplit.from_json(tmp_path/'s.json')==s
    assert s.fingerprint()==LabelSplit('other name', [['a', 'b'], ['c']], [], [['d']]).fingerprint()
    assert s.fingerprint()!=LabelSplit('s', [['a'], ['b', 'c']], [], ['d'], 'me').fingerprint()


# --- VOC: a small tree, then one thing spoilt --------------------------------------------------------------------------

def write_voc(root, year='2007', n=6, sets=None):
    "Image k shows label k as certain and label k+1 as certain (k even) or difficult (k odd)."
    folder, sets = root/f'VOC{year}', sets or {'trainval': range(3), 'test': range(3, n)}
    flags = np.full((n, 20), -1)
    for k in range(n): flags[k, k%20], flags[k, (k+1)%20] = 1, 1-k%2
    ids = [f'{k+1:06d}' if year=='2007' else f'2008_{k+1:06d}' for k in range(n)]
    for sub in ('JPEGImages', 'Annotations', 'ImageSets/Main'): (folder/sub).mkdir(parents=True)
    for i, row in zip(ids, flags):
        (folder/'JPEGImages'/f'{i}.jpg').write_bytes(b'not looked at here')
        (folder/'Annotations'/f'{i}.xml').write_text('<annotation><object><part><name>head</name></part></object></annotation>'.replace(
            '<object><part><name>head</name></part></object>', ''.join(
            f'<object><name>{n}</name><part><name>head</name></part><difficult>{1-f}</difficult></object>' for n, f in zip(VOC_NAMES, row) if f>=0)))
    for s, part in sets.items():
        for c, name in enumerate(VOC_NAMES):
            (folder/'ImageSets'/'Main'/f'{name}_{s}.txt').write_text(''.join(f'{ids[k]} {flags[k, c]:2d}\n' for k in part))
    return ids, flags

@pytest.fixture
def tree(tmp_path):
    write_voc(tmp_path)
    write_voc(tmp_path, '2012', 4, dict(train=range(2), val=range(2, 4), trainval=range(4)))
    return tmp_path

def test_both_years_every_set_each_image_once(tree):
    s = read_voc(tree, difficult='negative')
    assert [p.stem for p in s.paths]==[f'{k:06d}' for k in range(1, 7)]+[f'2008_{k:06d}' for k in range(1, 5)]
    assert s.names==VOC_NAMES and s.name=='voc' and all(p.is_file() for p in s.paths)
    assert s.info['years']==['VOC2007', 'VOC2012'] and s.info['listed']==10
    assert len(read_voc(tree, years=[2012], difficult='negative'))==4
    devkit = tree/'up'/'VOCdevkit'
    devkit.mkdir(parents=True)
    shutil.move(tree/'VOC2012', devkit/'VOC2012')
    assert len(read_voc(tree/'up', difficult='negative'))==4          # the folder the official tar file makes

def test_four_policies_for_difficult(tree):
    drop, pos, neg, unknown = (read_voc(tree, difficult=d) for d in DIFFICULT)
    assert [len(s) for s in (drop, pos, neg, unknown)]==[5, 10, 10, 10]   # odd images have a label only as difficult
    assert (drop.info['left_out'][ONLY_DIFFICULT], drop.info['with_difficult'], pos.info['left_out'][ONLY_DIFFICULT])==(5, 5, 0)
    assert (pos.labels.sum(), neg.labels.sum(), drop.labels.sum())==(20, 15, 10)
    assert (neg.labels<=pos.labels).all()
    assert (unknown.labels==neg.labels).all() and (unknown.unknown==pos.labels & ~neg.labels).all() and unknown.unknown.sum()==5
    assert drop.unknown is pos.unknown is neg.unknown is None
    assert drop.describe()[0]=='PASCAL VOC: 5 images, 20 labels' and drop.describe()[-1]==f'left out: 5 {ONLY_DIFFICULT}'

@pytest.mark.parametrize('text', ['<!DOCTYPE a><annotation/>', '<!DOCTYPE a [<!ENTITY b "&c;&c;"><!ENTITY c "x">]><annotation>&b;</annotation>'])
@pytest.mark.parametrize('encoding', ['utf-8', 'utf-8-sig', 'utf-16'])
def test_a_file_with_a_doctype_is_refused(tmp_path, text, encoding):
    f = tmp_path/'1.xml'
    f.write_text(text, encoding=encoding)
    with pytest.raises(FsicError, match='1.xml: .*DOCTYPE; delete that line') as e: parse_xml(f)
    assert '\n' not in str(e.value)

@pytest.mark.parametrize('declared, encoding', [('', 'utf-8'), ('', 'utf-8-sig'), ('<?xml version="1.0" encoding="ISO-8859-1"?>', 'latin-1'),
                                                ('<?xml version="1.0" encoding="utf-16"?>', 'utf-16'), ('<?xml version="1.0" encoding="windows-1252"?>', 'cp1252')])
def test_xml_in_its_own_encoding(tmp_path, declared, encoding):
    f = tmp_path/'1.xml'
    f.write_text(f'{declared}<annotation><object><name>L\xf6we</name></object></annotation>', encoding=encoding)
    assert read_objects(parse_xml(f))==[('L\xf6we', False, None)]

def test_train_val_is_not_trainval(tree):
    "The label *train* in the set *val* has a name that looks like the set *trainval*."
    for f in (tree/'VOC2012'/'ImageSets'/'Main').glob('*_trainval.txt'): f.unlink()
    assert len(read_voc(tree, years=['2012'], difficult='negative'))==4

def edit(old, new): return lambda f: f.write_text(f.read_text().replace(old, new, 1))
def unlink(f): f.unlink()
def rmtree(f): shutil.rmtree(f)
MAIN = 'VOC2007/ImageSets/Main/'

@pytest.mark.parametrize('rel, change, says', [
    ('', rmtree, 'no such folder; give the folder that holds VOC2007'),
    ('', lambda f: [shutil.rmtree(g) for g in f.iterdir()], 'neither VOC2007 nor VOC2012'),
    ('VOC2007', lambda f: [shutil.rmtree(g) for g in f.iterdir()], 'JPEGImages: no such folder'),
    ('VOC2007/Annotations', rmtree, 'Annotations: no such folder'),
    (MAIN, rmtree, 'Main: no such folder'),
    (MAIN, lambda f: [g.unlink() for g in f.iterdir()], 'no list is called aeroplane_trainval.txt'),
    (MAIN+'cat_test.txt', unlink, 'cat_test.txt: no such file, but aeroplane_test.txt'),
    (MAIN+'cat_test.txt', edit(' -1', ''), "cat_test.txt, line 1: expected 'id flag', found '000004'"),
    (MAIN+'cat_test.txt', edit(' -1', ' -1 1'), 'cat_test.txt, line 1: expected'),
    (MAIN+'cat_test.txt', edit('000005 -1', '000005 yes'), "cat_test.txt, line 2: unknown flag 'yes' of image 000005"),
    (MAIN+'cat_test.txt', edit('000005 -1', '000005 -1\n000004  1'), 'cat_test.txt, line 3: image 000004 has flag 1 here and -1 in line 1'),
    (MAIN+'cat_test.txt', lambda f: f.write_bytes(b'\xff\xfe\x00'), 'cat_test.txt, line 1: expected'),
    (MAIN+'cat_test.txt', edit('000005', '000999'), 'cat_test.txt, line 2: image 000999 is not listed in aeroplane_test.txt'),
    (MAIN+'cat_test.txt', edit('000005 -1\n', ''), 'aeroplane_test.txt, line 2: image 000005 is not listed in cat_test.txt'),
    (MAIN+'aeroplane_test.txt', lambda f: f.write_text(''), 'bicycle_test.txt, line 1: image 000004 is not listed in aeroplane_test.txt'),
    ('VOC2012/ImageSets/Main/cat_trainval.txt', edit('2008_000003 -1', '2008_000003 1'),
     'cat_trainval.txt, line 3: image 2008_000003 has flag 1 here and -1 in cat_val.txt, line 1'),
    ('VOC2007/JPEGImages', lambda f: [g.unlink() for g in f.iterdir()], '6 of 6 listed images are missing or empty'),
    ('VOC2007/JPEGImages/000005.jpg', unlink, 'aeroplane_test.txt, line 2: image 000005: '),
    ('VOC2007/JPEGImages/000005.jpg', lambda f: f.write_bytes(b''), '000005.jpg is empty, as 1 of 6'),
    ('VOC2007/Annotations/000005.xml', unlink, 'Annotations/000005.xml is missing'),
    ('VOC2007/Annotations/000005.xml', edit('</annotation>', ''), '000005.xml: not valid XML'),
    ('VOC2007/Annotations/000005.xml', edit('<name>bottle', '<name>botle'), "000005.xml: unknown label 'botle'; did you mean bottle"),
    ('VOC2007/Annotations/000005.xml', edit('<name>bottle', '<name>boat'), '000005.xml: says flag 1 for boat, but '),
    ('VOC2007/Annotations/000005.xml', edit('<difficult>0', '<difficult>1'), '000005.xml: says flag 0 for bottle, but ')])
def test_a_spoilt_tree_is_an_error_that_names_the_place(tree, rel, change, says):
    read_voc(tree)
    change(tree/rel)
    with pytest.raises(FsicError, match=re.escape(says)) as e: read_voc(tree)
    assert '\n' not in str(e.value)

def test_missing_pictures_can_be_left_out_or_not_looked_for(tree):
    (tree/'VOC2007'/'JPEGImages'/'000005.jpg').unlink()
    (tree/'VOC2007'/'Annotations'/'000005.xml').unlink()
    s = read_voc(tree, difficult='negative', files='present')
    assert (len(s), s.info['left_out']['images without a file'], s.info['listed'])==(9, 1, 9) and '000005' not in [p.stem for p in s.paths]
    assert len(read_voc(tree, difficult='negative', files='unchecked', check=False))==10
    with pytest.raises(FsicError, match="files='some': use"): read_voc(tree, files='some')

def test_a_name_that_is_written_differently_is_pointed_out(tmp_path):
    (tmp_path/'Cafe\u0301.jpg').write_bytes(b'x')                       # the accent as a character of its own, as macOS has it
    with pytest.raises(FsicError, match='is there, written differently'): check_files([tmp_path/'caf\xe9.jpg'], lambda k: 'list')
    assert check_files([tmp_path/'nowhere'/'a.jpg', tmp_path/'Cafe\u0301.jpg'], lambda k: 'list', 'present').tolist()==[False, True]

def test_annotations_can_be_left_unread(tree):
    (tree/'VOC2007'/'Annotations'/'000005.xml').unlink()
    assert len(read_voc(tree, check=False))==5
    with pytest.raises(FsicError, match='VOC2010: no such folder'): read_voc(tree, years=['2010'])
    with pytest.raises(FsicError, match='this is one year; give the folder above it'): read_voc(tree/'VOC2007')
    with pytest.raises(FsicError, match='drop'): read_voc(tree, difficult='ignore')

def test_official_xml_without_the_tag_difficult(tree):
    f = tree/'VOC2007'/'Annotations'/'000005.xml'
    f.write_text(f.read_text().replace('<difficult>0</difficult>', ''))
    assert len(read_voc(tree))==5


# --- the real photos, where they are -----------------------------------------------------------------------------------

# Per policy: images, then images and strict images of train, val, test; measured on the cut tree of 3,927 photographs.
MEASURED = dict(drop=(3631, (1458, 906), (621, 439), (2121, 1723)),
                positive=(3927, (1701, 959), (681, 441), (2306, 1773)),
                negative=(3927, (1594, 971), (672, 469), (2301, 1853)))

@pytest.mark.parametrize('policy', MEASURED)
def test_the_real_photos(policy):
    if not (REAL/'VOC2007').is_dir(): pytest.skip('real VOC photos are not here; set FSIC_SHARED to the folder that holds voc/')
    s = read_voc(REAL, difficult=policy)
    any_ = {r['part']: (r['images'], r['strict']) for r in filter_counts(s, VOC_SPLIT) if r['label']=='(any)'}
    assert s.names==VOC_NAMES and s.labels.any(1).all()
    if s.info['listed']!=3927: pytest.skip('another cut of VOC than the one whose counts are written here')
    assert (len(s), *(any_[p] for p in PARTS))==MEASURED[policy]
    if policy=='drop':   # what the strict filter leaves of some labels is too little for one episode
        assert VOC_SPLIT.restrict(s, 5, ('train', 'val', 'test'))[1]==dict(
            train=dict(bottle=2, diningtable=1), val=dict(aeroplane=1, bird=1, boat=1), test={})
        assert enough(s, VOC_SPLIT.labels('test'), 25)==(VOC_SPLIT.labels('test'), {})
