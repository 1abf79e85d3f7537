"""Draw figures/report.png: the page that nbs/38_report.ipynb writes, in a headless browser.

    python tools/report.py
"""
import io, os
from pathlib import Path

os.environ['FSIC_PROGRESS'] = '0'

from execnb.nbio import read_nb
from execnb.shell import CaptureShell
from fastcore.xtras import working_directory
from PIL import Image
from playwright.sync_api import sync_playwright

import figures, lab

root = Path(__file__).resolve().parents[1]
HALF = dict(width=552, height=836)     # so narrow that README's width shows its text at four fifths of its size
SCALE = 2                              # pixels of the figure for one of a screen


def written()->Path: # an HTML file
    "Run the notebook up to the page that it writes."
    with working_directory(root/'nbs'):
        shell = CaptureShell()
        for cell in read_nb('38_report.ipynb').cells:
            if cell.cell_type!='code': continue
            shell.run(cell.source)
            if shell.exc: raise shell.exc
            if 'page' in shell.user_ns: return shell.user_ns['page']


def halves(
    page:Path, # the HTML file
)->list: # images: the list in the light, an opened photo in the dark
    "Look at the page, sharper than a screen."
    images = []
    with sync_playwright() as pw:
        browser = pw.chromium.launch(executable_path=lab.chromium(), args=['--no-sandbox'])
        for scheme in ('light', 'dark'):
            p = browser.new_page(viewport=HALF, device_scale_factor=SCALE, color_scheme=scheme)
            p.goto(page.as_uri())
            if scheme=='light': p.get_by_role('combobox', name='Sort').select_option('by best score')
            else: p.get_by_role('button', name='chelsea.png').click()
            p.mouse.move(1, 1)                 # over nothing
            p.wait_for_timeout(500)
            images.append(Image.open(io.BytesIO(p.screenshot()), formats=['PNG']).convert('RGB'))
        browser.close()
    return images


def main():
    "Write the figure: both halves side by side, without a gap, since no colour of a gap suits every page."
    left, right = halves(written())
    both = Image.new('RGB', (left.width+right.width, left.height))
    both.paste(left, (0, 0))
    both.paste(right, (left.width, 0))
    figures.write(both, root/'figures'/'report.png')


if __name__=='__main__': main()
