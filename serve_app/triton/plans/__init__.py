"""Builds TensorRT plans from ONNX graphs for the GPU of this machine, each in a separate process, and keeps them."""

from serve_app.triton.plans.builder import Profile
from serve_app.triton.plans.cache import LocalPlans, PlanCache
from serve_app.triton.plans.gpu import Gpu, driver_version, find_gpu
from serve_app.triton.plans.progress import Report

__all__ = ["Gpu", "LocalPlans", "PlanCache", "Profile", "Report", "driver_version", "find_gpu"]
