"Tables in the forms that people write, and folders per label: the right labels, parts and numbers, or one sentence."
import csv, io, os, re, tempfile, unicodedata
from pathlib import Path

import pytest
from hypothesis import given, settings, strategies as st

from fsic_nb.core import FsicError
from fsic_nb.pictures import SUFFIXES
from fsic_nb.tables import kind_of, place_folders, read_csv, read_folder, separator_of, split_cells


def names_of(s): return {p.name: {n for n, v in zip(s.names, row) if v} for p, row in zip(s.paths, s.labels)}
def of(s): return {p.stem: ' '.join(n for n, v in zip(s.names, row) if v) for p, row in zip(s.paths, s.labels)}
def said(s): return '\n'.join(s.describe())

@st.composite
def truths(draw, names):
    "Up to 12 images with any of these labels, at least one label in all."
    sets = draw(st.lists(st.sets(st.sampled_from(names)), min_size=1, max_size=12))
    return sets if any(sets) else [{names[0]}]

def write(root, text, files='1.jpg 2.jpg 3.jpg 4.jpg 5.jpg 6.jpg', name='labels.csv', encoding='utf-8'):
    "A table and files beside it, each with another content."
    (root/name).parent.mkdir(parents=True, exist_ok=True)
    (root/name).write_bytes(text.encode(encoding))
    for k, f in enumerate(files.split(' ')):
        (root/f).parent.mkdir(parents=True, exist_ok=True)
        (root/f).write_bytes(b'image %d' % k)
    return root

@pytest.fixture
def table(tmp_path):
    def read(text, *args, **kw):
        own = {k: kw.pop(k) for k in ('negatives', 'files_', 'pictures') if k in kw}
        if 'files_' in own: own['files'] = own.pop('files_')
        root = write(tmp_path/'own', text, *args, **kw)
        return read_csv(root/kw['name'] if 'name' in kw else root, **own)
    return read

def fails(read, says):
    with pytest.raises(FsicError, match=re.escape(says)) as e: read()
    assert '\n' not in str(e.value)
    return str(e.value)


# --- the cases seen in the field ------------------------------------------------------------------

def test_18_quoted_commas(table):
    s = table('image,labels\n1.jpg,"cat"\n2.jpg,"cat,dog"\n3.jpg,"dog"\n4.jpg,""\n')
    assert of(s)=={'1': 'cat', '2': 'cat dog', '3': 'dog'} and s.names==['cat', 'dog']
    assert s.info['left_out']['images without a label']==1
    assert 'cells: commas separate labels, 2 in all (3 different cells)' in said(s)

def test_19_space_separated_tags(table):
    text = 'image_name,tags\nt_0,haze primary\nt_1,primary\nt_2,primary road\nt_3,haze\nt_4,haze primary road\nt_5,road\n'
    s = table(text, ' '.join(f't_{k}.jpg' for k in range(6)), name='train_v2.csv')
    assert of(s)=={'t_0': 'haze primary', 't_1': 'primary', 't_2': 'primary road', 't_3': 'haze', 't_4': 'haze primary road', 't_5': 'road'}
    assert s.counts().tolist()==[3, 4, 3] and s.name=='train_v2'

def test_21_one_hot_columns(tmp_path, monkeypatch):
    text = 'filename, flower, leaf\n1.jpg, 1, 0\n2.jpg, 1, 1\n3.jpg, 0, 1\n4.jpg, 0, 0\n'
    write(tmp_path/'train', text, name='_classes.csv')
    write(tmp_path/'valid', text.replace('3.jpg, 0, 1', '3.jpg, 1, 0'), name='_classes.csv')
    s = read_csv(tmp_path/'train'/'_classes.csv')
    assert of(s)=={'1': 'flower', '2': 'flower leaf', '3': 'leaf'} and s.parts is None and s.name==tmp_path.name
    s = read_csv(tmp_path)                             # both, which have files of the same names
    assert len(s)==6 and s.parts==['train']*3+['val']*3 and s.counts().tolist()==[5, 3]
    assert s.info['dialect']=='CSV, a column for each label' and s.info['left_out']['images without a label']==2
    assert 'several parts' not in said(s)
    write(tmp_path/'test', text.replace('leaf', 'stem'), name='_classes.csv')
    fails(lambda: read_csv(tmp_path), 'other columns than in')

POSTERS = """Id,Genre,Action,Sci-Fi,N/A
tt1,"['Action']",1,0,0
tt2,"['Action', 'Sci-Fi']",1,1,0
tt3,"[]",0,0,1
"""

def test_22_posters(tmp_path, monkeypatch):
    write(tmp_path, POSTERS, 'Images/tt1.jpg Images/tt2.jpg Images/tt3.jpg', name='train.csv')
    monkeypatch.chdir(tmp_path)
    for pictures in (None, 'Images', tmp_path/'Images'):
        s = read_csv('train.csv', pictures=pictures)
        assert of(s)=={'tt1': 'Action', 'tt2': 'Action Sci-Fi', 'tt3': 'N/A'} and 'not read: Genre' in said(s)
    fails(lambda: read_csv('train.csv', pictures='gone'), '--pictures gone: no such folder')

def test_23_a_row_per_label(table):
    s = table('image,label\n1.jpg,cat\n2.jpg,cat\n2.jpg,dog\n3.jpg,dog\n')
    assert of(s)=={'1': 'cat', '2': 'cat dog', '3': 'dog'} and s.info['dialect']=='CSV, a row for each label'

def test_24_excel_semicolons(table):
    s = table('image;labels\r\n1.jpg;cat\r\n2.jpg;cat,dog\r\n3.jpg;\r\n4.jpg;dog\r\n', encoding='utf-8-sig')
    assert of(s)=={'1': 'cat', '2': 'cat dog', '4': 'dog'} and 'separated by semicolons' in said(s)

def test_27_split_column(table):
    s = table('image,labels,is_valid\n1.jpg,cat,False\n2.jpg,cat;dog,True\n3.jpg,,False\n4.jpg,dog,True\n')
    assert of(s)=={'1': 'cat', '2': 'cat dog', '4': 'dog'} and s.parts==['train', 'val', 'val']

