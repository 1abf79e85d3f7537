"""Everything that is read, as functions that write it: for the round trip in test_dialects.py, and for the table in data/README.md.

    python tests/dialects.py     # writes the table again
"""
import csv, io, json, re, sys
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape, quoteattr

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))   # run as a script, too
from fsic_nb.records import PLACES

@dataclass(frozen=True)
class Row:
    "Say what is known of one image."
    name: str            # of its file
    yes: tuple           # labels that are there
    unknown: tuple = ()  # labels that may be there
    part: str = 'train'
    boxes: tuple = ()    # (label, x, y, width, height)

@dataclass(frozen=True)
class Dialect:
    "Describe one way to write annotations."
    name: str
    data: str    # the value of --data
    tree: str    # what lies where
    write: object # (root, rows, names) -> what to read, below the root
    keeps: tuple = ()  # of 'negatives', 'parts', 'unknown', 'boxes'

DIALECTS = []

def dialect(name, data, tree, *keeps):
    "Add a writer to the list."
    def add(f):
        DIALECTS.append(Dialect(name, data, tree, f, keeps))
        return f
    return add


# --- files ---------------------------------------------------------------------------------------

def put(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())

def draw(root, row, folder):
    "Write the image of a row; no reader looks inside, but no two are the same."
    put(root/folder/row.name, f'{row.name} {row.part}')

def rows_by_part(rows):
    return {p: [r for r in rows if r.part==p] for p in dict.fromkeys(r.part for r in rows)}

def table(rows, **how):
    out = io.StringIO()
    csv.writer(out, **how).writerows(rows)
    return out.getvalue()


# --- JSON ----------------------------------------------------------------------------------------

def coco(rows, names, name=lambda r: r.name, first=1, **extra):
    "Make a COCO file; `extra` goes into every annotation."
    col = {n: k for k, n in enumerate(names, first)}
    images = [dict(id=i, file_name=name(r), width=64, height=48) for i, r in enumerate(rows, first)]
    notes = []
    for i, r in enumerate(rows, first):
        boxed = {b[0] for b in r.boxes}
        some = [(n, list(box)) for n, *box in r.boxes]+[(n, None) for n in r.yes if n not in boxed]
        for n, box in some:
            notes.append({**dict(id=len(notes)+1, image_id=i, category_id=col[n]), **({'bbox': box} if box else {}), **extra})
    return dict(info={}, images=images, annotations=notes, categories=[dict(id=k, name=n) for n, k in col.items()])

@dialect('COCO', 'coco', '`annotations/instances_*.json`, `images/`', 'negatives', 'boxes')
def write_coco(root, rows, names):
    put(root/'annotations'/'instances_own.json', json.dumps(coco(rows, names)))
    for r in rows: draw(root, r, 'images')

@dialect('COCO, sets of one year', 'coco', '`annotations/instances_train2017.json` ..., `train2017/` ...', 'negatives', 'parts', 'boxes')
def write_coco_parts(root, rows, names):
    for p, some in rows_by_part(rows).items():
        put(root/'annotations'/f'instances_{p}2017.json', json.dumps(coco(some, names)))
        for r in some: draw(root, r, f'{p}2017')

@dialect('LVIS', 'coco', '`annotations/lvis_v1_val.json`, `coco_url` for names, `neg_category_ids`', 'negatives', 'unknown')
def write_lvis(root, rows, names):
    d = coco(rows, names)
    for image, r in zip(d['images'], rows):
        image['coco_url'] = 'http://photos.example.com/val2017/'+image.pop('file_name')
        image['neg_category_ids'] = [names.index(n)+1 for n in names if n not in (*r.yes, *r.unknown)]
        image['not_exhaustive_category_ids'] = []
    put(root/'annotations'/'lvis_v1_val.json', json.dumps(d))
    for r in rows: draw(root, r, 'val2017')

@dialect('Roboflow COCO', 'coco', '`train/_annotations.coco.json` beside its images, `valid/`, `test/`', 'negatives', 'parts', 'boxes')
def write_roboflow(root, rows, names):
    for p, some in rows_by_part(rows).items():
        p = dict(val='valid').get(p, p)
        d = coco(some, ['project-x4k', *names], first=0)
        d['categories'] = [dict(c, supercategory='none' if c['id']==0 else 'project-x4k') for c in d['categories']]
        put(root/p/'_annotations.coco.json', json.dumps(d))
        for r in some: draw(root, r, p)

