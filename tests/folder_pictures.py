"""A folder of pictures of four classes: JPEGs and PNGs of mixed sizes and modes."""

import numpy as np
from PIL import Image

COLOURS = {
    'red fox': (200, 60, 60),
    'grün': (60, 200, 60),
    'blue': (60, 60, 200),
    'grey': (128, 128, 128),
}
MODES = ('RGB', 'RGBA', 'P', 'L', 'CMYK', 'RGB')


def make(root, count=12, sides=(20, 30, 40), seed=0):
    """Writes `count` pictures of each class, which is their colour; returns `root`."""
    random = np.random.default_rng(seed)
    for name, colour in COLOURS.items():
        folder = root / name
        folder.mkdir(parents=True)
        for number in range(count):
            height = sides[number % len(sides)]
            width = sides[(number + 1) % len(sides)]
            noise = random.normal(0, 30, (height, width, 3))
            pixels = np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)
            mode = MODES[number % len(MODES)]
            mode = 'RGB' if mode == 'L' and name != 'grey' else mode
            suffix = 'jpg' if mode == 'CMYK' or number % len(MODES) == 0 else 'png'
            Image.fromarray(pixels).convert(mode).save(folder / f'{number} .{suffix}')
    return root