def tree(root, *files):
    "Files, each with its own content unless their names end in the same digit."
    for f in files:
        (root/f).parent.mkdir(parents=True, exist_ok=True)
        (root/f).write_bytes(b'content of '+Path(f).stem[-1].encode() if not f.endswith('!') else b'')
    return root

def test_28_train_val_test_folders(tmp_path):
    root = tree(tmp_path, *[f'{p}/{n}/{k}.jpg' for p, ks in (('train', '01'), ('validation', '23'), ('test', '45')) for n, c in (('hat', ''), ('shoes', '')) for k in ks if (n=='hat')==(int(k)%2==0)])
    s = read_folder(root)
    assert s.names==['hat', 'shoes'] and s.counts().tolist()==[3, 3]
    assert {p.stem: x for p, x in zip(s.paths, s.parts)}=={'0': 'train', '1': 'train', '2': 'val', '3': 'val', '4': 'test', '5': 'test'}

def test_29_hidden_checkpoints(tmp_path):
    s = read_folder(tree(tmp_path, 'a/0.jpg', 'b/1.jpg', 'a/.ipynb_checkpoints/2.jpg', '.ipynb_checkpoints/3.jpg', 'b/__MACOSX/x/4.jpg', 'b/._1.jpg', 'b/Thumbs.db', 'a/desktop.ini'))
    assert of(s)=={'0': 'a', '1': 'b'} and 'left out' not in said(s)

def test_43_names(table):
    names = [unicodedata.normalize('NFD', 'Käse 1.jpg'), '50% off #2.jpg', "l'été.jpg", '猫 (3).jpg']
    root = None
    def read(rows):
        nonlocal root
        with tempfile.TemporaryDirectory() as d:
            for k, n in enumerate(names): (Path(d)/n).write_bytes(b'%d' % k)
            (Path(d)/'labels.csv').write_text('image,labels\n'+''.join(f'{n},cat\n' for n in rows), encoding='utf-8')
            return [p.name for p in read_csv(d).paths]
    assert read([unicodedata.normalize('NFC', n) for n in names])==names

@pytest.mark.parametrize('ending', ['.png', '.webp', '.ppm', '.jp2', '.mpo'])
def test_47_folders_of_any_ending(tmp_path, ending):
    assert of(read_folder(tree(tmp_path, f'stop/1{ending}', f'yield/2{ending.upper()}')))=={'1': 'stop', '2': 'yield'}

def test_47_an_unknown_ending_is_named(tmp_path):
    fails(lambda: read_folder(tree(tmp_path, 'stop/1.xyz', 'yield/2.xyz', 'notes')), 'no folder with images is in it (but 2 .xyz, 1 without ending)')

def test_48_same_folder_two_cases(tmp_path):
    text = fails(lambda: read_folder(tree(tmp_path, 'Cat/1.jpg', 'cat/2.jpg')), "folder cat: label 'cat' is spelt 'Cat' in")
    assert 'folder Cat' in text
    fails(lambda: read_folder(tree(tmp_path/'parts', 'train/Cat/1.jpg', 'test/cat/2.jpg')), "label 'Cat' is spelt 'cat' in")

def test_54_ragged_rows(table):
    s = table('1.jpg,cat\n2.jpg,cat,dog\n3.jpg,dog\n4.jpg\n5.jpg,dog,cat,owl\n')
    assert of(s)=={'1': 'cat', '2': 'cat dog', '3': 'dog', '5': 'cat dog owl'}

def test_56_missing_images_can_be_left_out(table):
    rows = ''.join(f'{k}.jpg,{"cat" if k<5 else "dog"}\n' for k in range(1, 9))
    fails(lambda: table('image,labels\n'+rows), 'labels.csv, line 8: 7.jpg is missing, as 2 of 8 listed images are')
    s = table('image,labels\n'+rows, files_='present')
    assert len(s)==6 and s.info['left_out']['images without a file']==2

@pytest.mark.parametrize('root', ['labels.csv', '.', './labels.csv', '../own', '../own/labels.csv'])
def test_69_from_inside_the_folder(tmp_path, monkeypatch, root):
    write(tmp_path/'own', 'image,labels\n1.jpg,cat\n2.jpg,dog\n')
    monkeypatch.chdir(tmp_path/'own')
    s = read_csv(root)
    assert of(s)=={'1': 'cat', '2': 'dog'} and s.name=='own'

@pytest.mark.parametrize('root', ['.', '../own'])
def test_69_folders_from_inside(tmp_path, monkeypatch, root):
    monkeypatch.chdir(tree(tmp_path/'own', 'cat/1.jpg', 'dog/2.jpg'))
    assert of(read_folder(root))=={'1': 'cat', '2': 'dog'} and read_folder(root).name=='own'


# --- text, separator, heading ---------------------------------------------------------------------

CAT_DOG = {'1': 'cat', '2': 'cat dog', '3': 'dog'}

@pytest.mark.parametrize('encoding', ['utf-8', 'utf-8-sig', 'utf-16'])
@pytest.mark.parametrize('end', ['\n', '\r\n', '\r'])
@pytest.mark.parametrize('sep', [',', ';', '\t', '|'])
@pytest.mark.parametrize('heading', ['image{}labels{end}', 'Bild{}Etikett{end}', '文件{}标签{end}', '# by me, 2024{end}{end}file_name{}tag{end}', ''])
def test_any_encoding_line_end_separator_and_heading(table, encoding, end, sep, heading):
    inner = ';' if sep!=';' else ','
    text = heading.format(sep, end=end)+end.join([f'1.jpg{sep}cat', f'2.jpg{sep}cat{inner}dog', '', f'"3.jpg"{sep} "dog" ', ''])
    assert of(table(text, encoding=encoding))==CAT_DOG

@pytest.mark.parametrize('text, sep', [
    ('image,label1;label2\n1.jpg,cat;dog\n2.jpg,cat;dog\n', ','), ('image;label1,label2\n1.jpg;cat,dog\n', ';'), ('1.jpg,cat;dog', ','), ('train_0,a;b\ntrain_1,c;d\n', ','),
    ('cats, asleep.jpg;cat\ndogs, awake.jpg;dog\n', ';'), ('cat;dog,1.jpg\ncat,2.jpg\n', ','), ('1.jpg\n2.jpg\n3.jpg\tcat dog\n', '\t'), ('1.jpg cat\n2.jpg black cat,dog\n', ' '),
    ('"a;b.jpg",cat\n"c;d.jpg",dog\n', ','), ('sep=;\nx;y\n', ';'), ('TRAIN,gs://b/1.jpg,cat\n', ','), ('1.jpg|cat,dog\n', '|')])
