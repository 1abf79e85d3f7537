"Figures by what is on them: axes, texts, colours, places; and what cannot be drawn is one sentence."
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgb
from matplotlib.patches import Rectangle
from PIL import Image

from fsic_nb import show
from fsic_nb.core import FsicError
from fsic_nb.data import ImageSet
from fsic_nb.episodes import Episode

GRID = (2, 2)


@pytest.fixture(autouse=True)
def closed():
    "No figure is left open."
    yield
    plt.close('all')

@pytest.fixture(scope='module')
def images(tmp_path_factory):
    "Six images of one colour, of three labels; the first has two, and a box of each; the last is no image."
    folder = tmp_path_factory.mktemp('images')
    for i in range(6): Image.new('RGB', (40, 20), (40*i, 90, 200)).save(folder/f'{i}.png')
    (folder/'5.png').write_text('no image')
    y = np.eye(3, dtype=bool)[[0, 1, 2, 0, 1, 2]]
    y[0, 1] = True
    boxes = [[(0, 4, 2, 20, 10), (1, 0, 0, 40, 20)], *[[] for _ in range(5)]]
    return ImageSet([folder/f'{i}.png' for i in range(6)], ['cat', 'two words', 'a$b$'], y, 'toy', boxes=boxes)

@pytest.fixture
def episode(images):
    support, query = np.arange(3), np.array([3, 4, 0])
    return Episode(support, query, np.arange(3), images.labels[support], images.labels[query], 0, 0, 1, 1)


def texts(fig): return [t.get_text() for t in fig.texts]

def outlines(ax): return [c for c in ax.collections if isinstance(c, LineCollection)]


# --- one image ---------------------------------------------------------------------------------------------------------

def test_an_image_is_the_square_that_is_seen():
    ax = show.show_image(np.full((20, 60, 3), (10, 200, 30), np.uint8), title='green', size=56)
    assert ax.get_title()=='green' and ax.get_xlim()==(0, 56) and ax.get_ylim()==(56, 0) and not len(ax.get_xticks())
    drawn = ax.images[0].get_array()
    assert drawn.shape==(56, 56, 3) and (drawn==(10, 200, 30)).all()
    assert show.show_image(np.zeros((4, 4, 3), np.uint8), ax) is ax

def test_weights_are_heat_and_kept_places_are_outlined():
    grey = np.full((8, 8, 3), 100, np.uint8)
    ax = show.show_places(grey, torch.tensor([0., 1, 2, 4]), GRID)
    heat = ax.images[1].get_array()
    assert np.allclose(heat[..., 3], np.array([[0, .25], [.5, 1]])*.85) and np.allclose(heat[1, 1, :3], to_rgb(show.HEAT))
    ax = show.show_places(grey, torch.tensor([-2., 1, 0, 0]), GRID, keep=[1, 0, 0, 0])
    assert np.allclose(ax.images[1].get_array()[0, 0, :3], to_rgb(show.COLD))
    edge, line = outlines(ax)
    assert len(line.get_segments())==4 and np.max(line.get_segments())==112      # around the first of 2 x 2 places
    assert edge.get_linewidth()[0]>line.get_linewidth()[0]
    ax = show.show_places(2*grey, None, GRID, keep=[0, 0, 0, 1])
    drawn = ax.images[0].get_array()
    assert (drawn[112:, 112:]==200).all() and (drawn[:112]==160).all() and len(ax.images)==1    # the rest is dimmed

def test_the_object_is_dashed_by_its_places_or_along_its_mask():
    grey = np.full((8, 8, 3), 100, np.uint8)
    ax = show.show_places(grey, grid=GRID, truth=torch.tensor([.3, .2, 0, 0]))
    assert len(outlines(ax)[1].get_segments())==4 and np.max(outlines(ax)[1].get_segments())==112
    mask = np.zeros((8, 8), bool)
    mask[2:6, 2:6] = True
    assert len(show.show_places(grey, grid=GRID, truth=mask).collections)==2      # a white and a dashed contour
    assert not show.show_places(grey, grid=GRID, truth=~mask&mask).collections    # nothing there, nothing drawn

