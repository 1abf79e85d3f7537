"JSON and XML annotations as tools write them: right labels and right numbers, and one thing spoilt at a time."
import contextlib, gzip, json, os, re, shutil
from pathlib import Path

import numpy as np, pytest
from hypothesis import given, settings, strategies as st

from fsic_nb.annotations import COCO_IDS, COCO_NAMES, is_official_voc, one_set, read_any_voc, read_coco, read_voc_own
from fsic_nb.core import FsicError
from fsic_nb.records import part_of
from fsic_nb.voc import DIFFICULT, ONLY_DIFFICULT, VOC_NAMES

ROOT = Path(__file__).resolve().parents[1]
FIELD = Path(os.environ.get('FSIC_FIELD', ROOT.parent/'shared'/'field'))

# What eight images show, as the cases below have it.
TRUTH = {1: ['cat'], 2: ['cat', 'dog'], 3: ['dog'], 4: ['dog'], 5: ['cat'], 6: ['cat', 'dog'], 7: [], 8: ['dog']}
SHOWN = {k: v for k, v in TRUTH.items() if v}

def names_of(s): return {p.name: {n for n, v in zip(s.names, row) if v} for p, row in zip(s.paths, s.labels)}
def table(s): return {int(re.search(r'(\d+)\.\w+$', p.name)[1]): [n for n, v in zip(s.names, row) if v] for p, row in zip(s.paths, s.labels)}

def put(root, *names, text='not looked at here', encoding='utf-8'):
    for n in names:
        (root/n).parent.mkdir(parents=True, exist_ok=True)
        (root/n).write_text(text, encoding=encoding)

def put_json(root, name, d, encoding='utf-8'): put(root, name, text=json.dumps(d), encoding=encoding)

def coco(truth=TRUTH, file='{}.jpg', cats=('cat', 'dog'), first=1, note=dict, **change):
    "COCO of a table; `note(k, image, category)` gives more fields of annotation k."
    ids = {k: i for i, k in enumerate(truth, first)}
    cat = {n: c for c, n in enumerate(cats, 1)} if not isinstance(cats, dict) else cats
    pairs = [(i, n) for i, names in truth.items() for n in names]
    return {**dict(info={}, licenses=[], images=[dict(id=ids[k], file_name=file.format(k), width=64, height=48) for k in truth],
                   annotations=[{**dict(id=k, image_id=ids[i], category_id=cat[n], bbox=[1, 2, 20, 10], area=200, iscrowd=0, segmentation=[]),
                                 **note(k=k, image=i, name=n)} for k, (i, n) in enumerate(pairs, 1)],
                   categories=[dict(id=c, name=n, supercategory='') for n, c in cat.items()]), **change}

def nothing(**kw): return {}

def own(root, name='annotations/instances_default.json', image='images/{}.jpg', truth=TRUTH, encoding='utf-8', **kw):
    "A folder with one COCO file."
    put_json(root, name, coco(truth, note=kw.pop('note', nothing), **kw), encoding)
    put(root, *(image.format(k) for k in truth))
    return root


# --- a case each ---------------------------------------------------------------------------------------------------------

def test_01_roboflow(tmp_path):
    "Three folders whose ids begin at 0, each with a category that only groups the others."
    cats = dict(tableware=0, cat=1, dog=2)
    parts = dict(train=(1, 2, 3), valid=(4, 5), test=(6, 7, 8))
    for p, some in parts.items(): own(tmp_path, f'{p}/_annotations.coco.json', p+'/{}.jpg', {k: TRUTH[k] for k in some}, cats=cats, first=0)
    put(tmp_path, 'README.roboflow.txt')
    s = read_coco(tmp_path)
    assert table(s)==SHOWN and s.names==['cat', 'dog'] and s.name==tmp_path.name
    assert {p.parent.name: q for p, q in zip(s.paths, s.parts)}==dict(train='train', valid='val', test='test')
    assert s.info['dialect']=='COCO of Roboflow' and s.info['left_out']['labels without an image (tableware)']==1
    assert any('1 label without an image (tableware)' in x for x in s.describe()) and s.info['left_out']['images without a label']==1
    one = read_coco(tmp_path/'valid')                                    # one of the folders, or its file
    assert table(one)=={4: ['dog'], 5: ['cat']}==table(read_coco(tmp_path/'valid'/'_annotations.coco.json')) and one.name=='valid'
    shutil.rmtree(tmp_path/'valid'), shutil.rmtree(tmp_path/'test')
    shutil.move(tmp_path/'train', tmp_path/'export')
    assert len(read_coco(tmp_path))==3

def test_two_folders_with_the_same_file_names(tmp_path):
    "1.jpg in train is another image than 1.jpg in valid."
    for p, labels in dict(train=['cat'], valid=['dog']).items(): own(tmp_path, f'{p}/_annotations.coco.json', p+'/{}.jpg', {1: labels})
    s = read_coco(tmp_path)
    assert {p.parent.name: n for p, n in zip(s.paths, (('cat',), ('dog',)))}=={'train': ('cat',), 'valid': ('dog',)} and s.labels.tolist()==[[True, False], [False, True]]

@pytest.mark.parametrize('name', ['result.json', 'annotations/instances_default.json', 'dataset.json', 'export/result.json'])
def test_02_backslashes(tmp_path, name):
    own(tmp_path, name, 'images/a1b2c3d4-{}.jpg', file='images\\a1b2c3d4-{}.jpg', info=dict(contributor='Label Studio'))
    s = read_coco(tmp_path)
    assert table(s)==SHOWN and s.info['dialect']=='COCO of Label Studio'
    assert table(read_coco(tmp_path, name))==SHOWN
    if name[:6]!='export': assert table(read_coco(tmp_path/name))==SHOWN

def test_label_studio_prefix_and_addresses(tmp_path):
    own(tmp_path, 'result.json', file='/data/upload/3/a1b2c3d4-{}.jpg')
    s = read_coco(tmp_path)
    assert table(s)==SHOWN and 'found without the prefix of Label Studio: 8 names' in s.info['notes']
    for file in ('/data/local-files/?d=images%5C{}.jpg', 'C:\\me\\images\\{}.jpg', 's3://bucket/images/{}.jpg', 'https://x.org/a%20b/images/{}.jpg?token=1', '../up/images/{}.jpg'):
        own(tmp_path, 'result.json', file=file)
        assert table(read_coco(tmp_path))==SHOWN, file
    put_json(tmp_path, 'result.json', coco({1: ['cat']}, file='a1b2c3d4-1.jpg', images=[dict(id=1, file_name='a1b2c3d4-1.jpg'), dict(id=2, file_name='b1b2c3d4-1.jpg')],
                                           annotations=[dict(image_id=i, category_id=1) for i in (1, 2)]))
    with pytest.raises(FsicError, match='a1b2c3d4-1.jpg is missing'): read_coco(tmp_path)     # which of the two is 1.jpg?