def test_the_separator_stands_beside_the_name(text, sep): assert separator_of(text)==sep

def test_excel_says_its_separator(table): assert of(table('sep=;\r\nimage;labels\r\n1.jpg;cat\r\n2.jpg;cat,dog\r\n3.jpg;dog\r\n'))==CAT_DOG

@pytest.mark.parametrize('heading', ['path', 'file', 'filename', 'image_id', 'img', 'Id', 'fname', 'Image Name', 'FILE_PATH', '#file'])
def test_names_without_ending_below_any_word(table, heading):
    assert of(table(f'{heading},tags\n1,cat\n2,cat;dog\n3,dog\n'))==CAT_DOG

def test_a_heading_in_any_language_above_names_without_ending(table):
    assert of(table('Bild,Schlagwort\n1,cat\n2,cat;dog\n3,dog\n'))==CAT_DOG
    fails(lambda: table('9,cat\n2,cat\n3,dog\n'), 'line 1: 9 is missing')              # and a first row is no heading
    assert of(table('1,cat\n2,cat;dog\n3,dog\n'))==CAT_DOG

@pytest.mark.parametrize('rows', ['C:\\Users\\me\\1.jpg,cat\nC:\\Users\\me\\2.jpg,cat;dog\nC:\\Users\\me\\3.jpg,dog', '/data/x/1.jpg,cat\n/data/x/2.jpg,cat;dog\n/data/x/3.jpg,dog',
                                  'x\\1.jpg,cat\nx\\2.jpg,cat;dog\nx\\3.jpg,dog', '1,cat\n2,cat;dog\n3,dog', 'https://a.org/b/1.jpg,cat\nhttps://a.org/b/2.jpg,cat;dog\nhttps://a.org/b/3.jpg,dog'])
def test_names_of_other_machines(table, rows): assert of(table('image,labels\n'+rows))==CAT_DOG

def test_folders_of_another_root(tmp_path):
    root = write(tmp_path, 'image,labels\ndata/own/a/1.jpg,cat\ndata/own/b/1.jpg,dog\n', 'a/1.jpg b/1.jpg')
    s = read_csv(root)
    assert [p.relative_to(root).as_posix() for p in s.paths]==['a/1.jpg', 'b/1.jpg'] and s.names==['cat', 'dog']

@pytest.mark.parametrize('text, says', [
    ('image,label\n', 'only a heading'), ('', 'no row is in it'), ('\n\n', 'no row is in it'), ('a.jpg', 'no column holds labels'), ('a.jpg,"x', 'line 1: no valid CSV'),
    ('a.jpg,x\nb/../a.jpg,y', "file name 'b/../a.jpg' leads out"), (',x', "file name '' leads out"), ('a.jpg,;', 'no image carries a label'), ('image,labels\na.jpg,\n', 'no image carries a label'),
    ('a.jpg,Cat\nb.jpg,cat', "line 2: label 'cat' is spelt 'Cat' in")])
def test_a_spoilt_table_names_the_line(table, text, says): fails(lambda: table(text, files_='unchecked' if 'leads' not in says else 'all'), says)

def test_files_that_are_no_tables(tmp_path):
    (tmp_path/'labels.csv').write_bytes('Größe.jpg,x'.encode('latin-1'))
    fails(lambda: read_csv(tmp_path), 'labels.csv: byte 2 is not UTF-8')
    (tmp_path/'labels.csv').write_bytes('a.jpg,x'.encode('utf-16-le'))
    fails(lambda: read_csv(tmp_path), 'labels.csv: has NUL bytes')
    (tmp_path/'labels.csv').write_bytes(b'PK\3\4 a workbook')
    fails(lambda: read_csv(tmp_path), 'is a workbook, an archive or Parquet; save the table as CSV')
    fails(lambda: read_csv(tmp_path/'none.csv'), 'none.csv: cannot be read')
    (tmp_path/'empty').mkdir()
    fails(lambda: read_csv(tmp_path/'empty'), 'empty: no CSV file is in it')

def test_which_table_of_a_folder(tmp_path):
    root = write(tmp_path/'pets', '1.jpg,cat\n2.jpg,cat;dog\n3.jpg,dog\n', name='mine.csv')
    assert of(read_csv(root))==CAT_DOG and read_csv(root).name=='mine'
    write(root, '4.jpg,owl\n', name='other.csv')
    assert 'mine.csv, other.csv' in fails(lambda: read_csv(root), '2 CSV files are in it')
    write(root, '5.jpg,fox\n')
    assert of(read_csv(root))=={'5': 'fox'} and read_csv(root).name=='pets'
    root = write(write(tmp_path/'parts', '1.jpg,cat\n', name='train.csv'), '2.jpg,cat\n', name='test.csv')
    s = read_csv(root)
    assert of(s)=={'1': 'cat', '2': 'cat'} and s.parts==['test', 'train'] and s.name=='parts'
    s = read_csv(write(tmp_path/'below', '1,cat\n', 'images/1.jpg', name='annotations/labels.csv'))
    assert of(s)=={'1': 'cat'} and s.name=='annotations'
    s = read_csv(write(tmp_path/'beside', '1,cat\n', 'train/1.jpg 1.jpg', name='train.csv'))     # the folder of that name comes first
    assert s.paths==[tmp_path/'beside'/'train'/'1.jpg'] and s.name=='beside'


# --- columns --------------------------------------------------------------------------------------

@pytest.mark.parametrize('yes, no', [('1', '0'), ('1.0', '0.0'), ('True', 'False'), ('TRUE', 'FALSE'), ('yes', 'no'), ('Y', 'N'), ('x', '')])
def test_a_column_for_each_label(table, yes, no):
    s = table(f'image,dog,cat\n1.jpg,{no},{yes}\n2.jpg,{yes},{yes}\n3.jpg,{yes},{no}\n4.jpg,{no},{no}\n')
    assert s.names==['dog', 'cat'] and of(s)=={'1': 'cat', '2': 'dog cat', '3': 'dog'} and s.unknown is None

