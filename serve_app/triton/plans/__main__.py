"""`python -m serve_app.triton.plans`: the process that a plan is built in."""

import os
import sys

from serve_app.triton.plans.command import main

main()
sys.stdout.flush()
# TensorRT's registry of plugins keeps the logger, and Python would take it away before TensorRT's libraries are ended:
# a crash there would look like a build that failed.
os._exit(0)