@pytest.mark.parametrize('draw, said', [
    (lambda: show.show_places(np.zeros((8, 8, 3), np.uint8), [1, 2, 3], GRID), 'weights: 3 values do not fill a grid of 2 x 2 places'),
    (lambda: show.show_places(np.zeros((8, 8, 3), np.uint8), [1, 2, 3, np.nan], GRID), 'some are not finite'),
    (lambda: show.show_results([]), 'no records to draw'),
    (lambda: show.show_results([dict(data='x', method='wagp', shots=1)]), 'a record lacks map, map_ci95'),
    (lambda: show.save_figure(plt.figure(), 'a.jpg'), 'a.jpg: figures are written as .png')])
def test_what_cannot_be_drawn(draw, said):
    with pytest.raises(FsicError, match=said) as e: draw()
    assert '\n' not in str(e.value)


# --- sheets ------------------------------------------------------------------------------------------------------------

def test_an_episode_has_a_row_a_label(images, episode):
    fig = show.show_episode(images, episode)
    assert len(fig.axes)==3*2
    assert [t for t in texts(fig) if t in ('cat', 'two\nwords', r'a\$b\$')][0]=='cat'
    assert {'support, 1-shot', 'queries', 'two\nwords', r'a\$b\$', 'two words'}<=set(texts(fig))
    colours = show.label_colours(images.names)
    assert all(t.get_color()==colours['cat'] for t in fig.texts if t.get_text()=='cat')
    fig = show.show_episode(images, episode, max_labels=1)
    assert len(fig.axes)==2 and texts(fig)[-1]==r'and two words, a\$b\$'

def test_a_batch_is_no_figure(images, episode):
    batch = SimpleNamespace(y=np.stack([episode.y]*2))
    with pytest.raises(FsicError, match='one episode, this is a batch of 2'): show.show_episode(images, batch)

def test_kept_places_and_what_of_them_is_on_the_object(images, episode):
    keep = np.zeros((3, 3, 4), bool)
    keep[:, 0, :2] = True
    keep[:, 1:, 3] = True
    whole = np.zeros((3, 3, 4))
    whole[:, 0, 1:] = 1
    fig = show.show_kept(images, episode, keep, torch.tensor(whole), GRID, max_labels=2)
    assert [t for t in texts(fig) if t.endswith('on it')]==['1 of 2 on it', '0 of 1 on it', '0 of 1 on it'] and len(fig.axes)==3
    mask = np.zeros((8, 8), bool)
    mask[:4] = True                                    # the upper half: places 0 and 1
    fig = show.show_kept(images, episode, keep, lambda i: {'cat': mask}, GRID, max_labels=2)
    assert [t for t in texts(fig) if t.endswith('on it')]==['2 of 2 on it', '0 of 1 on it', '0 of 1 on it']
    fig = show.show_kept(images, episode, keep[:, 0], grid=GRID, max_labels=1)    # one choice for all labels
    assert texts(fig)==['cat', '2 of 4 places']
    with pytest.raises(FsicError, match=r'keep \(3, 3, 3\): expected \(S, N, L\) = \(3, 3, 4\)'): show.show_kept(images, episode, keep[..., 1:], grid=GRID)

def test_labels_with_boxes_and_what_cannot_be_read(images):
    fig = show.show_labels(images, each=3)
    assert len(fig.axes)==7 and [t for t in texts(fig) if t[-1].isdigit()]==['two\nwords\n3', 'cat\n2', r'a\$b\$'+'\n2']
    boxes = sorted((p.get_x(), p.get_y(), p.get_width(), p.get_height()) for ax in fig.axes for p in ax.patches if isinstance(p, Rectangle))
    assert np.allclose([b for b in boxes if b[0]], [(11.2, 11.2, 56, 56)])       # 4 of 40 and 2 of 20 pixels, in a square of 112
    assert [t.get_text() for ax in fig.axes for t in ax.texts]==['cannot\nbe read']
    assert len(show.show_labels(images, each=1, most=2).axes)==2                  # the most and the least frequent