@pytest.mark.parametrize('silent', ['-1', '', '?', '-1.0', 'NaN'])
def test_unknown_is_a_third_value(table, silent):
    s = table(f'image,cat,dog,owl\n1.jpg,1,0,0\n2.jpg,{silent},1,1\n3.jpg,0,1,{silent}\n')
    assert s.unknown.tolist()==[[False]*3, [True, False, False], [False, False, True]] and 'unknown: 2 of 9 labels' in said(s)

@pytest.mark.parametrize('text, says', [
    ('image,cat,dog\n1.jpg,1\n', 'line 2: has 2 cells, the heading 3'), ('image,cat,dog\n1.jpg,1,0,1\n', 'has 4 cells, the heading 3'),
    ('image,cat,dog\n1.jpg,1,0\n1.jpg,0,1\n', 'line 3: says otherwise of 1.jpg than'), ('image,cat,cat\n1.jpg,1,0\n', '2 columns are called cat'),
    ('image,cat,dog\n1.jpg,.9,.1\n2.jpg,.3,.7\n', 'column cat holds numbers such as .9'), ('image,cat,dog\n1.jpg,93%,7%\n', 'numbers such as 93%'), ('image,cat,dog\n1.jpg,93,7\n', 'numbers such as 93'),
    ('image,cat,dog\n1.jpg,1,0.2\n2.jpg,0,1\n', 'column dog holds numbers such as 0.2'), ('image,cat,dog,cabbage\n1.jpg,1,0,2\n2.jpg,0,1,0\n', 'column cabbage holds numbers such as 2'),
    ('image,score\n1.jpg,0.37\n', 'numbers such as 0.37'), ('1.jpg,1,0\n2.jpg,0,1\n', 'may be a column for each label, or be labels themselves'),
    ('1.jpg,cat,True\n2.jpg,dog,False\n', 'name the columns in a first row'), ('image,colour,shape\n1.jpg,red,round\n2.jpg,red,long\n', 'not clear (colour, shape)'),
    ('image,label\n1.jpg,train\n2.jpg,test\n', '(test, train may be parts or labels)'), ('1.jpg,train\n2.jpg,test\n', 'may be parts or labels'),
    ('image,kind,red,blue\n1.jpg,hat,1,0\n2.jpg,sock,0,1\n', ''), ('image,label,red,blue\n1.jpg,hat,1,0\n2.jpg,sock,0,1\n', 'may be the 2 cells of label or the 2 columns red, blue'),
    ('image,train,test,cat\n1.jpg,1,0,1\n2.jpg,0,1,1\n', 'columns train, test may be labels or parts')])
def test_columns_that_are_no_labels_or_may_be(table, text, says):
    if says: fails(lambda: table(text), says)
    else: assert of(table(text))=={'1': 'red', '2': 'blue'} and 'not read: kind' in said(table(text))

def test_columns_beside_the_labels(table):
    text = 'Path,Sex,Age,Frontal/Lateral,Edema,Fracture\n1.jpg,F,68,Frontal,1.0,\n2.jpg,M,7,Lateral,0.0,-1.0\n3.jpg,M,1,Frontal,,1.0\n'
    s = table(text)
    assert of(s)=={'1': 'Edema', '3': 'Fracture'} and 'not read: Sex, Age, Frontal/Lateral' in said(s)
    assert of(table('image,label,verified,id\n1.jpg,cat,1,7\n2.jpg,dog,0,8\n'))=={'1': 'cat', '2': 'dog'}
    assert of(table(',filename,category_id,category\n0,1.jpg,17,cat\n1,2.jpg,18,dog\n'))=={'1': 'cat', '2': 'dog'}     # as pandas writes its index
    assert of(table('Bild,Etikett1,Etikett2\n1.jpg,cat,\n2.jpg,cat,dog\n3.jpg,dog,\n'))==CAT_DOG
    assert of(table('image,labels\n1.jpg,cat\n2.jpg,cat,dog\n3.jpg,dog\n'))==CAT_DOG                                      # more cells than the heading
    assert of(table('image;labels;;\n1.jpg;cat;;\n2.jpg;cat;dog;\n3.jpg;dog;;\n'))==CAT_DOG
    assert of(table('cat;dog,2.jpg\ncat,1.jpg\ndog,3.jpg\n'))==CAT_DOG

@pytest.mark.parametrize('head, cells', [('split', ['train', 'val', 'test']), ('subset', ['Training', 'Validation', 'Testing']), ('Menge', ['train', 'dev', 'test'])])
def test_a_column_of_parts(table, head, cells):
    s = table(f'image,{head},labels\n'+''.join(f'{k}.jpg,{c},cat\n' for k, c in enumerate(cells, 1)))
    assert s.parts==['train', 'val', 'test'] and s.names==['cat']

@pytest.mark.parametrize('head, parts', [('is_valid', ['val', 'train']), ('is_test', ['test', 'train']), ('is_training_image', ['train', 'test']), ('isVal', ['val', 'train'])])
def test_a_column_that_asks_for_a_part(table, head, parts):
    for yes, no in (('1', '0'), ('True', 'False')):
        assert table(f'image,cat,dog,{head}\n1.jpg,1,0,{yes}\n2.jpg,0,1,{no}\n').parts==parts

def test_one_label_called_train_is_a_label(table):
    s = table('image,bus,train\n1.jpg,1,0\n2.jpg,0,1\n')
    assert s.names==['bus', 'train'] and 'column train: read as a label; call it is_train if it is a part' in said(s)

def test_one_image_in_two_parts_is_said(table):
    assert 'images in several parts: 1 (test, train)' in said(table('TRAIN,1.jpg,cat\nTEST,1.jpg,cat\nTEST,2.jpg,dog\n'))

def test_rows_that_say_no(table):
    "Open Images: what is not verified is unknown."
    s = table('ImageID,Source,LabelName,Confidence\n1,v,/m/01,1\n1,v,/m/02,0\n2,v,/m/02,1\n3,v,/m/01,0\n')
    assert of(s)=={'1': '/m/01', '2': '/m/02'} and s.unknown.tolist()==[[False, False], [True, False]]
    assert s.info['left_out']['images without a label']==1
    s = table('ImageID,LabelName,Confidence\n1,a,1\n2,b,1\n')
    assert s.unknown is None
    fails(lambda: table('image,label,confidence\n1.jpg,cat,0.9\n1.jpg,dog,0.1\n'), 'column confidence holds numbers such as 0.9')
    fails(lambda: table('image,label,confidence\n1.jpg,cat,1\n1.jpg,cat,0\n'), "says otherwise of 'cat' on 1.jpg")

