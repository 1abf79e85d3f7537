"What every test shares: a quiet environment, real photos and a browser where there are any."
import os, sys
from pathlib import Path

# before anything imports numpy, torch or matplotlib
os.environ.update(FSIC_PROGRESS='0', MPLBACKEND='Agg')
for threads in ('OMP_NUM_THREADS', 'MKL_NUM_THREADS'): os.environ.setdefault(threads, '1')

import pytest

root = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(root/'tools'))


@pytest.fixture(scope='session')
def photos()->Path:
    "The folder with real photos (VOC and COCO trees), outside the repository."
    folder = Path(os.environ.get('FSIC_SHARED', root.parent/'shared'/'mlfsic'))
    if not (folder/'voc').is_dir(): pytest.skip(f'no real photos: {folder}/voc is absent; name their folder in FSIC_SHARED')
    return folder


@pytest.fixture(scope='session')
def browser():
    "A headless Chromium, where there is one."
    from playwright.sync_api import sync_playwright
    import lab
    if not lab.chromium(): pytest.skip('no chromium: nothing is looked at in a browser (Debian: apt install chromium)')
    with sync_playwright() as pw:
        b = pw.chromium.launch(executable_path=lab.chromium(), args=['--no-sandbox'])
        yield b
        b.close()
