"""Forwards a pod's ports over a websocket (v4.channel.k8s.io) to ports of this machine that a test has given.

Each port has two channels: data and error; the first message of each is the port, as two bytes.
"""

import asyncio

from aiohttp import WSMsgType, web

from kubernetes_api import failures, podstatus

PROTOCOLS = ("v4.channel.k8s.io",)


async def forward(cluster, target, request):
    pod = cluster.writing.read(target.kind, target.namespace, target.name)
    if not podstatus.is_running(pod):
        phase = pod.get("status", {}).get("phase", "Pending")
        raise failures.bad_request(f"unable to forward port because pod is not running. Current status={phase}")
    offered = request.headers.get("Sec-WebSocket-Protocol", "")
    if request.headers.get("Upgrade", "").lower() != "websocket" or not any(one in offered for one in PROTOCOLS):
        raise failures.bad_request("unable to upgrade: only websockets of v4.channel.k8s.io are served")
    ports = [int(port) for text in request.query.getall("ports", []) for port in text.split(",")]
    if not ports:
        raise failures.bad_request('query parameter "ports" is required')
    socket = web.WebSocketResponse(protocols=PROTOCOLS)
    await socket.prepare(request)
    links = [Link(socket, index, port, cluster.forwarded.get(port)) for index, port in enumerate(ports)]
    try:
        for link in links:
            await link.announce()
        async for message in socket:
            if message.type == WSMsgType.BINARY and message.data:
                index, kind = divmod(message.data[0], 2)
                if kind == 0 and index < len(links):
                    await links[index].send(message.data[1:])
    finally:
        for link in links:
            link.close()
    return socket


class Link:
    """One forwarded port: connected when the first bytes come."""

    def __init__(self, socket, index, port, local):
        self.socket, self.index, self.port, self.local = socket, index, port, local
        self.writer = self.reading = None

    async def announce(self):
        number = self.port.to_bytes(2, "little")
        await self.socket.send_bytes(bytes([self.index * 2]) + number)
        await self.socket.send_bytes(bytes([self.index * 2 + 1]) + number)

    async def send(self, data):
        if self.writer is None and not await self.connect():
            return
        self.writer.write(data)
        await self.writer.drain()

    async def connect(self):
        try:
            if self.local is None:
                raise ConnectionRefusedError
            reader, self.writer = await asyncio.open_connection("127.0.0.1", self.local)
        except OSError:
            message = (
                f"an error occurred forwarding {self.port} -> {self.port}: error forwarding port {self.port} to pod: "
                f"failed to connect to localhost:{self.port} inside namespace: connection refused"
            )
            await self.socket.send_bytes(bytes([self.index * 2 + 1]) + message.encode())
            return False
        self.reading = asyncio.create_task(self.relay(reader))
        return True

    async def relay(self, reader):
        while data := await reader.read(65536):
            await self.socket.send_bytes(bytes([self.index * 2]) + data)
        await self.socket.close()

    def close(self):
        if self.reading:
            self.reading.cancel()
        if self.writer:
            self.writer.close()