@dialect('CVAT COCO', 'coco', '`annotations/instances_Train.json` ... (ids restart), `images/Train/` ...; masks with `iscrowd: 1`', 'negatives', 'parts')
def write_cvat(root, rows, names):
    for p, some in rows_by_part(rows).items():
        p = dict(train='Train', val='Validation', test='Test')[p]
        mask = dict(counts=[10, 20, 3042], size=[48, 64])
        put(root/'annotations'/f'instances_{p}.json', json.dumps(coco(some, names, iscrowd=1, segmentation=mask)))
        for r in some: draw(root, r, f'images/{p}')

@dialect('Label Studio COCO', 'coco', '`result.json` (backslashes in names), `images/`', 'negatives', 'boxes')
def write_label_studio(root, rows, names):
    put(root/'result.json', b'\xef\xbb\xbf'+json.dumps(coco(rows, names, lambda r: f'images\\{r.name}', first=0)).encode())
    for r in rows: draw(root, r, 'images')

@dialect('FiftyOne COCO', 'coco', '`labels.json`, `data/`', 'negatives', 'boxes')
def write_fiftyone(root, rows, names):
    put(root/'labels.json', json.dumps(coco(rows, names)))
    for r in rows: draw(root, r, 'data')

@dialect('labelme2coco', 'coco', '`dataset.json`, names with paths of another machine', 'negatives', 'boxes')
def write_labelme(root, rows, names):
    put(root/'dataset.json', json.dumps(coco(rows, names, lambda r: f'/home/me/photos/{r.name}')))
    for r in rows: draw(root, r, '.')

@dialect('CreateML', 'coco', '`_annotations.createml.json` beside its images', 'negatives', 'boxes')
def write_createml(root, rows, names):
    def notes(r):
        boxed = {b[0] for b in r.boxes}
        some = [dict(label=n, coordinates=dict(x=x+w/2, y=y+h/2, width=w, height=h)) for n, x, y, w, h in r.boxes]
        return some+[dict(label=n) for n in r.yes if n not in boxed]
    put(root/'_annotations.createml.json', json.dumps([dict(image=r.name, annotations=notes(r)) for r in rows]))
    for r in rows: draw(root, r, '.')

@dialect('a list in JSON', 'coco', '`labels.json`: `[{"file_name": "1.jpg", "labels": ["cat", "sofa"]}, ...]`', 'negatives')
def write_json_list(root, rows, names):
    put(root/'labels.json', json.dumps([dict(file_name=r.name, labels=r.yes) for r in rows]))
    for r in rows: draw(root, r, '.')

@dialect('JSON lines', 'coco', '`train/metadata.jsonl` beside its images, a line for each: `{"file_name": "1.jpg", "labels": ["cat", "sofa"]}`', 'negatives', 'parts')
def write_json_lines(root, rows, names):
    for p, some in rows_by_part(rows).items():
        put(root/p/'metadata.jsonl', ''.join(json.dumps(dict(file_name=r.name, labels=r.yes))+'\n' for r in some))
        for r in some: draw(root, r, p)

@dialect('labelme', 'coco', '`1.json` beside `1.jpg`', 'negatives', 'boxes')
def write_own_labelme(root, rows, names):
    for r in rows:
        boxed = {b[0] for b in r.boxes}
        shapes = [dict(label=n, shape_type='rectangle', points=[[x, y], [x+w, y+h]]) for n, x, y, w, h in r.boxes]
        flags = {n: n in r.yes for n in names if n not in boxed}
        put(root/f'{Path(r.name).stem}.json', json.dumps(dict(shapes=shapes, flags=flags, imagePath=r.name, imageData=None)))
        draw(root, r, '.')

@dialect('COCO panoptic', 'coco', '`annotations/panoptic_*.json`, where nothing else lies beside it', 'negatives', 'boxes')
def write_panoptic(root, rows, names):
    d = coco(rows, names)
    segments = {i['id']: [] for i in d['images']}
    for a in d['annotations']: segments[a.pop('image_id')].append(a)
    d['annotations'] = [dict(image_id=i, file_name=f'{i}.png', segments_info=some) for i, some in segments.items()]
    put(root/'annotations'/'panoptic_own.json', json.dumps(d))
    for r in rows: draw(root, r, 'images')

# --- XML -----------------------------------------------------------------------------------------

def voc_xml(r):
    "Make the XML of one image."
    boxed = {b[0] for b in r.boxes}
    some = [*r.boxes, *((n, 1, 1, 9, 9) for n in r.yes if n not in boxed)]
    objects = ''.join(f'<object><name>{escape(n)}</name><difficult>0</difficult><bndbox><xmin>{x}</xmin><ymin>{y}</ymin>'
                      f'<xmax>{x+w}</xmax><ymax>{y+h}</ymax></bndbox></object>' for n, x, y, w, h in some)
    return f'<annotation><folder>x</folder><filename>{escape(r.name)}</filename><path>C:\\Users\\me\\{escape(r.name)}</path>{objects}</annotation>'