@pytest.mark.parametrize('names', [('Train', 'Validation', 'Test'), ('default', 'train', 'val'), ('train2017', 'val2017', 'test2017')])
@pytest.mark.parametrize('image', ['images/{part}/{}.png', '{part}/{}.png', 'images/{}.png'])
def test_04_subsets_whose_ids_restart(tmp_path, names, image):
    split = dict(zip(names, ((1, 2, 3), (4, 5), (6, 7, 8))))
    for p, some in split.items():
        own(tmp_path, f'annotations/instances_{p}.json', image.replace('{part}', p), {k: TRUTH[k] for k in some}, file='{}.png')
    s = read_coco(tmp_path)
    assert table(s)==SHOWN and s.info['listed']==8
    assert dict(zip((int(p.stem) for p in s.paths), s.parts))=={k: part_of(p) for p, some in split.items() for k in some if TRUTH[k]}

def test_subsets_with_the_same_file_names(tmp_path):
    for p, labels in dict(Train=['cat'], Test=['dog']).items(): own(tmp_path, f'annotations/instances_{p}.json', f'images/{p}/'+'{}.jpg', {1: labels})
    s = read_coco(tmp_path)
    assert {p.parent.name: [n for n, v in zip(s.names, row) if v] for p, row in zip(s.paths, s.labels)}==dict(Train=['cat'], Test=['dog'])

def test_05_masks_are_labels(tmp_path):
    def rle(k, image, name): return dict(iscrowd=1, segmentation=dict(counts=[1, 2, 3], size=[2, 3])) if name=='dog' else {}
    s = read_coco(own(tmp_path, note=rle))
    assert table(s)==SHOWN and 'marked iscrowd, but count as labels: 5 annotations' in s.describe()
    def all_masks(k, image, name): return dict(iscrowd=1)
    assert table(read_coco(own(tmp_path, note=all_masks)))==SHOWN

@pytest.mark.parametrize('note', [dict(id=None), dict(id=0), dict(id='a')])
def test_06_08_annotation_ids_do_not_matter(tmp_path, note):
    own(tmp_path, note=lambda **kw: note)
    assert table(read_coco(tmp_path))==SHOWN
    d = coco(note=nothing)
    for a in d['annotations']: del a['id']
    put_json(tmp_path, 'annotations/instances_default.json', d)
    assert table(read_coco(tmp_path))==SHOWN

@pytest.mark.parametrize('encoding', ['utf-8-sig', 'utf-16'])
def test_09_a_byte_order_mark(tmp_path, encoding):
    own(tmp_path, encoding=encoding)
    assert table(read_coco(tmp_path))==SHOWN
    shutil.move(tmp_path/'annotations'/'instances_default.json', tmp_path/'labels.json')
    assert table(read_coco(tmp_path))==SHOWN

def test_12_negatives(tmp_path):
    s, n = read_coco(own(tmp_path)), read_coco(tmp_path, negatives=True)
    assert table(s)==SHOWN and s.info['left_out']['images without a label']==1
    assert table(n)==TRUTH and n.info['left_out']['images without a label']==0 and 'kept without any label: 1' in n.describe()

def test_44_45_own_labels_keep_their_names(tmp_path):
    truth = {1: ['person'], 2: ['helmet'], 3: ['person', 'vest']}
    s = read_coco(own(tmp_path, 'annotations/instances_all.json', truth=truth, cats={'hats-kx4zq': 0, 'person': 1, 'helmet': 2, 'vest': 3}))
    assert table(s)==truth and s.names==['person', 'helmet', 'vest'] and s.name==tmp_path.name!='coco'

def test_52_lvis(tmp_path):
    images = [dict(id=k, coco_url=f'http://photos.example.com/val2017/{k:012d}.jpg', neg_category_ids=[2] if k==1 else [], not_exhaustive_category_ids=[]) for k in TRUTH]
    for folder in ('val2017', 'images', 'images/val2017', '.'):
        root = own(tmp_path/folder.replace('/', '_'), 'annotations/lvis_v1_val.json', folder+'/{:012d}.jpg', images=images)
        s = read_coco(root)
        assert table(s)==SHOWN and s.info['dialect']=='LVIS'
        known = dict(zip(table(s), (~s.unknown).tolist()))
        assert known[1]==[True, True]!=known[5]==[True, False] and known[3]==[False, True]     # of a dog in image 5 nothing is said
    assert len(read_coco(root, negatives=True))==8
    images[0]['neg_category_ids'] = [1, 2]
    s = read_coco(own(tmp_path/'both', 'annotations/lvis_v1_val.json', images=images, image='images/{:012d}.jpg'))
    assert table(s)==SHOWN and '1 labels are said to be there and not there; they count' in s.describe()

@pytest.mark.parametrize('place', ['annotations/instances_all.json', 'annotations.json', 'labels.json', '_annotations.createml.json', 'train/_annotations.createml.json'])
def test_59_createml(tmp_path, place):
    image = 'train/{}.jpg' if place[:5]=='train' else 'images/{}.jpg'
    put(tmp_path, *(image.format(k) for k in TRUTH))
    put_json(tmp_path, place, [dict(image=f'{k}.jpg', annotations=v) for k, v in TRUTH.items()])
    s = read_coco(tmp_path)
    assert table(s)==SHOWN and s.info['dialect']=='CreateML' and s.boxes is None
    put_json(tmp_path, place, [dict(image=f'{k}.jpg', annotations=[dict(label=n, coordinates=dict(x=20, y=10, width=8, height=4)) for n in v]) for k, v in TRUTH.items()])
    s = read_coco(tmp_path)
    assert table(s)==SHOWN and s.boxes[0]==[(0, 16, 8, 8, 4)]
    put_json(tmp_path, place, [dict(image='1.jpg', annotations=[dict(label='')])])
    with pytest.raises(FsicError, match="item 0: found the label ''; write a word"): read_coco(tmp_path)


# --- their kin ------------------------------------------------------------------------------------------------------------

def test_from_inside_the_folder(tmp_path, monkeypatch):
    own(tmp_path)
    monkeypatch.chdir(tmp_path)
    for args in (('.',), ('.', 'instances_default.json'), ('annotations/instances_default.json',), ('.', ['annotations/instances_default.json'])):
        s = read_coco(*args)
        assert table(s)==SHOWN and s.name==tmp_path.name
    monkeypatch.chdir(tmp_path/'annotations')
    s = read_coco('instances_default.json')
    assert table(s)==SHOWN and s.name==tmp_path.name and all(p.is_file() for p in s.paths)

