"The report: what is in the file, and what a reader does with it in a browser."
import csv, io, json, re, time, tracemalloc

import numpy as np, pytest
from PIL import Image

from fsic_nb.core import FsicError, rng
from fsic_nb.report import Shown, Tagged, write_report

NASTY = ['</script><img src=x onerror=alert(1)>.jpg', '"><svg onload=alert(1)>.jpg', "' onmouseover='alert(1).jpg",
         '{{7*7}}{% for x in y %}.jpg', '$& $1 $`.jpg', 'a\u202egpj.exe', 'x'*250+'.jpg', '<!--<script>.jpg',
         'line\u2028two\nthree, "four".jpg', '=1+1.jpg', '&lt;b&gt;&amp;.jpg', ' spaced .jpg', 'Vögel/雀🐦.jpg']


def jpeg(seed=0, size=(160, 120)):
    "A thumbnail as rich as a photograph: noise of several scales."
    r = rng(seed, 'thumb')
    x = sum(np.asarray(Image.fromarray(r.integers(0, 255, (int(size[1]/k), int(size[0]/k), 3), dtype=np.uint8))
                       .resize(size, Image.BICUBIC), dtype=float)*k for k in (1.5, 4, 8, 16))/29.5
    data = io.BytesIO()
    Image.fromarray((1.7*x-90).clip(0, 255).astype(np.uint8)).save(data, 'JPEG', quality=80)
    return data.getvalue()


THUMB = jpeg()


def photo(name, p, explain=True, thumb=THUMB):
    "A photo with thresholds of .5, unsure within .15 of it."
    tags = range(len(p))
    return Tagged(name, thumb, p, [t for t in tags if p[t]>.65], [t for t in tags if .35<p[t]<=.65],
                  {t: np.arange(121, dtype=np.uint8).reshape(11, 11) for t in tags} if explain else {},
                  {t: [(0, .7), (1, .3)] for t in tags} if explain else {})


EXAMPLES = [Shown('one.jpg', THUMB, [0]), Shown('two.jpg', THUMB, [1])]
PETS = [photo('b10.jpg', [.9, .1]), photo('b9.jpg', [.7, .52]), photo('a.jpg', [.2, .1]),
        Tagged('broken.jpg', error='cannot be read (truncated)'), photo('c.jpg', [.45, .95])]


def write(path, photos=PETS, tags=('cat', 'dog'), examples=EXAMPLES, **kw):
    write_report(path, tags, photos, examples, kw.pop('thresholds', [.5]*len(tags)), **kw)
    return path


# --- the file --------------------------------------------------------------------------------------

def records(path):
    "The photos as a browser reads them."
    return [json.loads(s) for s in re.findall('<script type="application/json" class="record">(.*?)</script>', path.read_text('utf-8'))]


def test_numbers_of_any_kind_are_written(tmp_path):
    of_numpy = Tagged('a.jpg', THUMB, np.array([.25, np.nan], np.float32), np.array([0]), {np.int64(1)}, {np.int64(1): np.eye(3, dtype=np.uint8)[:, ::-1]},
                      {0: [(np.int64(1), np.float32(.5))]})
    r, = records(write(tmp_path/'r.html', [of_numpy], thresholds=np.array([.5, np.nan])))
    assert r['p']==[.25, None] and r['yes']==[0] and r['unsure']==[1] and r['spoke']=={'0': [[1, .5]]}
    assert r['heats']['1'][:2]==[3, 3]


def test_a_photo_with_another_number_of_tags_is_named_and_nothing_is_left(tmp_path):
    with pytest.raises(FsicError, match=r'b\.jpg: it has 3 probabilities and there are 2 tags'):
        write(tmp_path/'r.html', [PETS[0], photo('b.jpg', [.1, .2, .3])])
    assert not list(tmp_path.iterdir())