def stem(r): return Path(r.name).stem

@dialect('labelImg (VOC)', 'voc', '`annotations/*.xml`, `images/`', 'negatives')
def write_labelimg(root, rows, names):
    for r in rows:
        put(root/'annotations'/f'{stem(r)}.xml', voc_xml(r))
        draw(root, r, 'images')

@dialect('VOC of own classes', 'voc', '`Annotations/*.xml`, `JPEGImages/`, `ImageSets/Main/train.txt` ... of names alone', 'negatives', 'parts')
def write_own_voc(root, rows, names):
    for p, some in rows_by_part(rows).items():
        put(root/'ImageSets'/'Main'/f'{p}.txt', ''.join(f'{stem(r)}\n' for r in some))
    for r in rows:
        put(root/'Annotations'/f'{stem(r)}.xml', voc_xml(r))
        draw(root, r, 'JPEGImages')

@dialect('CVAT VOC', 'voc', 'the same with `ImageSets/Main/default.txt`, `labelmap.txt`', 'negatives')
def write_cvat_voc(root, rows, names):
    put(root/'ImageSets'/'Main'/'default.txt', ''.join(f'{stem(r)}\n' for r in rows))
    put(root/'labelmap.txt', '# label:color_rgb:parts:actions\nbackground:0,0,0::\n'+''.join(f'{n}:1,2,3::\n' for n in names))
    for r in rows:
        put(root/'Annotations'/f'{stem(r)}.xml', voc_xml(r))
        draw(root, r, 'JPEGImages')

@dialect('Roboflow VOC', 'voc', '`train/` with XML beside its images, `valid/`, `test/`', 'negatives', 'parts')
def write_roboflow_voc(root, rows, names):
    for r in rows:
        p = dict(val='valid').get(r.part, r.part)
        put(root/p/f'{stem(r)}.xml', voc_xml(r))
        draw(root, r, p)


@dialect('CVAT for images', 'voc', '`annotations.xml`, `images/`', 'negatives', 'parts', 'boxes')
def write_cvat_images(root, rows, names):
    def inside(r):
        boxed = {b[0] for b in r.boxes}
        boxes = [f'<box label={quoteattr(n)} xtl="{x}" ytl="{y}" xbr="{x+w}" ybr="{y+h}"/>' for n, x, y, w, h in r.boxes]
        return ''.join([*boxes, *(f'<tag label={quoteattr(n)}/>' for n in r.yes if n not in boxed)])
    put(root/'annotations.xml', '<annotations>'+''.join(f'<image id="{i}" name={quoteattr(r.name)} subset="{r.part}">{inside(r)}</image>' for i, r in enumerate(rows))+'</annotations>')
    for r in rows: draw(root, r, 'images')


# --- tables --------------------------------------------------------------------------------------

def beside(root, rows, text, name='labels.csv'):
    put(root/name, text)
    for r in rows: draw(root, r, '.')

@dialect('CSV, a cell of labels', 'csv', '`image,labels` / `1.jpg,cat;sofa`', 'negatives')
def write_csv(root, rows, names):
    beside(root, rows, table([['image', 'labels'], *([r.name, ';'.join(r.yes)] for r in rows)]))

@dialect('CSV of a European spreadsheet', 'csv', '`image;labels` / `1.jpg;cat,sofa` or a tab between columns; BOM, CRLF', 'negatives')
def write_excel(root, rows, names):
    text = table([['image', 'labels'], *([r.name, ';'.join(r.yes)] for r in rows)], delimiter='\t')
    beside(root, rows, b'\xef\xbb\xbf'+text.encode())

@dialect('CSV, a column for each label', 'csv', '`image,cat,sofa` / `1.jpg,1,0`; empty: unknown', 'negatives', 'unknown')
def write_one_hot(root, rows, names):
    def cell(r, n): return '' if n in r.unknown else str(int(n in r.yes))
    beside(root, rows, table([['filename', *names], *([r.name, *(cell(r, n) for n in names)] for r in rows)]))

@dialect('Roboflow CSV', 'csv', '`train/_classes.csv` beside its images, `valid/`, `test/`', 'negatives', 'parts')
def write_roboflow_csv(root, rows, names):
    for p, some in rows_by_part(rows).items():
        p = dict(val='valid').get(p, p)
        put(root/p/'_classes.csv', table([['filename', *names], *([r.name, *(f' {int(n in r.yes)}' for n in names)] for r in some)]))
        for r in some: draw(root, r, p)