@pytest.mark.parametrize('image, category', [(str, int), (int, str), (str, str), (float, float), (lambda i: f'img-{i}', lambda c: f'c{c}')])
def test_ids_of_any_kind(tmp_path, image, category):
    d = coco(note=nothing)
    for a in d['annotations']: a.update(image_id=image(a['image_id']), category_id=category(a['category_id']))
    if image('1')=='img-1':
        for r in d['images']: r['id'] = image(r['id'])
        for c in d['categories']: c['id'] = category(c['id'])
    own(tmp_path)
    put_json(tmp_path, 'annotations/instances_default.json', d)
    assert table(read_coco(tmp_path))==SHOWN

def test_categories_joined_by_name(tmp_path):
    "Two ids of one name, other ids in each file, one without an id, blanks around a name."
    cats = [dict(id=1, name='cat'), dict(id=2, name='dog '), dict(id=3, name='dog')]
    own(tmp_path, note=lambda k, image, name: dict(category_id=3) if image==8 else {}, categories=cats)
    assert table(read_coco(tmp_path))==SHOWN
    own(tmp_path, note=lambda k, image, name: dict(category_id=None, category_name=name) if 0 else dict(category_id=name), categories=[dict(name='cat'), dict(name='dog')])
    assert table(read_coco(tmp_path))==SHOWN
    (tmp_path/'annotations'/'instances_default.json').unlink()
    own(tmp_path, 'annotations/a_train.json', truth={1: ['cat'], 2: ['cat', 'dog']}, cats=dict(cat=1, dog=2))
    own(tmp_path, 'annotations/a_val.json', truth={3: ['dog'], 4: ['bird']}, cats=dict(bird=1, dog=7))
    s = read_coco(tmp_path)
    assert table(s)=={1: ['cat'], 2: ['cat', 'dog'], 3: ['dog'], 4: ['bird']} and s.names==['cat', 'dog', 'bird'] and s.parts==['train']*2+['val']*2

def test_images_listed_twice(tmp_path):
    d = coco(note=nothing)
    put_json(own(tmp_path), 'annotations/instances_default.json', {**d, 'images': d['images']+[d['images'][0]]})
    s = read_coco(tmp_path)
    assert table(s)==SHOWN and any('united: 1 image listed' in x for x in s.describe())
    more = dict(images=d['images']+[dict(id=99, file_name='1.jpg')], annotations=d['annotations']+[dict(image_id=99, category_id=2)])
    put_json(tmp_path, 'annotations/instances_default.json', {**d, **more})
    s = read_coco(tmp_path)
    assert table(s)=={**SHOWN, 1: ['cat', 'dog']} and any('united: 1 record of' in x for x in s.describe())
    put_json(tmp_path, 'annotations/instances_default.json', {**d, 'images': d['images']+[dict(id=1, file_name='2.jpg')]})
    with pytest.raises(FsicError, match=r'images\[8\]: id 1 is 2.jpg here and 1.jpg before; give each image an id of its own'): read_coco(tmp_path)

def test_files_without_annotations(tmp_path):
    own(tmp_path, 'annotations/instances_train.json', truth={k: TRUTH[k] for k in (1, 2, 3)})
    for none in (None, 'gone'):
        d = coco({4: []}, annotations=None)
        if none: del d['annotations']
        put_json(tmp_path, 'annotations/instances_test.json', d)
        put(tmp_path, 'images/4.jpg')
        s = read_coco(tmp_path, negatives=True)                       # unlabelled is not negative
        assert table(s)=={k: TRUTH[k] for k in (1, 2, 3)} and s.info['left_out']['images of instances_test.json, which has no annotations']==1

def test_official_siblings_are_passed_over(tmp_path):
    own(tmp_path, 'annotations/train.json')
    for n in ('captions_train', 'person_keypoints_train', 'stuff_train', 'panoptic_train', 'image_info_test'):
        put_json(tmp_path, f'annotations/{n}.json', dict(images=[], annotations=[]))
    put_json(tmp_path, 'split.json', dict(test=['cat'])), put_json(tmp_path, 'package.json', dict(name='x', classes=3))
    put(tmp_path, 'annotations/._train.json', '__MACOSX/annotations/train.json')
    s = read_coco(tmp_path)
    assert table(s)==SHOWN and s.info['annotations']==['train.json'] and s.info['notes']==[]

def test_a_sibling_alone_is_read(tmp_path):
    s = read_coco(own(tmp_path, 'annotations/person_keypoints_val2017.json', truth={1: ['person']}, cats=['person']))
    assert table(s)=={1: ['person']}

def test_other_files_with_annotations_are_named(tmp_path):
    own(tmp_path), own(tmp_path, 'result.json')
    assert 'not read: 1 file with annotations (result.json)' in read_coco(tmp_path).describe()

def test_several_files_ask_which(tmp_path):
    own(tmp_path, 'annotations/instances_a.json', 'images/a/{}.jpg', {1: ['cat']}), own(tmp_path, 'annotations/instances_b.json', 'images/b/{}.jpg', {1: ['dog']})
    with pytest.raises(FsicError, match=r'2 files hold annotations \(annotations/instances_a.json, annotations/instances_b.json\); say which with --annotations FILE'): read_coco(tmp_path)
    for several in ('instances_a.json,instances_b.json', 'instances_a.json, annotations/instances_b.json', ['instances_a.json', tmp_path/'annotations'/'instances_b.json']):
        s = read_coco(tmp_path, several)
        assert {p.parent.name: [n for n, v in zip(s.names, row) if v] for p, row in zip(s.paths, s.labels)}==dict(a=['cat'], b=['dog']) and s.parts is None
    with pytest.raises(FsicError, match='has instances_c.json; did you mean annotations/instances_'): read_coco(tmp_path, 'instances_c.json')

@pytest.mark.parametrize('names, n', [(('train', 'val'), 2), (('instances_train2014', 'instances_val2017'), 0), (('a_train', 'b_val'), 0), (('train', 'trainval'), 0),
                                      (('lvis_v1_train', 'lvis_v1_val'), 2), (('data-train', 'data-valid', 'data-test'), 3), (('x/train', 'x/val'), 2),
                                      (('train/a', 'valid/a'), 2), (('train/a', 'valid/b'), 0), (('train/a', 'train/b'), 0), (('training_set', 'testing_set'), 2)])
def test_files_of_one_set(names, n):
    paths = [Path('d')/f'{x}.json' for x in names]
    if n: assert one_set(paths, Path('d'))==paths
    else:
        with pytest.raises(FsicError, match='say which'): one_set(paths, Path('d'))

