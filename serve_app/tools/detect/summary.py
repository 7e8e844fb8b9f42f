"""What a person reads at the end of a run over a folder."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from serve_app.types import PictureResult

CLASSES_SHOWN = 10


def summary_of(took_ms: Sequence[float], total: int, results: Sequence[PictureResult], wall_s: float) -> list[str]:
    rows = [
        ("pictures", str(total)),
        ("failed or not done", str(total - len(results))),
        ("wall time", f"{wall_s:.2f} s ({len(results) / wall_s:.1f} pictures/s)"),
    ]
    if took_ms:
        p50, p90, p99 = np.percentile(took_ms, (50, 90, 99))
        rows.append(("inference time", f"p50 {p50:.1f} ms, p90 {p90:.1f} ms, p99 {p99:.1f} ms"))
    names = Counter(found.class_name for result in results for found in result.detections)
    shown = ", ".join(f"{count} {name}" for name, count in names.most_common(CLASSES_SHOWN))
    more = f" and {len(names) - CLASSES_SHOWN} classes more" if len(names) > CLASSES_SHOWN else ""
    rows.append(("detections", f"{names.total()}{': ' if shown else ''}{shown}{more}"))
    return [f"  {name:<22}{value}" for name, value in rows]