def test_a_failing_stream_leaves_the_old_page(tmp_path):
    old = write(tmp_path/'r.html').read_bytes()
    def photos():
        yield PETS[0]
        raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt): write(tmp_path/'r.html', photos())
    assert (tmp_path/'r.html').read_bytes()==old and len(list(tmp_path.iterdir()))==1


def test_the_same_photos_give_the_same_page(tmp_path):
    assert write(tmp_path/'a.html').read_bytes()==write(tmp_path/'b.html').read_bytes()
    key = re.compile('id="key">(.*?)<')
    other = write(tmp_path/'c.html', PETS[:-1]).read_text('utf-8')
    assert key.search(other)[1]!=key.search((tmp_path/'a.html').read_text('utf-8'))[1]


def test_no_name_is_markup_in_the_file(tmp_path):
    "Before any script runs: the elements of the file are the same whatever photos, tags and titles are called."
    def elements(names, tags, title):
        page = write(tmp_path/'r.html', [photo(n, [.5]*len(tags)) for n in names], tags, title=title, root=title,
                     examples=[Shown(n, THUMB, [0]) for n in names]).read_text('utf-8')
        assert [r['name'] for r in records(tmp_path/'r.html')]==names
        return re.findall('<[a-zA-Z!/][^\\s>]*', re.sub('<(style|script)>.*?</\\1>', '', page, flags=re.S))
    plain = [f'{k}.jpg' for k in range(len(NASTY))]
    assert elements(NASTY, NASTY, NASTY[0])==elements(plain, plain, 'title')


def test_a_thousand_photos_with_ten_tags_fit_into_15_mb_and_memory_is_flat(tmp_path):
    thumbs = [jpeg(k) for k in range(7)]
    assert 5000<np.mean([len(t) for t in thumbs])<9000         # as those of photographs
    def many(n):
        for k in range(n): yield photo(f'holiday/2026/IMG_{k:05}.jpg', [.123456, .5, *[.9]*8], thumb=thumbs[k%7])
    def peak(n):
        tracemalloc.start()
        write(tmp_path/f'{n}.html', many(n), [f'tag {k}' for k in range(10)])
        top = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return top
    assert peak(5000)<peak(1000)+1e6
    assert (tmp_path/'1000.html').stat().st_size<15e6


# --- in a browser ----------------------------------------------------------------------------------

class Reader:
    "A page that is open in a browser; what goes wrong there is kept."
    def __init__(self, browser, path, **kw):
        self.context = browser.new_context(accept_downloads=True, **kw)
        self.problems, self.asked = [], []
        self.context.on('page', self.watch)
        self.p = self.context.new_page()
        self.p.goto(path.as_uri())

    def watch(self, p):
        p.on('console', lambda m: self.problems.append(m.text) if m.type in ('error', 'warning') else None)
        p.on('pageerror', lambda e: self.problems.append(str(e)))
        p.on('dialog', lambda d: (self.asked.append(d.type), d.accept()))
        p.on('request', lambda r: self.problems.append(r.url) if not r.url.startswith(('file:', 'data:', 'blob:')) else None)

    def names(self): return self.p.locator('.card .name').all_inner_texts()

    def press(self, *keys):
        for k in keys: self.p.keyboard.press(k)

    def show(self, name): self.p.locator('#filters button', has_text=name).first.click()

    def count(self, name): return int(self.p.locator('#filters button', has_text=name).first.locator('span').inner_text())

    def card(self, name): return self.p.locator('.card').filter(has=self.p.get_by_text(name, exact=True))

    def open(self, name): self.card(name).click()

    def marked(self): return self.p.locator('#rows .marked .row').get_attribute('aria-label')

    def export(self):
        with self.p.expect_download() as got: self.p.locator('#export').click()
        assert got.value.suggested_filename=='corrections.csv'
        data = open(got.value.path(), 'rb').read()
        return list(csv.reader(io.StringIO(data.decode('utf-8', 'surrogateescape'), newline='')))