@pytest.mark.parametrize('name, image', [('data/labels.json', 'data/{}.jpg'), ('labels.json', 'data/{}.jpg'), ('train/labels.json', 'train/data/{}.jpg'), ('x/annotations/a.json', 'x/images/{}.jpg'),
                                         ('annotations/a.json', 'annotations/{}.jpg'), ('Annotations/a.json', 'Images/{}.jpg'), ('a.json', '{}.jpg'), ('annotations/train/a.json', 'images/train/{}.jpg'),
                                         ('val/annotations/a.json', 'val/images/{}.jpg'), ('annotations/instances_default.json', 'images/default/{}.jpg')])
def test_where_files_and_images_lie(tmp_path, name, image):
    assert table(read_coco(own(tmp_path, name, image)))==SHOWN
    if Path(image).parts[0] in (*Path(name).parts, image): return
    shutil.move(tmp_path/Path(image).parts[0], tmp_path/'elsewhere')
    s = read_coco(tmp_path)                          # none where they should be: sought in all folders, and said
    assert table(s)==SHOWN and any(x.startswith('images found in: elsewhere') for x in s.describe())
    shutil.copytree(tmp_path/'elsewhere', tmp_path/'copies')          # now each name is there twice
    with pytest.raises(FsicError, match='1.jpg is missing, as 7 of 7 listed images are; put them into .*--pictures'): read_coco(tmp_path)
    assert table(read_coco(tmp_path, pictures=tmp_path/Path('elsewhere', *Path(image).parts[1:-1])))==SHOWN

def test_fiftyone(tmp_path):
    own(tmp_path, 'labels.json', 'data/{}.jpg', info=dict(description='Exported from FiftyOne'))
    assert table(read_coco(tmp_path))==SHOWN and read_coco(tmp_path).info['dialect']=='COCO of FiftyOne'
    put_json(tmp_path, 'labels.json', dict(classes=['cat', 'dog'], labels={str(k): [['cat', 'dog'].index(n) for n in v] for k, v in TRUTH.items()}))
    assert table(read_coco(tmp_path))==SHOWN
    put_json(tmp_path, 'labels.json', dict(classes=None, labels={str(k): v[0] if v else None for k, v in TRUTH.items()}))
    assert table(read_coco(tmp_path, negatives=True))=={k: v[:1] for k, v in TRUTH.items()}

def test_boxes(tmp_path):
    def odd(k, image, name): return {1: dict(bbox=None), 2: dict(bbox=[1, 2, 3]), 3: dict(bbox=[1, 2, float('nan'), 3])}.get(k, {})
    s = read_coco(own(tmp_path, note=odd))
    assert s.boxes[0]==[] and s.boxes[1]==[] and s.boxes[2]==[(1, 1, 2, 20, 10)]


def test_a_path_of_another_machine_with_folders(tmp_path):
    "The same file name in two folders, both below a folder that is not here."
    for slash in '/\\':
        images = [dict(id=k, file_name=f'C:/me/pets/images/{d}/1.jpg'.replace('/', slash)) for k, d in ((1, 'a'), (2, 'b'))]
        put_json(tmp_path, 'result.json', coco({1: ['cat'], 2: ['dog']}, images=images))
        put(tmp_path, 'images/a/1.jpg', 'images/b/1.jpg')
        s = read_coco(tmp_path)
        assert {p.parent.name: [n for n, v in zip(s.names, row) if v] for p, row in zip(s.paths, s.labels)}==dict(a=['cat'], b=['dog'])

def test_json_in_another_encoding_says_so(tmp_path):
    put(tmp_path, 'annotations/instances_a.json', text='{"images": [], "name": "L\xf6we"}', encoding='cp1252')
    with pytest.raises(FsicError, match='instances_a.json: not valid JSON .*save the file as UTF-8'): read_coco(tmp_path)

def test_roboflow_names_its_group_like_a_label(tmp_path):
    "Category 0 has the name of the project, here that of a label, or nearly."
    for group in ('cat', 'Cat'):
        cats = [dict(id=0, name=group, supercategory='none'), dict(id=1, name='cat', supercategory=group), dict(id=2, name='dog', supercategory=group)]
        s = read_coco(own(tmp_path, 'train/_annotations.coco.json', 'train/{}.jpg', categories=cats))
        assert table(s)==SHOWN and s.names==['cat', 'dog']

# --- COCO's own ---------------------------------------------------------------------------------------------------------

CATS = dict(zip(COCO_NAMES, COCO_IDS))

def test_crowds_are_no_labels_in_cocos_own_categories(tmp_path):
    truth = {7: ['person', 'toothbrush'], 42: ['person', 'dog'], 9: ['person'], 100: []}
    def crowd(k, image, name): return dict(iscrowd=int((image, name) in ((42, 'person'), (9, 'person'))))
    own(tmp_path, 'annotations/instances_mini.json', 'mini/{:012d}.jpg', truth, cats=CATS, file='{:012d}.jpg', note=crowd)
    s = read_coco(tmp_path)
    assert s.names==COCO_NAMES and s.name=='coco' and table(s)=={7: ['person', 'toothbrush'], 42: ['dog']}
    assert s.info['left_out']=={'crowd annotations': 2, 'images without a label': 2, 'images without a file': 0} and s.info['dialect']=='COCO' and s.parts is None
    own(tmp_path, 'annotations/instances_mini.json', 'mini/{:012d}.jpg', truth, cats={**CATS, 'unicorn': 91}, file='{:012d}.jpg', note=crowd)
    s = read_coco(tmp_path)                                              # one category more, and it is a data set of one's own
    assert s.name==tmp_path.name and table(s)=={k: v for k, v in truth.items() if v} and s.names==['person', 'dog', 'toothbrush']

def test_coco_2014_and_2017(tmp_path):
    for part, some in dict(train2014=(1, 2), val2014=(3,)).items():
        own(tmp_path, f'annotations/instances_{part}.json', part+'/COCO_'+part+'_{:012d}.jpg', {k: SHOWN[k] for k in some}, cats=CATS, file='COCO_'+part+'_{:012d}.jpg', first=some[0])
    s = read_coco(tmp_path)
    assert table(s)=={k: SHOWN[k] for k in (1, 2, 3)} and s.info['annotations']==['instances_train2014.json', 'instances_val2014.json'] and s.parts==['train', 'train', 'val']
    own(tmp_path, 'annotations/instances_val2017.json', 'val2017/{:012d}.jpg', {1: ['cat']}, cats=CATS, file='{:012d}.jpg')
    with pytest.raises(FsicError, match='3 files hold annotations'): read_coco(tmp_path)
    with pytest.raises(FsicError, match='instances_val2017.json, image 1: .*instances_train2014.json, image 1 is the same photograph'):
        read_coco(tmp_path, 'instances_train2014.json,instances_val2017.json')
    assert len(read_coco(tmp_path, 'instances_val2014.json,instances_val2017.json'))==2

