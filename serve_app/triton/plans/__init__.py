"""From an ONNX graph to a TensorRT plan for the GPU of this machine: built once, in a process of its own, and kept."""

from serve_app.triton.plans.builder import Profile
from serve_app.triton.plans.cache import PlanCache
from serve_app.triton.plans.gpu import Gpu, driver_version, find_gpu
from serve_app.triton.plans.local import LocalPlans
from serve_app.triton.plans.progress import Report

__all__ = ["Gpu", "LocalPlans", "PlanCache", "Profile", "Report", "driver_version", "find_gpu"]