def test_columns_of_counts_and_numbers_are_no_labels(table):
    via = '#filename,file_size,file_attributes,region_count,region_id,region_attributes\n1.jpg,22,"{}",1,0,"{""label"":""cat""}"\n'
    fails(lambda: table(via), 'which column holds the labels is not clear (file_attributes, region_attributes)')
    s = table('Unnamed: 0,id,filename,cat,dog\n0,0,1.jpg,1,0\n1,1,2.jpg,0,1\n')
    assert s.names==['cat', 'dog'] and of(s)=={'1': 'cat', '2': 'dog'}
    assert of(table('image,what\n1.jpg,x\n2.jpg,y\n'))=={'1': 'x', '2': 'y'}

def test_columns_that_look_like_labels_and_are_none(table):
    assert of(table('1.jpg,1_mask.png,cat\n2.jpg,2_mask.png,dog\n'))=={'1': 'cat', '2': 'dog'}
    assert 'not read: column 2' in said(table('1.jpg,1_mask.png,cat\n2.jpg,2_mask.png,dog\n'))
    for head in ('split', 'fold'):
        s = table(f'image,cat,dog,{head}\n1.jpg,1,0,0\n2.jpg,0,1,1\n')
        assert s.names==['cat', 'dog'] and s.parts is None and f'not read: {head}' in said(s)
    assert table('image,labels,is_valid\n1.jpg,cat,valid\n2.jpg,dog,train\n').parts==['val', 'train']
    assert of(table('file,primary_label,secondary_labels\n1.jpg,cat,[]\n2.jpg,cat,"[\'dog\']"\n3.jpg,dog,[]\n'))==CAT_DOG
    assert of(table('id,image_path,species\n7,1.jpg,cat\n8,2.jpg,dog\n'))=={'1': 'cat', '2': 'dog'}

def test_google_automl(table):
    s = table('TRAIN,gs://b/1.jpg,cat\nVALIDATION,gs://b/2.jpg,cat,dog\nUNASSIGNED,gs://b/3.jpg,dog\nTEST,gs://b/4.jpg\n', negatives=True)
    assert of(s)=={**CAT_DOG, '4': ''} and s.parts==['train', 'val', '', 'test']
    s = table('TRAIN,gs://b/1.jpg,cat,.1,.1,,,.5,.5,,\nTEST,gs://b/2.jpg,dog,.2,.1,,,.5,.5,,\n')                          # its boxes are no pixels
    assert of(s)=={'1': 'cat', '2': 'dog'} and s.boxes is None

def test_boxes(table):
    rows = '1.jpg,30,20,cat,3,4,10,12\n2.jpg,30,20,cat,1,1,5,5\n2.jpg,30,20,cat,7,7,9,9\n2.jpg,30,20,dog,2,2,8,9\n3.jpg,30,20,dog,0,0,30,20\n'
    for head in ('filename,width,height,class,xmin,ymin,xmax,ymax', 'image,w,h,label,x_min,y_min,x_max,y_max', 'image,width,height,Klasse,x1,y1,x2,y2'):
        s = table(head+'\n'+rows)
        assert of(s)==CAT_DOG and s.info['dialect']=='CSV, a row for each box'
        assert s.boxes==[[(0, 3, 4, 7, 8)], [(0, 1, 1, 4, 4), (0, 7, 7, 2, 2), (1, 2, 2, 6, 7)], [(1, 0, 0, 30, 20)]]
    s = table('1.jpg,3,4,10,12,cat\n2.jpg,1,1,5,5,cat\n2.jpg,2,2,8,9,dog\n3.jpg,0,0,30,20,dog\n4.jpg,,,,,\n')             # keras-retinanet
    assert of(s)==CAT_DOG and s.boxes[0]==[(0, 3, 4, 7, 8)] and s.info['left_out']['images without a label']==1
    s = table('ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsTruncated\n1,x,cat,1,.1,.2,.3,.4,1,0\n2,x,dog,1,.1,.2,.3,.4,0,0\n')
    assert of(s)=={'1': 'cat', '2': 'dog'}

@pytest.mark.parametrize('head, cells, kind', [
    ('', ['TRAIN', 'test'], 'part'), ('', ['train', ''], 'text'), ('label', ['train'], 'text'), ('cat', ['1', '0'], 'flag'), ('cat', ['', '?'], 'text'), ('cat', ['', ''], 'empty'),
    ('cat', ['3', ''], 'number'), ('cat', ['.5'], 'number'), ('split', ['0', '1'], 'other'), ('X_Min', ['1'], 'box'), ('is_valid', ['maybe'], 'text')])
def test_kinds_of_columns(head, cells, kind): assert kind_of(head, cells)==kind


# --- cells ----------------------------------------------------------------------------------------

@pytest.mark.parametrize('row', ["2.jpg,\"['cat', 'dog']\"", "2.jpg,['cat', 'dog']", '2.jpg,"[""cat"",""dog""]"', '2.jpg,["cat","dog"]', '2.jpg,"[cat, dog]"', '2.jpg,"{\'cat\', \'dog\'}"',
                                 '2.jpg,"(\'cat\', \'dog\')"', '2.jpg,cat;dog', '2.jpg,cat|dog', '2.jpg, cat ; dog;', '2.jpg,"cat, dog"', '2.jpg,dog;cat;dog', '2.jpg,"cat,dog"\n2.jpg,"cat,dog"'])
def test_several_labels_in_a_cell(table, row):
    assert of(table(f'image,labels\n1.jpg,cat\n{row}\n3.jpg,dog\n'))==CAT_DOG

@pytest.mark.parametrize('cell', ['"[\'cat\' \'dog\']"', '"[{\'a\': 1}]"', '"[\'cat\', \'dog]"'])
def test_a_list_that_is_none(table, cell): fails(lambda: table(f'image,labels\n1.jpg,cat\n2.jpg,{cell}\n'), 'labels.csv, line 3: ')