@pytest.mark.parametrize('change, says', [
    (dict(images=None), 'instances_default.json: no list is called images'),
    (dict(categories={}), 'no list is called categories'),
    (dict(annotations=[]), 'no image carries a label'), (dict(annotations=3), 'annotations is no list'), (dict(annotations=None), 'no image carries a label'),
    (dict(images=[3]), 'images[0]: expected an id, found None'), (dict(images=[dict(id=42)]), 'images[0]: has no file_name'),
    (dict(images=[dict(id=True, file_name='x')]), 'images[0]: expected an id, found True'),
    (dict(categories=[dict(id=1)]), 'categories[0]: has no name'), (dict(categories=[dict(id=1, name='cat'), dict(id=1, name='dog')]), "categories[1]: id 1 is 'dog' here and 'cat' before"),
    (dict(annotations=[dict(id=5, image_id=99, category_id=1)]), 'annotations[0]: image_id 99 is not among images; add it there, or delete'),
    (dict(annotations=[dict(id=5, image_id=2, category_id=9)]), 'annotations[0]: category_id 9 is not among categories'),
    (dict(annotations=[dict(id=5, image_id=2)]), 'annotations[0]: category_id None is not'), (dict(annotations=['x']), 'annotations[0]: image_id None is not among images'),
    (dict(categories=[dict(id=1, name='dog'), dict(id=2, name='Dog')]), "label 'Dog' is spelt 'dog' in"),
    (dict(images=[dict(id=k, file_name=f'x/{k}.jpg' if k>1 else '../../../etc/hosts') for k in TRUTH]), "file name '../../../etc/hosts' leads out of"),
    (dict(images=[dict(id=k, file_name='gone.jpg' if k==8 else f'{k}.jpg') for k in TRUTH]), 'image 8: gone.jpg is missing, as 1 of 7')])
def test_a_spoilt_file_names_the_record(tmp_path, change, says):
    with pytest.raises(FsicError, match=re.escape(says)) as e: read_coco(own(tmp_path, **change))
    assert '\n' not in str(e.value)

def test_a_spoilt_tree_names_the_place(tmp_path):
    with pytest.raises(FsicError, match='nowhere: no such folder; give the folder that holds annotations'): read_coco(tmp_path/'nowhere')
    with pytest.raises(FsicError, match='no JSON file with annotations is in it.*--annotations FILE'): read_coco(tmp_path)
    own(tmp_path)
    put(tmp_path, 'images/8.jpg', text='')
    with pytest.raises(FsicError, match='image 8: 8.jpg is empty, as 1 of 7'): read_coco(tmp_path)
    assert len(read_coco(tmp_path, files='present'))==6 and len(read_coco(tmp_path, files='unchecked'))==7
    with pytest.raises(FsicError, match='1.jpg: no such folder; give .* or one JSON file'): read_coco(tmp_path/'images'/'1.jpg')
    put(tmp_path, 'annotations/instances_default.json', text='{')
    with pytest.raises(FsicError, match='instances_default.json: not valid JSON'): read_coco(tmp_path)
    put_json(tmp_path, 'annotations/instances_default.json', [dict(id=1, annotations=[], data=dict(image='x'))])
    with pytest.raises(FsicError, match="Label Studio's own JSON; export it as CSV"): read_coco(tmp_path)

@settings(deadline=None, max_examples=30)
@given(st.data())
def test_coco_is_what_pycocotools_says(tmp_path_factory, data):
    "Any ids, several objects an image, crowds anywhere, in COCO's own categories."
    from pycocotools.coco import COCO as Api
    ids = data.draw(st.lists(st.integers(1, 10**6), min_size=1, max_size=8, unique=True))
    some = data.draw(st.lists(st.tuples(st.sampled_from(ids), st.sampled_from(COCO_IDS), st.integers(0, 1)), min_size=1, max_size=30))
    some.append((ids[0], 1, 0))
    d = tmp_path_factory.mktemp('coco')
    put_json(d, 'annotations/instances_mini.json', dict(images=[dict(id=i, file_name=f'{i}.jpg') for i in ids], categories=[dict(id=c, name=n) for n, c in CATS.items()],
             annotations=[dict(id=k, image_id=i, category_id=c, iscrowd=w) for k, (i, c, w) in enumerate(some)]))
    with contextlib.redirect_stdout(None): api = Api(str(d/'annotations'/'instances_mini.json'))
    name = {c: n for n, c in CATS.items()}
    want = {i: {name[a['category_id']] for a in api.loadAnns(api.getAnnIds(imgIds=[i], iscrowd=False))} for i in ids}
    s = read_coco(d, files='unchecked')
    assert names_of(s)=={f'{i}.jpg': v for i, v in want.items() if v} and s.names==COCO_NAMES

def test_the_real_coco_labels(photos, tmp_path):
    "val2017 as two independent sources have it, and the photographs."
    with gzip.open(photos/'labels'/'instances_val2017_labels_only.json.gz') as f: text = f.read()
    (tmp_path/'annotations').mkdir(); (tmp_path/'val2017').mkdir()
    (tmp_path/'annotations'/'instances_val2017.json').write_bytes(text)
    s = read_coco(tmp_path, files='unchecked')
    assert (len(s), len(s.names), s.info['listed'], s.info['left_out']['images without a label'])==(4952, 80, 5000, 48)
    with gzip.open(photos/'labels'/'coco_labels.json.gz') as f: other = json.load(f)
    assert s.names==other['names'] and {p.stem: np.flatnonzero(row).tolist() for p, row in zip(s.paths, s.labels)}=={k: sorted(v) for k, v in other['val2017'].items() if v}
    assert len(read_coco(photos/'coco'))==251


# --- XML of own labels --------------------------------------------------------------------------------------------------

def xml(file, labels, hard=(), **change):
    some = ''.join(f'<object><name>{n}</name><pose>Unspecified</pose><difficult>{int(n in hard)}</difficult><bndbox><xmin>1</xmin><ymin>2</ymin><xmax>21</xmax>'
                   f'<ymax>12</ymax></bndbox><part><name>head</name></part></object>' for n in labels)
    return f'<annotation><folder>images</folder><filename>{file}</filename><path>C:\\Users\\me\\{file}</path>{some}</annotation>'

