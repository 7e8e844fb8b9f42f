"""The GPU and library versions, as a fake driver and this machine's report them."""

import ctypes

import pytest

from serve_app.triton.plans.gpu import Gpu, driver_version, find_gpu, library_version


class FakeDriver:
    """Answers as libcuda.so.1 does: a status, and values through pointers."""

    def __init__(self, failing=None):
        self.failing = failing
        self.loaded = []

    def load(self, name):
        self.loaded.append(name)
        return self

    def _status(self, call):
        return 100 if call == self.failing else 0

    def cuInit(self, flags):  # noqa: N802 - the driver's own name, as all below
        assert flags == 0
        return self._status("cuInit")

    def cuDeviceGet(self, device, ordinal):  # noqa: N802
        assert ordinal == 0
        device._obj.value = 7
        return self._status("cuDeviceGet")

    def cuDeviceGetName(self, name, size, device):  # noqa: N802
        assert device.value == 7
        name.value = b"NVIDIA H100 80GB HBM3"[: size - 1]
        return self._status("cuDeviceGetName")

    def cuDeviceGetAttribute(self, value, attribute, device):  # noqa: N802
        assert device.value == 7
        value._obj.value = {75: 9, 76: 0}[attribute]
        return self._status("cuDeviceGetAttribute")

    def cuDriverGetVersion(self, version):  # noqa: N802
        version._obj.value = 12040
        return self._status("cuDriverGetVersion")


def missing(name):
    raise OSError(f"{name}: cannot open shared object file")


def test_a_fake_driver_reports_the_first_gpu_and_the_newest_cuda():
    driver = FakeDriver()
    assert find_gpu(driver.load) == Gpu("NVIDIA H100 80GB HBM3", (9, 0))
    assert driver.loaded == ["libcuda.so.1"]
    assert driver_version(driver.load) == "12.4"


def test_without_a_driver_or_with_a_fake_one_that_fails_there_is_no_gpu():
    for call in ("cuInit", "cuDeviceGet", "cuDeviceGetName", "cuDeviceGetAttribute"):
        assert find_gpu(FakeDriver(call).load) is None, call
    assert driver_version(FakeDriver("cuDriverGetVersion").load) is None
    assert find_gpu(missing) is None
    assert driver_version(missing) is None


def test_this_machine_is_queried_without_an_error():
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        assert find_gpu() is None
        assert driver_version() is None
    else:
        gpu = find_gpu()
        assert gpu is None or (gpu.name and gpu.capability >= (5, 0))


@pytest.mark.parametrize(("number", "version"), [(101302, "10.13.2"), (110000, "11.0.0")])
def test_the_version_of_a_fake_library_is_read_and_without_one_there_is_none(number, version):
    class FakeLibrary:
        def getInferLibVersion(self):  # noqa: N802
            return number

    assert library_version(lambda name: FakeLibrary() if name.endswith(".10") else missing(name)) == version
    assert library_version(missing) is None
