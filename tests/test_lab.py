"Notebooks as readers run them: Restart Kernel and Run All Cells in JupyterLab, where there is a browser (see tools/lab.py)."
import ast, json, os, subprocess, sys

import pytest

import lab, notebooks
from house import parsed

# `python tools/lab.py` runs them all; here the index, below 12_lcm with its slider; where there is time, the paper and what users of photographs read
chosen = ['index', *['09_paper', '16_named']*(os.environ.get('FSIC_SLOW')=='1')]


def one(folder, *cells, name='one'):
    "A notebook of these code cells."
    (folder/f'{name}.ipynb').write_text(json.dumps(dict(nbformat=4, nbformat_minor=5, metadata=dict(kernelspec=dict(name='python3', display_name='Python 3')), cells=[
        dict(cell_type='code', id=f'c{i}', metadata={}, source=c, outputs=[], execution_count=None) for i, c in enumerate(cells)])))
    return [folder/f'{name}.ipynb']


@pytest.mark.parametrize('stem', chosen)
def test_index_and_chapters_run_in_jupyterlab(browser, stem, capsys):
    assert lab.run(browser, [notebooks.nbs/f'{stem}.ipynb']), capsys.readouterr().out


def test_an_error_ends_the_run_and_what_is_red_is_told(browser, tmp_path, capsys):
    bar = "from fsic_nb.core import progress\nfor _ in progress(range(3), desc='counting'): pass"
    red = one(tmp_path, bar, "import warnings\nwarnings.warn('too late')", '2', name='red')
    assert not lab.run(browser, one(tmp_path, '1', '1/0', '2')+red)
    error, told, _ = capsys.readouterr().out.splitlines()
    assert '2 of   3 cells  cell 1: ZeroDivisionError: division by zero' in error
    assert '3 of   3 cells  cell 1, in red: ' in told


def test_a_notebook_that_never_ends_is_told(browser, tmp_path, capsys):
    assert not lab.run(browser, one(tmp_path, 'while True: pass'), timeout=3)
    assert 'not done in time' in capsys.readouterr().out


def test_a_picture_belongs_to_the_position_of_its_slider(browser):
    "The one in 12_lcm, slowly, so fast that the kernel cannot follow, and by the mouse."
    def slide(page, stem):
        picture, handle = page.locator('.widget-interact img'), page.locator('.widget-interact .noUi-handle')
        handle.scroll_into_view_if_needed()
        def shows(test, src): page.wait_for_function(f'src => document.querySelector(".widget-interact img")?.src {test} src', arg=src, timeout=30_000)
        slow = [picture.get_attribute('src')]
        for key in ['ArrowRight']*3+['End']:
            handle.press(key)
            shows('!=', slow[-1])
            slow.append(picture.get_attribute('src'))
        assert len(set(slow))==5
        for key in ['Home', *['ArrowRight']*9, *['ArrowLeft']*4]: handle.press(key)   # .05, .5 and .3: the first step of above
        shows('==', slow[1])
        at, end = handle.bounding_box(), page.locator('.widget-interact .noUi-base').bounding_box()
        page.mouse.move(at['x']+at['width']/2, at['y']+at['height']/2)
        page.mouse.down()
        page.mouse.move(end['x']+end['width']+40, at['y']+at['height']/2, steps=20)
        page.wait_for_timeout(1500)
        assert picture.get_attribute('src')==slow[1], 'it is drawn anew before the mouse is let go'
        page.mouse.up()
        shows('==', slow[4])
        assert page.locator('.widget-interact .widget-label').inner_text()=='share kept'
    assert lab.run(browser, [notebooks.nbs/'12_lcm.ipynb'], look=slide)


def test_every_slider_has_a_name_and_waits_for_the_mouse():
    "A picture that is drawn at every position on the way lags behind."
    code = [(p.stem, parsed(''.join(c['source'])))
            for p in notebooks.notebooks() for c in json.loads(p.read_text(encoding='utf-8'))['cells'] if c['cell_type']=='code']
    calls = [(stem, o) for stem, tree in code for o in ast.walk(tree) if isinstance(o, ast.Call)]
    sliders = [(stem, {k.arg: k.value for k in o.keywords}) for stem, o in calls if ast.unparse(o.func).endswith('Slider')]
    assert sliders
    for stem, given in sliders: assert given['description'].value and given['continuous_update'].value is False, stem
    for stem, o in calls:   # `interact(f, x=(0, 1))` would make one that has neither
        if ast.unparse(o.func).split('.')[-1] in ('interact', 'interactive'):
            assert all(isinstance(k.value, (ast.Name, ast.Call)) for k in o.keywords), stem


def test_what_is_not_there_is_named():
    for args, said in ((['99_none'], 'No such notebook'), (['--parts', '9'], 'No such part: 9')):
        p = subprocess.run([sys.executable, lab.__file__, *args], capture_output=True, text=True)
        assert p.returncode and (said in p.stderr or 'No chromium' in p.stderr)