def tree(root, place, image, truth=TRUTH, file='{}.jpg', hard=()):
    "A folder of XML files; `place`, `image` and `file` have {} for the number."
    for k, v in truth.items():
        put(root, place.format(k), text=xml(file.format(k), v, hard))
        put(root, image.format(k))
    return root

@pytest.mark.parametrize('place, image', [
    ('annotations/{}.xml', 'images/{}.jpg'), ('Annotations/{}.xml', 'JPEGImages/{}.jpg'), ('{}.xml', '{}.jpg'), ('VOC2012/Annotations/{}.xml', 'VOC2012/JPEGImages/{}.jpg'),
    ('labels/{}.xml', 'images/{}.jpg'), ('images/{}.xml', 'images/{}.jpg'), ('a/b/Annotations/{}.xml', 'a/b/JPEGImages/{}.jpg'), ('Annotations/x/{}.xml', 'JPEGImages/x/{}.jpg'),
    ('xmls/{}.xml', '{}.jpg'), ('d/{}.xml', 'd/{}.jpg')])
@pytest.mark.parametrize('file', ['{}.jpg', '{}', '', 'renamed.jpg', '{}.png', 'images\\{}.jpg', 'C:\\me\\{}.jpg'])
def test_14_xml_of_own_labels(tmp_path, place, image, file):
    s = read_voc_own(tree(tmp_path, place, image, file=file))
    assert table(s)==SHOWN and s.names==['cat', 'dog'] and s.name==tmp_path.name and all(p.is_file() for p in s.paths)
    assert s.boxes[0]==[(0, 1, 2, 20, 10)] and s.info['dialect']=='PASCAL VOC of own labels'
    assert table(read_any_voc(tmp_path, negatives=True))==TRUTH

def test_15_cvat(tmp_path):
    for k, v in TRUTH.items():
        put(tmp_path, f'Annotations/{k}.xml', text=xml(f'{k}.{"png" if k%2 else "jpg"}', v)), put(tmp_path, f'JPEGImages/{k}.{"png" if k%2 else "jpg"}')
    put(tmp_path, 'ImageSets/Main/default.txt', text='\n'.join(map(str, TRUTH)))
    put(tmp_path, 'labelmap.txt', text='# label:color_rgb:parts:actions\nbackground:0,0,0::\ndog:1,2,3::\ncat:3,4,5::\n')
    put(tmp_path, 'SegmentationClass/1.png')
    s = read_any_voc(tmp_path)
    assert {k: sorted(v) for k, v in table(s).items()}==SHOWN and s.names==['dog', 'cat'] and s.parts is None and {p.suffix for p in s.paths}=={'.png', '.jpg'}
    assert any('1 label without an image (background)' in x for x in s.describe()) and s.info['notes']==[]

def test_16_lists_of_ids(tmp_path, monkeypatch):
    tree(tmp_path, 'VOC2012/Annotations/{}.xml', 'VOC2012/JPEGImages/{}.jpg')
    for n, ids in dict(train='1 2 3', val='4 5', test='6 7', trainval='1 2 3 4 5').items():
        put(tmp_path, f'VOC2012/ImageSets/Main/{n}.txt', text='\r\n'.join(ids.split())+'\r\n')
    put(tmp_path, 'VOC2012/ImageSets/Main/cat_train.txt', text='1  1\n3 -1\n')
    for root in (tmp_path, tmp_path/'VOC2012', '.'):
        if root=='.': monkeypatch.chdir(tmp_path/'VOC2012')
        s = read_any_voc(root)
        assert table(s)==SHOWN and dict(zip(table(s), s.parts))=={1: 'train', 2: 'train', 3: 'train', 4: 'val', 5: 'val', 6: 'test', 8: ''}
    assert s.name=='VOC2012'
    put(tmp_path, 'VOC2012/ImageSets/Main/test.txt', text='6\n1\n77\n')
    s = read_any_voc(tmp_path)
    assert dict(zip(table(s), s.parts))[1]=='train' and s.info['left_out']['listed images without an XML file']==1
    assert 'in two lists, counted for the first: 1 image' in s.describe()

def test_roboflow_voc(tmp_path):
    for p, some in dict(train=(1, 2, 3), valid=(4, 5), test=(6, 7, 8)).items(): tree(tmp_path, p+'/{}.xml', p+'/{}.jpg', {k: TRUTH[k] for k in some})
    s = read_any_voc(tmp_path)
    assert table(s)==SHOWN and {p.parent.name: q for p, q in zip(s.paths, s.parts)}==dict(train='train', valid='val', test='test')

def test_names_with_blanks_and_folders_of_their_own(tmp_path):
    put(tmp_path, 'Annotations/a/my cat.xml', text=xml('p 1.jpg', ['cat'])), put(tmp_path, 'Annotations/b/1.xml', text=xml('b/p 2.jpg', ['dog']))
    put(tmp_path, 'JPEGImages/a/p 1.jpg', 'JPEGImages/b/p 2.jpg', 'JPEGImages/c/p 1.jpg')
    put(tmp_path, 'ImageSets/Main/Train.txt', text='"a/my cat"\n'), put(tmp_path, 'ImageSets/Main/Validation.txt', text='b/1.jpg\n')
    s = read_any_voc(tmp_path)
    assert names_of(s)=={'p 1.jpg': {'cat'}, 'p 2.jpg': {'dog'}} and s.paths[0].parent.name=='a' and s.parts==['train', 'val']

def test_the_same_names_in_two_trees(tmp_path):
    for year, n in dict(VOC2007='cat', VOC2012='dog').items(): tree(tmp_path, year+'/Annotations/{}.xml', year+'/JPEGImages/{}.jpg', {1: [n]})
    s = read_any_voc(tmp_path)
    assert {p.parts[-3]: [n for n, v in zip(s.names, row) if v] for p, row in zip(s.paths, s.labels)}==dict(VOC2007=['cat'], VOC2012=['dog'])

@pytest.mark.parametrize('difficult', DIFFICULT)
def test_difficult_in_own_xml(tmp_path, difficult):
    tree(tmp_path, 'annotations/{}.xml', 'images/{}.jpg', hard=['dog'])
    s = read_any_voc(tmp_path, difficult)
    no_dog = {k: ['cat'] for k in (1, 2, 5, 6)}
    assert table(s)=={'drop': {1: ['cat'], 5: ['cat']}, 'positive': SHOWN, 'negative': no_dog, 'unknown': no_dog}[difficult]
    assert s.info['left_out'][ONLY_DIFFICULT]==(5 if difficult=='drop' else 0) and s.info['difficult']==difficult
    tree(tmp_path/'all', 'annotations/{}.xml', 'images/{}.jpg', hard=['cat', 'dog'])
    if difficult=='drop':
        with pytest.raises(FsicError, match='1 image, without 7 images with a label that is only there as difficult'): read_any_voc(tmp_path/'all')
    shutil.rmtree(tmp_path/'all')
    full = read_any_voc(tmp_path, difficult, negatives=True)
    assert len(full)==(3 if difficult=='drop' else 8)
    with pytest.raises(FsicError, match="use 'drop', 'positive', 'negative' or 'unknown'"): read_any_voc(tmp_path, 'ignore')

