"""What plays in the cluster, a turn at a time: the kubelets, the built-in controllers, KubeRay's operator."""

import asyncio
import traceback

from kubernetes_api.endpoints import Endpoints
from kubernetes_api.events import Events
from kubernetes_api.kubelet import Kubelets
from kubernetes_api.kuberay.raycluster import RayClusters
from kubernetes_api.kuberay.rayservice import RayServices
from kubernetes_api.provisioning import Provisioning


class Player:
    def __init__(self, cluster, pace):
        self.cluster, self.pace, self.first_pace = cluster, pace, pace
        self.epoch, self.waiting = None, []

    async def play(self):
        while True:
            try:
                self.turn()
            except Exception:  # the test's to see: its fixture asks for errors
                self.cluster.errors.append(traceback.format_exc())
            self.tell_waiting()
            await asyncio.sleep(self.pace)

    async def turned(self):
        """Returns after the next turn."""
        waiter = asyncio.get_running_loop().create_future()
        self.waiting.append(waiter)
        await waiter

    def tell_waiting(self):
        waiting, self.waiting = self.waiting, []
        for waiter in waiting:
            waiter.set_result(None)

    def turn(self):
        if self.epoch is not self.cluster.epoch:
            self.start_anew()
        self.cluster.deletion.collect()
        self.provisioning.turn()
        self.kubelets.turn()
        self.endpoints.turn()
        if not self.cluster.troubles.named("no_operator"):
            self.clusters.turn()
            self.services.turn()

    def playing(self):
        """Who plays, with all that they remember."""
        return {name: value for name, value in vars(self).items() if name not in ("cluster", "waiting")}

    def start_anew(self):
        self.epoch = self.cluster.epoch
        events = Events(self.cluster)
        self.kubelets = Kubelets(self.cluster, events)
        self.provisioning = Provisioning(self.cluster)
        self.endpoints = Endpoints(self.cluster)
        self.clusters = RayClusters(self.cluster, events)
        self.services = RayServices(self.cluster, events)