def test_names_that_look_like_nothing_survive(table):
    s = table('image,labels\n1.jpg,N/A\n2.jpg,None\n3.jpg,nan\n4.jpg,null\n5.jpg,7\n6.jpg,(x)\n')
    assert of(s)=={'1': 'N/A', '2': 'None', '3': 'nan', '4': 'null', '5': '7', '6': '(x)'}
    assert of(table('image,label\n1.jpg,0\n2.jpg,1\n3.jpg,10\n'))=={'1': '0', '2': '1', '3': '10'} and of(table('1.jpg,0\n2.jpg,1\n'))=={'1': '0', '2': '1'}
    nfd = unicodedata.normalize('NFD', 'Vögel')
    assert table(f'image,labels\n1.jpg,{nfd}\n2.jpg,Vögel\n').names==['Vögel']

def split(*cells, own=False): return {c: v for c, v in split_cells({c: f'line {k}' for k, c in enumerate(cells, 1)}, own)[0].items() if c}

@pytest.mark.parametrize('cells, want', [
    (['cat,dog', 'cat', 'dog'], 2), (['a,b', 'b,c', 'c,a', 'a,b,c'], 3), (['a, b', 'b', 'a', ''], 2),                                 # fewer labels by splitting at commas
    (['dining table', 'cell phone', 'cat'], 3), (['polar bear', 'brown bear'], 2), (['cat;dog', 'dining table', 'table', 'dining'], 5),
    (['haze primary', 'haze', 'primary', 'primary road', 'road', 'haze primary road'], 3), (['N/A', 'cat'], 2), (['teddy bear;', 'bear', 'teddy'], 3), (['Hosiery, Tights;', 'cat'], 2)])
def test_a_cell_is_split_if_the_table_shows_it(cells, want): assert len({n for v in split(*cells).values() for n in v})==want

@pytest.mark.parametrize('cells', [['cat,dog', 'bird,fish'], ['cat,dog', 'cat'], ['cat,dog'], ['dining table', 'table'], ['dining table', 'dining', 'table'], ['cat dog', 'dog bird', 'bird cat'],
                                   ['cat/dog', 'cat', 'dog'], ['cat+dog', 'cat', 'dog'], ['cat & dog', 'cat', 'dog'], [f'{a} {b}' for a in ('red', 'blue', 'black') for b in ('car', 'bus', 'van')],
                                   [f'{a} {b}' for a in ('red', 'blue', 'black', 'grey', 'green') for b in ('car', 'bus', 'van', 'tram', 'truck')]])
def test_two_readings_are_both_shown(cells):
    text = fails(lambda: split(*cells), 'may be one label or 2')
    cell, first = re.search("line \\d+: '(.*?)'.*write \"(.*?)\"", text).groups()
    for new in (first, f'{cell};'):                     # both remedies help, as far as that cell goes
        try: assert len(split(*[new if c==cell else c for c in cells])[new])==1+(new==first)
        except FsicError as e: assert repr(cell) not in str(e)

def test_rows_for_labels_need_no_splitting(table):
    s = table('image,label\n1.jpg,dining table\n1.jpg,table\n2.jpg,dining\n')
    assert s.names==['dining', 'dining table', 'table']
    assert table('1.jpg,teddy bear,bear\n2.jpg,bear\n').names==['bear', 'teddy bear']
    assert table('1.jpg,"Hosiery, Tights",cat\n2.jpg,cat\n').names==['Hosiery, Tights', 'cat']
    fails(lambda: table('1.jpg,"cat,dog",cat\n2.jpg,cat\n'), 'may be one label or 2')

word = st.text(alphabet='abäß日 -\'"', min_size=1, max_size=5).map(str.strip).filter(bool)
@settings(deadline=None)
@given(st.lists(word, min_size=1, max_size=4, unique_by=str.casefold), st.data(), st.booleans(), st.sampled_from(['utf-8', 'utf-8-sig', 'utf-16']), st.sampled_from(',;\t|'))
def test_csv_is_read_back(labels, data, head, encoding, sep):
    "Any names; a semicolon behind each says where it ends."
    truth = data.draw(truths(labels))
    f = io.StringIO()
    w = csv.writer(f, delimiter=sep)
    if head: w.writerow(['image', 'labels'])
    for k, v in enumerate(truth): w.writerow([f'Größe {k},"日".jpg', ''.join(f'{n};' for n in v)])
    with tempfile.TemporaryDirectory() as d:
        (Path(d)/'mine.csv').write_bytes(f.getvalue().encode(encoding))
        s = read_csv(Path(d)/'mine.csv', files='unchecked')
    assert names_of(s)=={f'Größe {k},"日".jpg': v for k, v in enumerate(truth) if v} and s.names==sorted({n for v in truth for n in v})
    assert s.name=='mine' and s.info['listed']==len(truth) and s.info['left_out']['images without a label']==sum(not v for v in truth)

@settings(deadline=None)
@given(truths(['cat', 'dog', 'owl', 'sea cow']), st.sampled_from(['flags', 'rows', 'ragged', 'list', 'boxes']))
def test_any_table_in_any_form(truth, form):
    names = sorted({n for v in truth for n in v})
    f = io.StringIO()
    w = csv.writer(f)
    if form=='flags': w.writerow(['image', *names])
    if form=='rows' or form=='list': w.writerow(['image', 'label'])
    if form=='boxes': w.writerow('filename xmin ymin xmax ymax class'.split())
    for k, v in enumerate(truth):
        if form=='flags': w.writerow([f'{k}.jpg', *(int(n in v) for n in names)])
        if form=='ragged': w.writerow([f'{k}.jpg', *sorted(v)])
        if form=='list': w.writerow([f'{k}.jpg', str(sorted(v))])
        for n in sorted(v) if form in ('rows', 'boxes') else ():
            w.writerow([f'{k}.jpg', n] if form=='rows' else [f'{k}.jpg', 1, 2, 5, 6, n])
    with tempfile.TemporaryDirectory() as d:
        for k in range(len(truth)): (Path(d)/f'{k}.jpg').write_bytes(b'x')
        (Path(d)/'labels.csv').write_text(f.getvalue())
        s = read_csv(d)
    assert names_of(s)=={f'{k}.jpg': v for k, v in enumerate(truth) if v} and s.names==names