@dialect('CSV, a row for each label', 'csv', '`image,label` / `1.jpg,cat` / `1.jpg,sofa`')
def write_a_row_a_label(root, rows, names):
    beside(root, rows, table([['image', 'label'], *([r.name, n] for r in rows for n in r.yes)]))

@dialect('CSV, a list as text', 'csv', "`1.jpg,\"['cat', 'sofa']\"` (Python or JSON)", 'negatives')
def write_lists(root, rows, names):
    beside(root, rows, table([['image', 'labels'], *([r.name, json.dumps(r.yes, ensure_ascii=False)] for r in rows)]))

@dialect('CSV with a part', 'csv', '`image,labels,split` / `1.jpg,cat;sofa,train`', 'negatives', 'parts')
def write_split_column(root, rows, names):
    beside(root, rows, table([['image', 'labels', 'split'], *([r.name, ';'.join(r.yes), r.part] for r in rows)]))

@dialect('CSV, ragged rows', 'csv', '`1.jpg,cat` / `2.jpg,cat,sofa` without a heading', 'negatives')
def write_ragged(root, rows, names):
    beside(root, rows, table([[r.name, *r.yes] for r in rows]))


# --- folders, manifest ---------------------------------------------------------------------------

def folders(root, rows, path):
    for r in rows:
        for n in r.yes: put(root/path(r, n)/r.name, f'{r.name} {r.part}')

@dialect('a folder for each label', 'folder', '`cat/1.jpg`, `sofa/1.jpg`: the same file in both')
def write_folders(root, rows, names): folders(root, rows, lambda r, n: n)

@dialect('a folder for each part, then label', 'folder', '`train/cat/1.jpg`, `test/cat/2.jpg`', 'parts')
def write_part_label(root, rows, names): folders(root, rows, lambda r, n: f'{r.part}/{n}')

@dialect('a folder for each label, then part', 'folder', '`cat/train/1.jpg`, `cat/test/2.jpg`', 'parts')
def write_label_part(root, rows, names): folders(root, rows, lambda r, n: f'{n}/{r.part}')

@dialect('manifest', 'manifest', 'what `fsic_prepare` writes, or any program: a line of JSON for each image', 'negatives', 'parts', 'unknown', 'boxes')
def write_manifest(root, rows, names):
    head = dict(manifest=1, name='own', root='.', images=len(rows), names=list(names), info={})
    some = [dict(path=r.name, labels=r.yes, unknown=r.unknown, part=r.part, boxes=r.boxes) for r in rows]
    put(root/'own.jsonl', ''.join(json.dumps(d)+'\n' for d in (head, *some)))
    for r in rows: draw(root, r, '.')
    return 'own.jsonl'

# official layouts have labels of their own: they are tested in test_data.py, test_annotations.py and test_readers.py
OFFICIAL = [('PASCAL VOC', 'voc', '`VOC2007/`, `VOC2012/`, see above', 'difficult objects may be unknown'),
            ('CelebA', 'csv', '`list_attr_celeba.txt`, `images/`: a number, the labels, then `000001.jpg -1 1 1`', 'negatives'),
            ('NUS-WIDE', 'nuswide', 'see above', ''), ('iMaterialist', 'imaterialist', 'see above', '')]


# --- the table -----------------------------------------------------------------------------------

BEGIN = '<!-- dialects: written by tests/dialects.py -->'
END = '<!-- end of dialects -->'
README = Path(__file__).resolve().parents[1]/'data'/'README.md'

def rows_of_table():
    "Write the table of all dialects, and where images are sought, in Markdown."
    rows = [(d.name, d.data, d.tree, ', '.join(k for k in d.keeps)) for d in DIALECTS]+OFFICIAL
    order = ', '.join(f'`{p.format(here="HERE", root="ROOT", part="<part>")}`' for p in PLACES)
    places = f'Images are sought in this order, where HERE is the folder of the file that lists them, ROOT that of the data set: {order}.'
    lines = ['| what | `--data` | what lies where | also kept |', '|---|---|---|---|']
    return '\n'.join([*lines, *(f'| {n} | `{d}` | {t} | {k} |' for n, d, t, k in rows), '', places])

def written(text):
    "Put the table into the text of the README."
    return re.sub(f'(?<={re.escape(BEGIN)}\n).*?(?={re.escape(END)})', lambda m: rows_of_table()+'\n', text, flags=re.S)

if __name__=='__main__':
    README.write_text(written(README.read_text(encoding='utf-8')), encoding='utf-8')
