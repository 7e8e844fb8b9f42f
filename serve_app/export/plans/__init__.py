"""From an ONNX graph to a TensorRT plan for the GPU of this machine: built once, in a process of its own, and kept."""

from serve_app.export.plans.builder import Profile
from serve_app.export.plans.cache import PlanCache
from serve_app.export.plans.gpu import Gpu, driver_version, find_gpu
from serve_app.export.plans.local import LocalPlans
from serve_app.export.plans.progress import Report

__all__ = ["Gpu", "LocalPlans", "PlanCache", "Profile", "Report", "driver_version", "find_gpu"]
