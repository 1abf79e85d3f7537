"Write figures with photographs in them as PNG files of 256 colours."
from collections import Counter
from pathlib import Path

from PIL import Image


def write(image, path:Path):
    "Keep the commonest colours, those of pages and letters, as they are; dots too small to be seen make all others."
    flat = [c for c, _ in Counter(image.get_flattened_data()).most_common(24)]
    rest = image.reduce(4).quantize(256-len(flat), kmeans=1).getpalette()
    palette = Image.new('P', (1, 1))
    palette.putpalette([v for c in flat for v in c]+rest)
    image.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG).save(path, optimize=True)
    print(f'{path.name}: {image.width} x {image.height} pixels, {path.stat().st_size/1000:.0f} kB')
