"""What an autoscaling policy goes by, as gauges; policies run in Serve's controller."""

from collections.abc import Mapping

from ray.util.metrics import Gauge

STALLED = 1000.0  # what infinity is drawn as


class SignalGauges:
    """A policy's measurements with their targets, and the pressure that it makes of them."""

    def __init__(self) -> None:
        keys = ("application", "deployment")
        self._pressure = Gauge("serve_app_autoscaling_pressure", "1 is the target; more asks for replicas.", keys)
        self._signal = Gauge("serve_app_autoscaling_signal", "What is measured, of one replica.", (*keys, "signal"))
        self._most = Gauge("serve_app_autoscaling_max_replicas", "How many there may be.", keys)
        self._target = Gauge("serve_app_autoscaling_target", "What it should be at most.", (*keys, "signal"))

    def show(
        self,
        application: str,
        deployment: str,
        most: int,
        pressure: float,
        measured: Mapping[str, tuple[float, float]],
    ) -> None:
        labels = {"application": application, "deployment": deployment}
        self._most.set(most, labels)
        self._pressure.set(min(pressure, STALLED), labels)
        for name, (value, target) in measured.items():
            self._signal.set(value, {**labels, "signal": name})
            self._target.set(target, {**labels, "signal": name})
