"""Draw figures/report.png: the page that nbs/38_report.ipynb writes, in a headless browser.

    python tools/report.py
"""
import io, os
from collections import Counter
from pathlib import Path

os.environ['FSIC_PROGRESS'] = '0'

from execnb.nbio import read_nb
from execnb.shell import CaptureShell
from fastcore.xtras import working_directory
from PIL import Image
from playwright.sync_api import sync_playwright

import lab

root = Path(__file__).resolve().parents[1]
LIST = dict(width=760, height=530)     # the list; an opened photo is as large as it is
OPENED = dict(width=780, height=620)
MAX_BYTES = 150_000


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
    "Look at the page, twice as sharp as a screen."
    images = []
    with sync_playwright() as pw:
        browser = pw.chromium.launch(executable_path=lab.chromium(), args=['--no-sandbox'])
        for scheme, size in (('light', LIST), ('dark', OPENED)):
            p = browser.new_page(viewport=size, device_scale_factor=2, color_scheme=scheme)
            p.goto(page.as_uri())
            if scheme=='dark': p.get_by_role('button', name='chelsea.png').click()
            p.wait_for_timeout(500)
            what = p.locator('#photo') if scheme=='dark' else p
            images.append(Image.open(io.BytesIO(what.screenshot()), formats=['PNG']).convert('RGB'))
        browser.close()
    return images


def reduced(
    image, # an RGB image
    flat:list, # colours of the page itself, which are kept
    colours:int, # how many more there may be
): # an image with a palette
    "Reduce the colours of photographs, not those of the page around them."
    rest = image.quantize(colours, dither=Image.Dither.NONE).getpalette()
    palette = Image.new('P', (1, 1))
    palette.putpalette([v for c in flat for v in c]+rest[:3*colours])
    return image.quantize(palette=palette, dither=Image.Dither.NONE)


def main():
    "Write the figure with as many colours as its size allows."
    left, right = halves(written())
    both = Image.new('RGB', (left.width+right.width+48, left.height), 'white')
    both.paste(left, (0, 0))
    both.paste(right, (left.width+48, (left.height-right.height)//2))
    flat = [c for c, _ in Counter(both.get_flattened_data()).most_common(32)]
    both = both.resize((1760, round(1760*both.height/both.width)), Image.LANCZOS)
    for colours in (224, 160, 128, 96, 64, 48, 32):
        data = io.BytesIO()
        reduced(both, flat, colours).save(data, 'PNG', optimize=True)
        if len(data.getvalue())<=MAX_BYTES: break
    (root/'figures'/'report.png').write_bytes(data.getvalue())
    print(f'report.png: {len(data.getvalue())/1000:.0f} kB, {colours} colours')


if __name__=='__main__': main()
