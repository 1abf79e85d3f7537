"A review asks what the tagger is least certain of, teaches it the answer at once, and takes it back exactly."
import copy, io, json, os
from pathlib import Path
from types import SimpleNamespace

import numpy as np, pandas as pd, pytest, torch
from PIL import Image

import lab
from fsic_nb import review as module
from fsic_nb.core import FsicError
from fsic_nb.examples import Photos, list_photos, read_examples
from fsic_nb.review import Review, certainty, check_widgets, heat_over

TAGS = ['cat', 'dog']


def _opened(im): return Image.open(im) if isinstance(im, (str, Path)) else im


class Fake:
    "The tagger's interface on photos that are of one colour: a tag is the nearer to what was said of a colour."
    def __init__(self):
        self.tags_ = TAGS
        self.thresholds_ = np.array([.5, .4])
        self.examples_ = []
        self.reads = 0

    def read(self, images, skip=None):
        assert skip
        self.reads += 1
        photos = list_photos(images)
        for n, im in zip(photos.names, map(_opened, photos.sources)):
            if im is None: yield SimpleNamespace(name=n, error='no image')
            else: yield SimpleNamespace(name=n, error='', f=torch.tensor([[np.asarray(im).mean()/255]]))

    q_ = None
    space_ = SimpleNamespace(score=lambda f, q: (torch.zeros(len(f), 2), f[:, 0]))
    solved_ = SimpleNamespace(correction=lambda s, v: v)

    def confidence_(self, v):
        x = v[:, 0].double().numpy()
        p = np.stack([x, 1-x], 1)
        for y, said in self.examples_:     # a colour that is near to one that was judged becomes like it
            near = np.exp(-20*np.abs(x-y))[:, None]
            p = np.where(np.isnan(said), p, (1-near)*p+near*said)
        return torch.from_numpy(p)

    def partial_fit(self, images, table):
        said = read_examples(images, table)      # as the tagger does
        assert len(said.yes)==1 and list(table.columns)==TAGS
        self.examples_ = self.examples_ + [(np.asarray(_opened(said.photos.sources[0])).mean()/255, table.to_numpy()[0])]

    def explain(self, image, tag):
        return SimpleNamespace(image=_opened(image), tag=tag, heat=np.eye(5)-.1)


def photos(size=(40, 20), **greys):
    "Grey images by name; None cannot be read."
    return Photos([g and Image.new('RGB', size, (round(255*g),)*3) for g in greys.values()], [*greys])


def review(**kw):
    t = Fake()
    return t, Review(t, photos(a=.9, b=.55, c=.1, d=.48), **kw)


def test_certainty_is_a_share_of_the_way():
    c = certainty(np.array([[0., .1, .2, .6, 1.]]), np.full(5, .2))
    assert np.allclose(c, [[1, .5, 0, .5, 1]])
    assert np.isfinite(certainty(np.array([[0., 1.]]), np.array([0., 1.]))).all()


def test_the_least_certain_is_asked_first_and_nothing_twice():
    t, r = review()
    assert r.next()==('d', 'cat', pytest.approx(.48, abs=.01)) and r.next()==r.next()
    seen = []
    while r.next():
        p = r.probabilities()
        c = pd.DataFrame(certainty(p.to_numpy(), t.thresholds_), p.index, TAGS).stack().drop(seen)
        assert c[r.next()[:2]]==c.min()
        seen.append(r.next()[:2])
        r.answer('unsure')
    assert len(set(seen))==8 and not r.left and r.answers.empty and not t.examples_
    with pytest.raises(FsicError, match='nothing is left'): r.answer('yes')


def test_ties_go_by_name():
    r = Review(Fake(), photos(z=.5, m=.5, y=.5))
    asked = []
    while r.next():
        asked.append(r.next()[:2])
        r.answer('unsure')
    assert [n for n, t in asked if t=='cat']==['m', 'y', 'z']


def test_one_tag():
    _, r = review(tag='dog')
    assert {r.next()[1]}=={'dog'} and r.left==4 and list(r.answers.columns)==['dog']
    with pytest.raises(FsicError, match='dgo: .*did you mean dog'): review(tag='dgo')


def test_the_tagger_learns_at_once_and_reads_photos_once():
    t, r = review()
    before = r.probabilities()
    n = r.next()
    assert r.answer('yes')==r.next()!=n
    assert (r.probabilities()>before).loc[n[0], n[1]] and t.reads==1