def test_the_same_file_in_two_spellings(table):
    s = table('image,labels\n./1.jpg,cat\n1.JPG,dog\n1.jpg,cat\n2.jpg,dog\n')
    assert of(s)=={'1': 'cat dog', '2': 'dog'} and 'united: 2 records' in said(s)
    fails(lambda: table('image,labels\na/1.jpg,cat\nb/1.jpg,dog\n'), 'both lead to')


# --- folders --------------------------------------------------------------------------------------

@settings(deadline=None, max_examples=25)
@given(truths(['cat', 'dog', 'Vögel']), st.data())
def test_folders_are_read_back(tmp_path_factory, truth, data):
    "Copies under any name, in sub-folders or not."
    root = tmp_path_factory.mktemp('f')/'pets'
    truth = [*truth, {'cat'}, {'dog'}]
    for k, v in enumerate(truth):
        for n in v:
            f = root/n/data.draw(st.sampled_from(['', 'more']))/f'{data.draw(st.sampled_from("ab"))}{k}.JPG'
            f.parent.mkdir(parents=True, exist_ok=True); f.write_bytes(b'picture %03d' % k)      # all of one size
    s = read_folder(root)
    got = {p.read_bytes(): {n for n, v in zip(s.names, row) if v} for p, row in zip(s.paths, s.labels)}
    assert got=={b'picture %03d' % k: v for k, v in enumerate(truth) if v} and len(s)==len(got)
    assert s.names==sorted(d.name for d in root.iterdir()) and s.name=='pets' and s.info['listed']==sum(map(len, truth))

def test_folders_what_is_left_aside_and_what_is_an_error(tmp_path):
    for f, b in {'cat/a.jpg': b'1', 'cat/a.txt': b'2', 'cat/.a.jpg': b'3', '.git/a.jpg': b'4', '__MACOSX/a.jpg': b'5', 'Thumbs.db': b'6', 'dog/a.jpg': b'7', 'dog/b.heic': b'8'}.items():
        (tmp_path/f).parent.mkdir(exist_ok=True); (tmp_path/f).write_bytes(b)
    s = read_folder(tmp_path)
    assert [p.relative_to(tmp_path).as_posix() for p in s.paths]==['cat/a.jpg', 'dog/a.jpg', 'dog/b.heic'] and s.info['left_out']['files of other kinds (1 .txt)']==1
    for f in ('cat/e.jpg', 'dog/f.jpg'): (tmp_path/f).write_bytes(b'')
    fails(lambda: read_folder(tmp_path), 'e.jpg is empty, as 2 of 5')
    assert len(read_folder(tmp_path, files='unchecked'))==5                 # two empty files are not the same image
    assert len(read_folder(tmp_path, files='present'))==3
    (tmp_path/'horse').mkdir(); (tmp_path/'annotations').mkdir(); (tmp_path/'annotations'/'1.xml').write_text('x')
    assert read_folder(tmp_path, files='present').info['left_out']['folders without an image (annotations, horse)']==2
    (tmp_path/'lost.PNG').write_bytes(b'x')
    fails(lambda: read_folder(tmp_path), "images (1) lie in no label's folder")
    (tmp_path/'empty').mkdir()
    fails(lambda: read_folder(tmp_path/'empty'), 'no folder with images')
    fails(lambda: read_folder(tmp_path/'nowhere'), 'nowhere: no such folder')

def placed(*folders): return {'/'.join(d): v for d, v in place_folders({tuple(f.split('/')): 4 for f in folders}, 'pets')[0].items()}

@pytest.mark.parametrize('folders, want', [
    ('cat dog', 'cat dog'), ('cat/x dog', 'cat dog'), ('train/cat train/dog val/cat', 'cat:train dog:train cat:val'), ('cat/train cat/test dog/train', 'cat:train cat:test dog:train'),
    ('images/cat images/dog', 'cat dog'), ('images/Train/cat images/Valid/cat', 'cat:Train cat:Valid'), ('train/images/cat test/images/cat', 'cat:train cat:test'), ('bus car train', 'bus car train'),
    ('data/images/cat data/images/dog', 'cat dog'), ('train/cat/a train/cat/b', 'cat:train cat:train'), ('cat/images dog/images', 'cat dog'), ('cat', 'cat'), ('cat/train cat/val', 'cat:train cat:val')])
def test_folders_that_are_labels_or_parts(folders, want):
    assert [f'{n}:{p}'.rstrip(':') for n, p in placed(*folders.split()).values()]==want.split()

@pytest.mark.parametrize('folders, says', [
    ('train test', 'test (4 images) may be labels, or parts without labels'), ('train', 'train (4 images) may be labels, or parts'), ('images/train images/val', 'may be labels, or parts'),
    ('train/images val/images', 'may be labels, or parts'), ('train test cat', 'test, train may be a part, or a label like cat'), ('train/cat dog', 'train may be a part, or a label like dog'),
    ('images cat', 'images may be a part, or a label like cat'), ('train/cat train', "pets/train: images (4) lie in no label's folder"), ('images', "images (4) lie in no label's folder"),
    ('pets/cat pets/dog', 'pets may be the only label, or hold the labels cat, dog; give --root pets/pets')])
def test_folders_with_two_readings(folders, says): fails(lambda: placed(*folders.split()), says)

def test_an_image_in_two_parts_is_one_and_is_said(tmp_path):
    s = read_folder(tree(tmp_path, 'train/cat/1.jpg', 'train/dog/2.jpg', 'test/dog/1.jpg', 'test/dog/copy_of_2.jpg', 'test/cat/3.jpg'))
    assert len(s)==3 and 'images in several parts: 2 (test, train)' in said(s)

def test_folders_that_are_nearly_called_the_same(tmp_path):
    s = read_folder(tree(tmp_path, 'cat/A/1.jpg', 'cat/a/2.jpg', 'dog/3.jpg'))
    assert of(s)=={'1': 'cat', '2': 'cat', '3': 'dog'} and all(p.is_file() for p in s.paths)
    nfd = unicodedata.normalize('NFD', 'Vögel')
    s = read_folder(tree(tmp_path/'x', f'{nfd}/1.jpg', 'dog/2.jpg'))
    assert s.names==['Vögel', 'dog'] or s.names==['dog', 'Vögel'] and all(p.is_file() for p in s.paths)

