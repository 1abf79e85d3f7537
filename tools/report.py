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

import lab

root = Path(__file__).resolve().parents[1]
SIZE = dict(width=760, height=620)   # of each half of the figure
MAX_BYTES = 150_000


def written()->Path: # an HTML file
    "Run the notebook up to the page that it writes."
    with working_directory(root/'nbs'):
        shell = CaptureShell()
        for cell in read_nb('38_report.ipynb').cells:
            if cell.cell_type!='code': continue
            shell.run(cell.source)
            if 'page' in shell.user_ns: return shell.user_ns['page']


def halves(
    page:Path, # the HTML file
)->list: # images: the list in the light, an opened photo in the dark
    "Look at the page, twice as sharp as a screen."
    images = []
    with sync_playwright() as pw:
        browser = pw.chromium.launch(executable_path=lab.chromium(), args=['--no-sandbox'])
        for scheme in ('light', 'dark'):
            p = browser.new_page(viewport=SIZE, device_scale_factor=2, color_scheme=scheme)
            p.goto(page.as_uri())
            if scheme=='dark': p.get_by_role('button', name='motorcycle_left.png').click()
            p.wait_for_timeout(500)
            images.append(Image.open(io.BytesIO(p.screenshot())).convert('RGB'))
        browser.close()
    return images


def main():
    "Write the figure with as many colours as its size allows."
    left, right = halves(written())
    both = Image.new('RGB', (left.width+right.width+24, left.height), 'white')
    both.paste(left, (0, 0))
    both.paste(right, (left.width+24, 0))
    both = both.resize((1800, round(1800*both.height/both.width)), Image.LANCZOS)
    for colours in (256, 192, 128, 96, 64, 48, 32):
        data = io.BytesIO()
        both.quantize(colours, dither=Image.Dither.NONE).save(data, 'PNG', optimize=True)
        if len(data.getvalue())<=MAX_BYTES: break
    (root/'figures'/'report.png').write_bytes(data.getvalue())
    print(f'report.png: {len(data.getvalue())/1000:.0f} kB, {colours} colours')


if __name__=='__main__': main()