def test_two_answers_about_a_photo_are_one_row():
    t, r = review()
    r.answer('yes')
    while r.next()[0]!='d': r.answer('unsure')
    r.answer('no')
    assert r.answers.loc['d'].to_dict()==dict(cat=1, dog=0) and len(r.answers)==1
    assert t.examples_[-1][1].tolist()==[1, 0]


def test_undo_is_exact():
    t, r = review()
    states = []
    for said in ('yes', 'unsure', 'no', 'no', 'yes'):
        states.append((copy.deepcopy(vars(t)), r.next(), r.answers, r.left))
        r.answer(said)
    for state, question, answers, left in states[::-1]:
        assert r.undo()==question and r.left==left
        assert repr(vars(t))==repr(state)
        pd.testing.assert_frame_equal(r.answers, answers)
    with pytest.raises(FsicError, match='nothing has been answered'): r.undo()


def test_an_answer_that_cannot_be_learnt_is_not_kept(monkeypatch):
    t, r = review()
    def fail(*a): raise FsicError('gone')
    monkeypatch.setattr(t, 'partial_fit', fail)
    q = r.next()
    with pytest.raises(FsicError, match='gone'): r.answer('yes')
    assert r.next()==q and r.answers.empty and not r.said
    with pytest.raises(FsicError, match='maybe: no answer'): r.answer('maybe')


def test_as_many_answers_as_are_kept_can_be_taken_back():
    r = Review(Fake(), photos(**{f'{i:02}': i/30 for i in range(30)}))
    for _ in range(module._UNDO+5): r.answer('unsure')
    for _ in range(module._UNDO): r.undo()
    assert not r.can_undo and len(r.said)==5
    with pytest.raises(FsicError, match='no more than'): r.undo()


def test_an_interrupt_leaves_all_as_it_was(monkeypatch):
    t, r = review()
    before, q = repr(vars(t)), r.next()
    def stop(*a): raise KeyboardInterrupt
    monkeypatch.setattr(Fake, 'confidence_', stop)       # the tagger has learnt already
    with pytest.raises(KeyboardInterrupt): r.answer('yes')
    assert repr(vars(t))==before and r.next()==q and not r.said
    monkeypatch.undo()
    r.answer('yes')
    assert r.undo()==q


def test_the_saved_answers_are_read_as_they_were_given(tmp_path):
    (tmp_path/'photos, mine').mkdir()
    for n, g in dict(a=.9, b=.55, c=.1, d=.48).items(): Image.new('L', (8, 8), round(255*g)).save(tmp_path/'photos, mine'/f'{n}.png')
    r = Review(Fake(), tmp_path/'photos, mine')
    for said in ('yes', 'unsure', 'no', 'yes'): r.answer(said)
    above, beside = tmp_path/'c.csv', tmp_path/'out'/'c.csv'
    r.save(above)
    r.save(beside)
    assert above.read_text().splitlines()==['image,cat,dog', '"photos, mine/d.png",1,0', '"photos, mine/b.png",1,']
    for file in (above, beside):         # below it or not: the photos are found
        said = read_examples(file)
        assert [Path(p).name for p in said.photos.sources]==['d.png', 'b.png']
        assert said.yes==[{'cat'}, {'cat'}] and said.no==[{'dog'}, set()]


def test_images_without_a_file_have_no_csv(tmp_path):
    _, r = review()
    r.answer('yes')
    with pytest.raises(FsicError, match='d: has no file'): r.save(tmp_path/'c.csv')
    assert not any(tmp_path.iterdir())


def test_unreadable_photos_are_named_and_not_asked_about():
    r = Review(Fake(), photos(**{'a': .5, '<i>.jpg': None}))
    assert r.left==2
    assert '1 unreadable' in r.progress() and '&lt;i&gt;.jpg' in r.progress() and '<i>' not in r.progress()
    with pytest.raises(FsicError, match='none of the photos'): Review(Fake(), photos(x=None))


def test_names_cannot_be_markup():
    r = Review(Fake(), photos(**{'<img src=x onerror=alert(1)>.jpg': .5}))
    assert '<img' not in r.asked() and '&lt;img' in r.asked()


def test_heat_is_drawn_where_it_is():
    im = Image.new('RGB', (80, 40), 'blue')
    heat = np.zeros((4, 8))
    heat[:, 6:] = 3
    a = np.asarray(heat_over(im, heat)).astype(int)
    assert a.shape==(40, 80, 3) and (a[:, 70, 0]-a[:, 70, 2]>80).all() and (np.ptp(a[:, 10], -1)==0).all()
    assert np.ptp(np.asarray(heat_over(im, heat-9)), -1).max()==0