def test_unknown_labels_of_own_xml(tmp_path):
    tree(tmp_path, 'annotations/{}.xml', 'images/{}.jpg', {1: ['cat'], 3: ['dog']})
    put(tmp_path, 'annotations/2.xml', text=xml('2.jpg', ['cat', 'dog'], hard=['dog'])), put(tmp_path, 'images/2.jpg')
    s = read_voc_own(tmp_path, 'unknown')
    assert table(s)=={1: ['cat'], 2: ['cat'], 3: ['dog']} and s.unknown.tolist()==[[False, False], [False, True], [False, False]]

def test_xml_what_is_an_error_and_what_is_said(tmp_path):
    with pytest.raises(FsicError, match='no XML annotation of PASCAL VOC or CVAT is in it; give the folder that holds VOC2007'): read_any_voc(tmp_path)
    with pytest.raises(FsicError, match='nowhere: no such folder'): read_any_voc(tmp_path/'nowhere')
    put(tmp_path, 'annotations.xml', text='<annotations><version>1.1</version></annotations>')
    with pytest.raises(FsicError, match='no XML annotation of PASCAL VOC or CVAT is in it'): read_any_voc(tmp_path)
    tree(tmp_path, 'annotations/{}.xml', 'images/{}.jpg')
    put(tmp_path, 'images/9.jpg', 'images/10.png', 'images/notes.txt', '.idea/misc.xml')
    s = read_any_voc(tmp_path)
    assert table(s)==SHOWN and s.info['notes']==['passed over: 1 file of another kind of XML', 'without an XML file: 2 images beside these']
    (tmp_path/'images'/'1.jpg').unlink()
    with pytest.raises(FsicError, match='1.xml: 1.jpg is missing, as 1 of 7'): read_any_voc(tmp_path)
    assert len(read_any_voc(tmp_path, files='present'))==6
    put(tmp_path, 'images/1.jpg'), put(tmp_path, 'annotations/1.xml', text=xml('9.jpg', ['cat']))
    with pytest.raises(FsicError, match='1.xml: says filename 9.jpg, but .*1.jpg is there too; name the image and the XML file alike'): read_any_voc(tmp_path)
    for bad, says in ((xml('1.jpg', ['Cat']), "label 'cat' is spelt 'Cat' in"), (xml('1.jpg', ['']), 'an object has no name'), ('<annotation>', '1.xml: not valid XML'),
                      ('<!DOCTYPE x><annotation/>', 'it has a DOCTYPE; delete that line')):
        put(tmp_path, 'annotations/1.xml', text=bad)
        with pytest.raises(FsicError, match=says) as e: read_any_voc(tmp_path)
        assert '\n' not in str(e.value)

def test_pictures_of_xml_may_lie_elsewhere(tmp_path):
    tree(tmp_path, 'root/annotations/{}.xml', 'photos/{}.jpg')
    with pytest.raises(FsicError, match='is missing, as 7 of 7 .*--pictures'): read_any_voc(tmp_path/'root')
    assert table(read_any_voc(tmp_path/'root', pictures=tmp_path/'photos'))==SHOWN

def test_official_or_own(tmp_path):
    tree(tmp_path, 'VOC2007/Annotations/{:06d}.xml', 'VOC2007/JPEGImages/{:06d}.jpg', file='{:06d}.jpg')
    assert not is_official_voc(tmp_path) and read_any_voc(tmp_path).name==tmp_path.name
    for n in VOC_NAMES: put(tmp_path, f'VOC2007/ImageSets/Main/{n}_test.txt', text=''.join(f'{k:06d} {1 if n in v else -1}\n' for k, v in TRUTH.items()))
    s = read_any_voc(tmp_path)
    assert is_official_voc(tmp_path) and s.name=='voc' and s.names==VOC_NAMES and s.info['dialect']=='PASCAL VOC' and table(s)==TRUTH
    with pytest.raises(FsicError, match='leave out --pictures'): read_any_voc(tmp_path, pictures=tmp_path)
    with pytest.raises(FsicError, match='this is one year; give the folder above it'): read_any_voc(tmp_path/'VOC2007')
    (tmp_path/'VOC2007'/'ImageSets'/'Main'/'cat_test.txt').unlink()
    with pytest.raises(FsicError, match='cat_test.txt: no such file, but'): read_any_voc(tmp_path)      # still the official tree, and spoilt


# --- the folders that people have, where they are -------------------------------------------------------------------------

EXPECTED = {'01': (12, dict(cup=8, plate=8)), '02': (7, dict(helmet=4, vest=5)), '04': (12, dict(rice=6, soup=9)), '05': (7, dict(rice=4, soup=5)),
            '06': (7, dict(cat=4, dog=5)), '08': (7, dict(cat=4, dog=5)), '09': (7, dict(cat=4, dog=5)), '12': (3, dict(forklift=2, pallet=2)),
            '14': (7, dict(fox=5, raccoon=4)), '15': (7, dict(raccoon=4, fox=5)), '16': (7, dict(platelets=4, wbc=5)),
            '44': (18, dict(helmet=11, vest=11)), '45': (21, dict(person=7, helmet=7, vest=7)), '52': (7, dict(cat=4, dog=5)), '59': (7, dict(cat=4, dog=5))}

@pytest.mark.parametrize('case', EXPECTED)
def test_the_folders_that_people_have(case, monkeypatch):
    root = next(FIELD.glob(f'{case}-*'), None) if FIELD.is_dir() else None
    if root is None: pytest.skip('the cases from the field are not here; set FSIC_FIELD to their folder')
    monkeypatch.chdir(root)
    s = (read_any_voc if case in ('14', '15', '16') else read_coco)('.')
    assert (len(s), dict(zip(s.names, s.counts().tolist())))==EXPECTED[case] and s.name==root.name
    if case=='15': assert list(s.names)==['raccoon', 'fox']


# --- other tools, found by writing what they write -----------------------------------------------

def labels_of(images): return {p.stem: [n for n, v in zip(images.names, row) if v] for p, row in zip(images.paths, images.labels)}

