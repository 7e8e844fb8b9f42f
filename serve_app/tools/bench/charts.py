"""Charts as files: a figure to draw on, written as PNG when it is done."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def chart(path: Path, *grid: int, **options: Any) -> Iterator[tuple[Any, Any]]:
    """A figure and its axes, as pyplot.subplots makes them; matplotlib is imported where something is drawn."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(*grid, **options)
    try:
        yield figure, axes
        figure.tight_layout()
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=90)
    finally:
        pyplot.close(figure)