# --- the widget ---------------------------------------------------------------------------------

def parts(r):
    pytest.importorskip('ipywidgets')
    question, row, progress, errors, pair = r.widget.children
    return question, pair.children, {b.description: b for b in row.children}, progress, errors


def test_clicks_answer(monkeypatch):
    monkeypatch.setattr(module, 'GRACE', 0)
    t, r = review()
    question, (photo, heat), buttons, progress, _ = parts(r)
    assert 'cat?' in question.value and buttons['undo'].disabled and not buttons['yes'].disabled
    assert Image.open(io.BytesIO(photo.value)).size==Image.open(io.BytesIO(heat.value)).size==(40, 20)
    first = question.value
    buttons['yes'].click()
    assert r.answers.loc['d', 'cat']==1 and question.value==r.asked()!=first and '1 answered, 0 unsure, 7 left' in progress.value
    buttons['undo'].click()
    assert r.answers.empty and question.value==first
    r.answer('no')                       # by hand: the widget follows
    assert question.value==r.asked()!=first
    for _ in range(7): buttons['unsure'].click()
    assert 'Nothing is left' in question.value and buttons['yes'].disabled and not buttons['undo'].disabled
    assert photo.layout.display=='none'
    buttons['undo'].click()
    assert photo.value and photo.layout.display is None


def test_a_double_click_answers_once():
    _, r = review()
    *_, buttons, _, _ = parts(r)
    buttons['yes'].click()               # at once after it was drawn
    assert not r.said


def test_a_file_that_has_gone_can_be_skipped(monkeypatch):
    monkeypatch.setattr(module, 'GRACE', 0)
    t, r = review()
    def fail(*a): raise FsicError('d: <gone>')
    monkeypatch.setattr(t, 'explain', fail)
    _, (photo, _), buttons, progress, _ = parts(r)
    assert '&lt;gone&gt;' in progress.value and photo.layout.display=='none'
    monkeypatch.undo()
    monkeypatch.setattr(module, 'GRACE', 0)
    buttons['unsure'].click()
    assert photo.value


def test_without_ipywidgets(monkeypatch):
    monkeypatch.setattr(module, 'find_spec', lambda name: None)
    _, r = review()
    with pytest.raises(FsicError, match='pip install ipywidgets'): r.widget
    with pytest.raises(FsicError, match='pip install ipywidgets'): check_widgets()


def test_photos_are_reduced():
    r = Review(Fake(), photos((1000, 3000), big=.5))
    assert all(max(Image.open(io.BytesIO(b)).size)==320 for b in r.pictures())


# --- in JupyterLab ------------------------------------------------------------------------------

CELLS = f"""
import sys
sys.path[:0] = ['{lab.root/"tools"}', '{lab.root/"tests"}']
from test_review import *
t = Fake()
r = Review(t, photos((400, 300), **{{'<b>bold</b>.jpg': .48, 'b.jpg': .9, 'c.jpg': .1, 'broken.jpg': None}}))
r
"""


def test_a_click_in_jupyterlab_teaches_the_tagger(browser, tmp_path, capsys):
    (tmp_path/'one.ipynb').write_text(json.dumps(dict(nbformat=4, nbformat_minor=5, metadata=dict(kernelspec=dict(name='python3', display_name='Python 3')), cells=[
        dict(cell_type='code', id='c0', metadata={}, source=CELLS, outputs=[], execution_count=None)])))
    seen = []
    def click(page, stem):
        box = page.locator('.fsic-review')
        box.wait_for(timeout=60_000)
        def html(): return box.locator('.widget-html').first.inner_text()
        def press(name, becomes):
            page.wait_for_timeout(400)          # what a double click is told from
            box.get_by_role('button', name=name).click()
            page.wait_for_function('text => document.querySelector(".fsic-review").innerText.includes(text)', arg=becomes, timeout=30_000)
            seen.append(html())
        seen.append(html())
        press('yes', '1 answered')
        press('undo', '0 answered')
        press('no', '1 answered')
        if shot := os.environ.get('FSIC_SHOT'): page.screenshot(path=shot)   # to look at
        seen.append(box.locator('img').first.evaluate('e => [e.naturalWidth, e.naturalHeight]'))
    assert lab.run(browser, [tmp_path/'one.ipynb'], look=click), capsys.readouterr().out
    assert seen[0].startswith('cat?') and '<b>bold</b>.jpg' in seen[0]
    assert seen[1]!=seen[0]==seen[2]!=seen[3] and seen[4]==[320, 240]