def pictures(root, *names):
    for n in names:
        (root/n).parent.mkdir(parents=True, exist_ok=True); (root/n).write_bytes(b'x'+n.encode())

TWO = {'1': ['cat', 'dog'], '2': ['dog']}

@pytest.mark.parametrize('name, content', [
    ('labels.json', [dict(image='1.jpg', labels=['cat', 'dog']), dict(image='2.jpg', labels='dog')]),
    ('labels.json', {'1.jpg': ['cat', 'dog'], '2.jpg': 'dog'}),
    ('export.json', [dict(image='/data/upload/1/ab12cd34-1.jpg', id=1, choice=dict(choices=['cat', 'dog'])), dict(image='/data/upload/1/ab12cd34-2.jpg', id=2, choice='dog')]),
    ('a.jsonl', [dict(file_name='1.jpg', label=['cat', 'dog'], image_id=1), dict(file_name='2.jpg', label=['dog'], image_id=2)])])
def test_lists_of_images_in_json(tmp_path, name, content):
    pictures(tmp_path, '1.jpg', '2.jpg')
    (tmp_path/name).write_text('\n'.join(map(json.dumps, content)) if name.endswith('l') else json.dumps(content))
    assert labels_of(read_coco(tmp_path))==TWO==labels_of(read_coco(tmp_path/name))

def test_json_lines_are_checked_and_a_manifest_is_none(tmp_path):
    pictures(tmp_path, '1.jpg')
    (tmp_path/'coco_manifest.jsonl').write_text('{"manifest": 1, "images": 0}\n')      # what fsic_prepare leaves in the folder
    with pytest.raises(FsicError, match='no JSON file with annotations'): read_coco(tmp_path)
    (tmp_path/'a.jsonl').write_text('{"image": "1.jpg", "label": 0}\n{"image": \n')
    with pytest.raises(FsicError, match='a.jsonl, line 2: not valid JSON'): read_coco(tmp_path)
    (tmp_path/'a.jsonl').write_text('{"image": "1.jpg", "label": 0}\n')
    assert labels_of(read_coco(tmp_path))=={'1': ['0']}                                # numbers are labels too

def test_labelme_is_a_file_for_each_image(tmp_path):
    for part, k, shapes, flags in (('train', 'test_1', ['cat'], {'dog': True, 'sofa': False}), ('val', 'b', ['dog', 'dog'], {})):
        pictures(tmp_path, f'{part}/{k}.jpg')
        shapes = [dict(label=n, shape_type='rectangle', points=[[5, 6], [1, 2]]) for n in shapes]
        (tmp_path/part/f'{k}.json').write_text(json.dumps(dict(imagePath=f'..\\x\\{k}.jpg', shapes=shapes, flags=flags)))
    s = read_coco(tmp_path)
    assert labels_of(s)=={'test_1': ['cat', 'dog'], 'b': ['dog']} and s.parts==['train', 'val']     # test_1 is an image, no part
    assert s.boxes[0]==[(s.names.index('cat'), 1, 2, 4, 4)]

@pytest.mark.parametrize('content, says', [
    ([dict(data=dict(image='1.jpg'), annotations=[])], "Label Studio's own JSON; export it as CSV"),
    ({'1.jpg12': dict(filename='1.jpg', regions=[])}, 'VGG Image Annotator; export it as COCO'),
    ({'_via_img_metadata': {'1.jpg12': dict(filename='1.jpg', regions=[])}}, 'VGG Image Annotator')])
def test_json_that_is_not_read_is_named(tmp_path, content, says):
    (tmp_path/'a.json').write_text(json.dumps(content))
    with pytest.raises(FsicError, match=says): read_coco(tmp_path)

def test_panoptic_segments_are_labels(tmp_path):
    pictures(tmp_path, 'images/1.jpg', 'images/2.jpg')
    (tmp_path/'annotations').mkdir()
    notes = [dict(image_id=k, segments_info=[dict(category_id=c) for c in some]) for k, some in ((1, [1, 2]), (2, [2]))]
    d = dict(images=[dict(id=k, file_name=f'{k}.jpg') for k in (1, 2)], categories=[dict(id=1, name='cat'), dict(id=2, name='dog')], annotations=notes)
    (tmp_path/'annotations'/'panoptic_val2017.json').write_text(json.dumps(d))
    assert labels_of(read_coco(tmp_path))==TWO

def test_xml_of_cvat(tmp_path):
    pictures(tmp_path, 'images/1.jpg', 'images/2.jpg')
    head = '<annotations><version>1.1</version>'
    (tmp_path/'annotations.xml').write_text(head+'<image id="0" name="1.jpg"><tag label="cat"/><box label="dog" xtl="1" ytl="2" xbr="x" ybr="4"/></image>'
                                            '<image id="1" name="images/2.jpg"><polygon label="dog" points="1,2"/></image></annotations>')
    for root in (tmp_path, tmp_path/'annotations.xml'): assert labels_of(read_voc_own(root))==TWO
    (tmp_path/'annotations.xml').write_text(head+'<track id="0" label="cat"/></annotations>')
    with pytest.raises(FsicError, match='CVAT for video; export it as CVAT for images'): read_voc_own(tmp_path)

def test_an_image_of_two_parts_is_said(tmp_path):
    pictures(tmp_path, 'images/1.jpg')
    (tmp_path/'annotations').mkdir()
    for p in ('train', 'val'):
        d = dict(images=[dict(id=1, file_name='1.jpg')], categories=[dict(id=1, name='cat')], annotations=[dict(image_id=1, category_id=1)])
        (tmp_path/'annotations'/f'instances_{p}.json').write_text(json.dumps(d))
    assert 'images in several parts: 1 (train, val)' in read_coco(tmp_path).describe()

@pytest.mark.parametrize('file, says', [
    ('labels/1.txt', 'but labels/1.txt looks like YOLO; export it as COCO or PASCAL VOC'), ('a.tfrecord', 'looks like TFRecord'), ('annotations.xml', 'looks like CVAT; read it with --data voc'),
    ('labels.csv', 'labels.csv looks like a table; read it with --data csv'), ('images.zip', 'looks like an archive; unpack it')])
def test_what_lies_there_instead_is_named(tmp_path, file, says):
    pictures(tmp_path, file)
    with pytest.raises(FsicError, match=says): read_coco(tmp_path)

def test_two_versions_of_the_annotations_are_an_error(tmp_path):
    for n in ('instances.json', 'instances_old.json'): pictures(tmp_path, f'annotations/{n}')
    with pytest.raises(FsicError, match=r'2 files hold annotations \(annotations/instances.json, annotations/instances_old.json\)'): read_coco(tmp_path)