def test_a_data_set_is_read_said_and_drawn(tmp_path, capsys):
    for label in ('cat', 'dog'):
        (tmp_path/'pets'/label).mkdir(parents=True)
        for i in range(2): Image.new('RGB', (8, 8), (90*i, 60, 20)).save(tmp_path/'pets'/label/f'{i}{label}.png')
    show.draw_labels('folder', tmp_path/'pets', tmp_path/'sheet.png')
    assert 'cat 2' in (said := capsys.readouterr().out) and f'images of every label: {tmp_path/"sheet.png"}' in said
    assert Image.open(tmp_path/'sheet.png', formats=['PNG']).width>100
    with pytest.raises(FsicError, match='no file can be written there'): show.draw_labels('folder', 'no/such/data', tmp_path)


# --- results -----------------------------------------------------------------------------------------------------------

def test_results_have_a_panel_a_data_set_and_a_row_a_method():
    rows = [dict(data=d, protocol='strict', method=m, shots=k, episodes=9, map=50.+k, map_ci95=ci)
            for d in ('voc', 'mine $x$') for m, ci in (('mine', None), ('refined', 1.), ('simpleshot', 2.)) for k in (1, 5)]
    fig = show.show_results(rows)
    left, right = fig.axes
    assert [t.get_text() for t in left.get_yticklabels()]==[show.METHOD_NAMES['simpleshot'], show.METHOD_NAMES['refined'], 'mine']
    assert left.get_title(loc='left')+left.get_title()=='PASCAL VOC, strict filter, 9 episodes' and left.get_xlabel()=='mAP (%)'
    assert r'mine \$x\$' in right.get_title(loc='left')+right.get_title()
    assert [t.get_text() for t in right.get_legend().get_texts()]==['1-shot', '5-shot']
    assert sorted(t.get_text().strip() for t in left.texts)==['51.0']*3+['55.0']*3
    places = {(t.get_text().strip(), round(t.get_position()[0], 6)) for t in left.texts}
    assert places=={('51.0', 51.), ('51.0', 52.), ('51.0', 53.), ('55.0', 55.), ('55.0', 56.), ('55.0', 57.)}   # at the end of the interval


# --- files -------------------------------------------------------------------------------------------------------------

@pytest.fixture
def busy():
    "A figure with noise, text and a line: too much for a small file, unless it is reduced."
    fig, ax = plt.subplots(figsize=(1.5, 1.5))
    ax.imshow(np.random.default_rng(0).integers(0, 256, (200, 200, 3), dtype=np.uint8))
    ax.set_title('cat', color=show.PALETTE[1])
    ax.plot([0, 50], [0, 50], color=show.PALETTE[0])
    return fig

def test_a_figure_fits_and_is_the_same_again(busy, tmp_path):
    show.style()
    a = show.save_figure(busy, tmp_path/'a.png', 12)
    assert a.stat().st_size<=12_000 and a.read_bytes()==show.save_figure(busy, tmp_path/'b.png', 12).read_bytes()
    reduced = Image.open(a, formats=['PNG'])
    assert reduced.mode=='P'
    pixels = np.asarray(reduced.convert('RGB')).reshape(-1, 3)
    for name in show.PALETTE[:2]: assert (pixels==np.round(255*np.array(to_rgb(name)))).all(1).any()    # text and line keep their colours
    assert Image.open(show.save_figure(busy, tmp_path/'c.png', 4000), formats=['PNG']).mode=='RGBA'
    with pytest.raises(FsicError, match='does not fit into 1 kB'): show.save_figure(busy, tmp_path/'d.png', 1)
    assert sorted(p.name for p in tmp_path.iterdir())==['a.png', 'b.png', 'c.png']

def test_a_notebook_shows_a_reduced_figure(busy):
    assert len(show.small(busy, 40).data)<=40_000 and not plt.fignum_exists(busy.number)

def test_names_are_drawn_as_they_are():
    assert show.as_drawn('$5 or 5$')==r'\$5 or 5\$' and len(show.as_drawn('x'*10_000))==40
    assert '\n' not in show.as_drawn('a\nb') and '\u202e' not in show.as_drawn('a\u202eb')
    assert show.label_colours(['b', 'a'])==show.label_colours(['a', 'b', 'a'])
