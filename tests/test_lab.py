"Notebooks as readers run them: Restart Kernel and Run All Cells in JupyterLab, where there is a browser (see tools/lab.py)."
import json, subprocess, sys

import pytest

import lab, notebooks

# `python tools/lab.py` runs them all; here the index, the paper, the slider, and what users of photographs read
chosen = ['index', '09_paper', '12_lcm', '16_named']


def one(folder, *cells):
    "A notebook of these code cells."
    (folder/'one.ipynb').write_text(json.dumps(dict(nbformat=4, nbformat_minor=5, metadata=dict(kernelspec=dict(name='python3', display_name='Python 3')), cells=[
        dict(cell_type='code', id=f'c{i}', metadata={}, source=c, outputs=[], execution_count=None) for i, c in enumerate(cells)])))
    return [folder/'one.ipynb']


@pytest.mark.parametrize('stem', chosen)
def test_index_and_chapters_run_in_jupyterlab(browser, stem, capsys):
    assert lab.run(browser, [notebooks.nbs/f'{stem}.ipynb']), capsys.readouterr().out


def test_an_error_is_told_and_ends_the_run(browser, tmp_path, capsys):
    assert not lab.run(browser, one(tmp_path, '1', '1/0', '2'))
    assert '2 of   3 cells  cell 1: ZeroDivisionError: division by zero' in capsys.readouterr().out


def test_a_notebook_that_never_ends_is_told(browser, tmp_path, capsys):
    assert not lab.run(browser, one(tmp_path, 'while True: pass'), timeout=3)
    assert 'not done in time' in capsys.readouterr().out


def test_a_slider_moves_its_picture(browser):
    "The one in 12_lcm: a step to the right shows another picture."
    def slide(page, stem):
        picture, handle = page.locator('.widget-interact img'), page.locator('.widget-interact .noUi-handle')
        handle.scroll_into_view_if_needed()
        before = picture.get_attribute('src')
        handle.press('ArrowRight')
        page.wait_for_function('before => document.querySelector(".widget-interact img")?.src != before', arg=before, timeout=30_000)
    assert lab.run(browser, [notebooks.nbs/'12_lcm.ipynb'], look=slide)


def test_what_is_not_there_is_named():
    for args, said in ((['99_none'], 'No such notebook'), (['--parts', '9'], 'No such part: 9')):
        p = subprocess.run([sys.executable, lab.__file__, *args], capture_output=True, text=True)
        assert p.returncode and (said in p.stderr or 'No chromium' in p.stderr)