@pytest.fixture
def read(browser, tmp_path):
    "Write a page and open it."
    readers = []
    def opened(photos=PETS, tags=('cat', 'dog'), examples=EXAMPLES, look=None, **kw):
        readers.append(Reader(browser, write(tmp_path/'r.html', photos, tags, examples, **kw), **(look or {})))
        return readers[-1]
    yield opened
    for r in readers:
        r.context.close()
        assert not r.problems


def test_filters_and_orders(read):
    r = read()
    assert r.names()==['a.jpg', 'b9.jpg', 'b10.jpg', 'broken.jpg', 'c.jpg']        # numbers as numbers
    counts = {k: r.count(k) for k in ('All', 'Untagged', 'Unsure', 'Errors', 'Corrected', 'cat', 'dog')}
    assert counts==dict(All=5, Untagged=1, Unsure=2, Errors=1, Corrected=0, cat=3, dog=2)
    for name, shown in (('Untagged', ['a.jpg']), ('Unsure', ['b9.jpg', 'c.jpg']), ('Errors', ['broken.jpg']), ('dog', ['b9.jpg', 'c.jpg'])):
        r.show(name)
        assert r.names()==shown
    r.p.select_option('#sort', 'score')
    assert r.names()==['c.jpg', 'b9.jpg']
    r.p.locator('#below').check()
    assert r.names()==['c.jpg', 'b9.jpg', 'a.jpg', 'b10.jpg']                       # by the score of dog
    r.p.select_option('#sort', 'uncertain')
    assert r.names()==['b9.jpg', 'a.jpg', 'b10.jpg', 'c.jpg']                       # .02, .4, .4, .45 from .5
    r.show('All')
    assert r.names()==['b9.jpg', 'c.jpg', 'a.jpg', 'b10.jpg', 'broken.jpg']
    r.p.fill('#search', 'B1')
    assert r.names()==['b10.jpg']
    r.show('Corrected')
    assert r.names()==[] and r.p.locator('#empty').is_visible()


def test_an_opened_photo_explains_itself(read):
    r = read()
    r.open('b9.jpg')
    assert r.marked()=='cat 70%, tagged, threshold 50%'
    assert r.p.locator('#frame canvas').count()==1 and 'most at the bottom right' in r.p.locator('#legend').inner_text()
    assert r.p.locator('#spoke li').first.inner_text().split('\n')[:2]==['70% of what spoke for it', 'one.jpg']
    assert r.p.locator('#rows .marked .limit').evaluate('e => e.style.left')=='50%'
    alpha = r.p.evaluate("[...document.querySelector('canvas').getContext('2d').getImageData(0, 0, 11, 11).data].filter((_, i) => i%4==3)")
    assert alpha[0]==0 and np.all(np.diff(alpha)>=0) and alpha[-1]==round(.82*120)
    r.press('ArrowDown')
    assert r.marked()=='dog 52%, unsure, threshold 50%' and 'spoke for dog' in r.p.locator('#spoke-title').inner_text()
    r.press('h')
    assert r.p.locator('#frame canvas').count()==0
    r.press('ArrowRight', 'ArrowRight')
    assert r.p.locator('#photo-name').inner_text()=='broken.jpg' and 'truncated' in r.p.locator('#frame').inner_text()
    r.press('y', 'Escape')
    assert r.count('Corrected')==0


def test_corrections_by_key_and_click_come_back_as_a_table(read):
    r = read(root='some/photos')
    r.press('Tab')
    r.p.locator('.card').first.focus()
    r.press('ArrowRight', 'Enter', 'n', 'ArrowDown', 'y')                            # b9: no cat, a dog
    r.press('ArrowLeft', 'y', 'u', 'Escape')                                         # a: said, and taken back
    r.show('cat')
    r.card('c.jpg').focus()
    r.press('y')                                                                     # c, in the list: a cat
    r.open('b10.jpg')
    r.p.get_by_role('button', name='No (n): dog').click()
    r.press('Escape')
    assert r.p.locator('#export').inner_text()=='Export 4 corrections' and r.count('Corrected')==3
    r.show('All')
    assert 'said-no' in r.card('b9.jpg').locator('.chip').nth(1).get_attribute('class')
    assert r.export()==[['image', 'cat', 'dog'], ['some/photos/b10.jpg', '', '0'], ['some/photos/b9.jpg', '0', '1'],
                        ['some/photos/c.jpg', '1', '']]
    r.p.reload()
    assert r.count('Corrected')==3                                                   # kept by the browser


