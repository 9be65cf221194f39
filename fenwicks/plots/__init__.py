"""Every picture: what goes into a training, how it went, and what came out of it.

Each function returns a Matplotlib figure: in a notebook the last line of a cell shows it, elsewhere
`figure.savefig('curves.svg')` writes it. None of them uses `matplotlib.pyplot`, so they need no
display and leave no figure open. All take two keyword arguments:

- `axes`: the axes to draw into; by default those of a new figure.
- `theme`: `'light'`, dark ink on white paper, or `'dark'`. Within a theme the colours differ in
  lightness, and lines differ in their dashes or markers too, so a print in grey can be read.

Example:

```python
history = trainer.fit(images, labels, epochs=10)
figure = fenwicks.plots.learning_curves(history, ['loss'])
figure.savefig('curves.png')
```
"""

try:
    import matplotlib  # noqa: F401
except ImportError:
    raise ImportError('plots need Matplotlib: pip install matplotlib') from None

from fenwicks.plots.animation import Animation, animate, animate_augmentation
from fenwicks.plots.canvas import THEMES, Theme, check_path, save
from fenwicks.plots.classes import class_counts, confusion_matrix
from fenwicks.plots.comparisons import accuracy_against_time, differences
from fenwicks.plots.curves import learning_curves, learning_rate_finder, schedule
from fenwicks.plots.grids import augmentation, filters, images, mistakes

__all__ = [
    'THEMES',
    'Animation',
    'Theme',
    'accuracy_against_time',
    'animate',
    'animate_augmentation',
    'augmentation',
    'check_path',
    'class_counts',
    'confusion_matrix',
    'differences',
    'filters',
    'images',
    'learning_curves',
    'learning_rate_finder',
    'mistakes',
    'save',
    'schedule',
]
