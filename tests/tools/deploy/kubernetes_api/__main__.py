"""Starts the server: `python tests/tools/deploy/kubernetes_api --port 0`."""

import sys
from pathlib import Path

# the package's own folder would stand before the standard library's modules of the same names
sys.path[0] = str(Path(__file__).resolve().parent.parent)

from kubernetes_api.command import main  # noqa: E402

if __name__ == "__main__":
    main()