@pytest.mark.parametrize('denied', [False, True])
def test_it_warns_before_corrections_are_lost(read, denied, browser, tmp_path):
    r = read()
    if denied:
        r.context.add_init_script("Object.defineProperty(window, 'localStorage', {get() { throw new DOMException('denied', 'SecurityError'); }})")
        r.p.reload()
    r.open('a.jpg')
    r.press('y', 'Escape')
    r.p.reload()
    assert r.asked==['beforeunload'] and r.count('Corrected')==(0 if denied else 1)
    if denied: r.open('a.jpg'); r.press('y', 'Escape')
    r.press('?')
    assert ('stores nothing' if denied else 'kept in this browser') in r.p.locator('#kept').inner_text()
    r.press('Escape')
    assert r.export()==[['image', 'cat', 'dog'], ['a.jpg', '1', '']]
    r.p.reload()
    assert r.asked==['beforeunload']                                                 # exported: no second warning


def test_nothing_that_is_named_becomes_markup(read):
    names = NASTY+['\udcff\udc80.jpg']
    r = read([photo(n, [.9]*len(NASTY)) for n in names], NASTY, [Shown(n, THUMB, [0]) for n in NASTY], title=NASTY[0], root=NASTY[1])
    harmless = read([photo(f'{k}.jpg', [.9]*len(NASTY)) for k in range(len(names))], [str(k) for k in range(len(NASTY))],
                    [Shown(f'{k}.jpg', THUMB, [0]) for k in range(len(NASTY))], title='title')
    def elements(x):
        x.p.locator('.card').first.click()
        x.press('y', 'Escape', '?')
        return x.p.evaluate("Array.from(document.querySelectorAll('*'), e => e.tagName+Object.keys(e.dataset))")
    assert elements(r)==elements(harmless) and not r.asked
    shown = r.p.evaluate("Array.from(document.querySelectorAll('.card .name'), e => e.textContent)")
    assert set(NASTY)<set(shown) and r.p.title()==NASTY[0] and r.p.locator('h1').text_content()==NASTY[0]
    r.press('Escape')
    for n in range(1, len(names)): r.p.locator('.card').nth(n).click(); r.press('n', 'Escape')
    table = r.export()
    assert table[0]==['image', *NASTY]
    assert {row[0] for row in table[1:]}=={f'{NASTY[1]}/{n}' for n in names}         # exact, the bytes that are no UTF-8 too


def test_keys_in_the_list(read):
    r = read([photo(f'{k}.jpg', [k/400, .1]) for k in range(400)], look=dict(viewport=dict(width=1000, height=700)))
    assert r.p.locator('.card').count()<400
    r.p.locator('.card').first.focus()
    def here():
        r.p.wait_for_selector('.card:focus')
        return r.p.evaluate("document.activeElement.querySelector('.name').textContent")
    columns = r.p.evaluate("getComputedStyle(document.querySelector('#grid')).gridTemplateColumns.split(' ').length")
    r.press('ArrowDown', 'ArrowRight', 'ArrowUp')
    assert here()=='1.jpg' and columns>2
    r.press('End')
    assert here()=='399.jpg' and r.p.locator('.card').count()==400
    r.press('Enter', 'ArrowLeft', 'Escape')
    assert here()=='398.jpg'
    box, head = (r.p.locator(s).bounding_box() for s in ('.card:focus', 'header'))
    assert head['y']+head['height']<=box['y'] and box['y']+box['height']<=700        # seen, and not under the head
    r.press('n')
    assert 'Choose a tag' in r.p.locator('#toast').inner_text() and r.count('Corrected')==0
    r.press('/')
    r.p.keyboard.type('n7')
    assert r.names()==[] and r.count('Corrected')==0                                 # letters are text there
    r.press('Escape')
    assert '0.jpg' in r.names()