@pytest.mark.skipif(not hasattr(os, 'symlink'), reason='no symbolic links here')
def test_links(tmp_path):
    for d in ('cat', 'sofa'): (tmp_path/d).mkdir()
    (tmp_path/'cat'/'a.jpg').write_bytes(b'x'); (tmp_path/'sofa'/'link.jpg').symlink_to(tmp_path/'cat'/'a.jpg')
    (tmp_path/'cat'/'up').symlink_to(tmp_path)                               # a circle ends
    assert names_of(read_folder(tmp_path))=={'a.jpg': {'cat', 'sofa'}}


# --- public data sets, as their files are --------------------------------------------------------

def test_celeba_minus_one_is_no(tmp_path):
    for n in ('1.jpg', '2.jpg'): (tmp_path/n).write_bytes(n.encode())
    (tmp_path/'a.csv').write_text('image_id,Bald,Young\n1.jpg,-1,1\n2.jpg,1,1\n')
    (tmp_path/'list.txt').write_text('2\nBald Young \n1.jpg -1  1\n2.jpg  1  1\n')
    for name in ('a.csv', 'list.txt'):
        s = read_csv(tmp_path/name)
        assert of(s)=={'1': 'Young', '2': 'Bald Young'} and s.unknown is None
    (tmp_path/'a.csv').write_text('image_id,Bald,Young\n1.jpg,-1,1\n2.jpg,1,0\n')        # CheXpert: -1 is unknown beside 0
    assert read_csv(tmp_path/'a.csv').unknown.tolist()==[[True, False], [False, False]]

def test_numbers_with_blanks_are_several_labels(tmp_path):
    for n in ('a.png', 'b.png'): (tmp_path/n).write_bytes(n.encode())
    (tmp_path/'train.csv').write_text('Id,Target\na,16 0\nb,7 1 2 0\n')
    assert of(read_csv(tmp_path))=={'a': '0 16', 'b': '0 1 2 7'}

def test_the_column_whose_files_are_there_names_the_images(tmp_path):
    (tmp_path/'posters').mkdir()
    for n in ('tt1.jpg', 'tt2.jpg'): (tmp_path/'posters'/n).write_bytes(n.encode())
    (tmp_path/'movies.csv').write_text('imdbId,Title,Genre,Poster\ntt1,Heat,Action|Crime,https://x.org/a.jpg\ntt2,Toy Story,Comedy,https://x.org/b.jpg\n')
    assert of(read_csv(tmp_path, pictures='posters'))=={'tt1': 'Action Crime', 'tt2': 'Comedy'}

def test_csv_of_label_studio(tmp_path):
    for n in ('1.jpg', '2.jpg'): (tmp_path/n).write_bytes(n.encode())       # the ids are names of other images here
    (tmp_path/'export.csv').write_text('image,id,choice,annotator\n/data/upload/1/ab12cd34-2.jpg,1,"{""choices"": [""cat"", ""dog""]}",1\n/data/upload/1/ab12cd34-1.jpg,2,dog,1\n')
    assert of(read_csv(tmp_path))=={'1': 'dog', '2': 'cat dog'}

def test_a_single_flag_beside_words_is_not_guessed(tmp_path):
    (tmp_path/'a.csv').write_text('image,site,checked\n1.jpg,left,1\n2.jpg,right,1\n')
    fails(lambda: read_csv(tmp_path), 'which column holds the labels is not clear (checked, site)')

def test_images_in_folders_of_any_name_are_found_where_none_else_is(tmp_path):
    for d, n in (('images_001/images', '1.png'), ('images_002/images', '2.png')):
        (tmp_path/d).mkdir(parents=True); (tmp_path/d/n).write_bytes(n.encode())
    (tmp_path/'entry.csv').write_text('Image Index,Finding Labels\n1.png,Edema|Mass\n2.png,No Finding\n')
    s = read_csv(tmp_path)
    assert s.counts().tolist()==[1, 1, 1] and 'images found in: images_001/images, images_002/images' in s.describe()
    (tmp_path/'copy').mkdir(); (tmp_path/'copy'/'1.png').write_bytes(b'another')
    fails(lambda: read_csv(tmp_path), '1.png is missing, as 1 of 2')         # two files have the name, and neither is taken

@pytest.mark.parametrize('name', ['https://x.org/a/1.jpg?x=1', 'gs://b/1.jpg', 'D:\\a\\1.jpg', '/home/a/1.jpg', '1%2Ejpg'])
def test_addresses_and_paths_of_other_machines(tmp_path, name):
    (tmp_path/'1.jpg').write_bytes(b'x')
    (tmp_path/'a.csv').write_text(f'image,label\n{name},cat\n')
    assert of(read_csv(tmp_path))=={'1': 'cat'}

@pytest.mark.parametrize('folders, says', [
    ('animals/cat animals/dog things/sofa', 'labels may be animals, things, or the folders in them (cat, dog, sofa)'), ('fold1/cat fold1/dog fold2/cat fold2/dog', 'labels may be fold1, fold2'),
    ('train/animals/cat train/animals/dog train/things/sofa', 'labels may be animals, things'), ('seg_a/x/sea seg_a/x/street seg_b/x/sea', 'labels may be seg_a, seg_b'),
    ('pets/pets/cat pets/pets/dog', 'give --root pets/pets/pets'), ('JPEGImages SegmentationClass', 'JPEGImages may be a part')])
def test_folders_of_two_levels_are_not_guessed(folders, says): fails(lambda: placed(*folders.split()), says)

def test_folders_within_labels_are_said(tmp_path):
    assert placed('cat/a', 'dog/b')=={'cat/a': ('cat', ''), 'dog/b': ('dog', '')}       # one below each: only the tops can be labels
    assert placed('training_set/cat', 'test_set/cat')=={'training_set/cat': ('cat', 'training_set'), 'test_set/cat': ('cat', 'test_set')}
    s = read_folder(tree(tmp_path, 'cat/1.jpg', 'cat/black/2.jpg', 'dog/3.jpg'))
    assert s.counts().tolist()==[2, 1] and 'read as the label above: 1 folder (cat/black)' in s.describe()

def test_a_link_to_nothing_is_counted(tmp_path):
    root = tree(tmp_path, 'cat/1.jpg', 'dog/2.jpg')
    (root/'dog'/'3.jpg').symlink_to('nowhere.jpg')
    assert read_folder(root).info['left_out']['links to nothing (dog/3.jpg)']==1