@pytest.mark.parametrize('scheme', ['light', 'dark'])
def test_dark_mode_follows_the_system_and_the_button(read, scheme):
    r = read(look=dict(color_scheme=scheme))
    def theme(): return r.p.evaluate('document.documentElement.dataset.theme')
    assert theme()==scheme
    r.p.locator('#theme').click()
    r.p.reload()
    assert theme()!=scheme
    background = r.p.evaluate('getComputedStyle(document.body).backgroundColor')
    assert (int(re.search(r'\d+', background)[0])<128)==(theme()=='dark')


CASES = dict(
    nothing=([], []), no_photo=([], ['cat', 'dog']), no_tag=([photo('a.jpg', [])], []), one=([photo('a.jpg', [.9])], ['cat']),
    hundred=([photo(f'{k}.jpg', list(np.linspace(0, 1, 100))) for k in range(3)], [f'a tag with a name {k}' for k in range(100)]),
    bare=([photo('a.jpg', [.9, float('nan')], explain=False, thumb=b'')], ['cat', 'dog']),
    long=([photo('x'*250+'.jpg', [.5])], ['w'*200]), errors=([Tagged('a.jpg', error='no '*200)], ['cat']))

@pytest.mark.parametrize('case', CASES)
def test_nothing_one_or_a_hundred_on_a_phone(read, case):
    photos, tags = CASES[case]
    r = read(photos, tags, look=dict(viewport=dict(width=390, height=844), is_mobile=True, has_touch=True))
    def fits(): return r.p.evaluate("Math.max(document.documentElement.scrollWidth, ...Array.from(document.querySelectorAll('dialog[open]'), d => d.scrollWidth))<=390")
    assert fits() and r.p.locator('.card').count()==len(photos) and r.p.locator('#empty').is_visible()==(not photos)
    for order in ('score', 'uncertain', 'name'): r.p.select_option('#sort', order)
    if photos:
        r.p.locator('.card').first.tap()
        assert r.p.locator('#photo').is_visible() and fits()
        assert r.p.locator('#rows li').count()==(0 if photos[0].error else len(tags))
        r.press('y', 'ArrowDown', 'ArrowUp', 'h', 'Escape')
    assert r.count('Corrected')==int(bool(photos) and bool(tags) and not photos[0].error)
    r.press('?')
    assert fits()


def test_a_thousand_photos_are_there_at_once(read):
    r = read([photo(f'{k}.jpg', [.1*(k%10)]*10) for k in range(1000)], [str(k) for k in range(10)])
    assert r.p.evaluate("performance.getEntriesByType('navigation')[0].domInteractive")<3000      # milliseconds
    start = time.perf_counter()
    r.p.select_option('#sort', 'uncertain')
    r.open('5.jpg')
    r.press('y')
    assert time.perf_counter()-start<5


def test_everything_that_can_be_pressed_has_a_name(read):
    r = read()
    r.open('b9.jpg')
    unnamed = r.p.evaluate("""Array.from(document.querySelectorAll('button, select, input'))
        .filter(e => !(e.getAttribute('aria-label') || e.textContent.trim() || e.labels?.length)).length""")
    assert unnamed==0
    for _ in range(12):                                                              # the focus stays inside, and is seen
        r.press('Tab')
        assert r.p.evaluate("document.activeElement===document.body || document.querySelector('#photo').contains(document.activeElement)")
    assert r.p.evaluate("document.activeElement===document.body || getComputedStyle(document.activeElement).outlineStyle")!='none'
