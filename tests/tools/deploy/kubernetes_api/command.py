"""The command line: starts a cluster, listens with and without TLS, says where, and ends on a signal."""

import argparse
import asyncio
import json
import signal
import socket
from pathlib import Path

from aiohttp import web

from kubernetes_api.certificate import certificate
from kubernetes_api.cluster import Cluster
from kubernetes_api.player import Player
from kubernetes_api.web import application


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="of plain HTTP; 0 takes a free one")
    parser.add_argument("--pace", type=float, default=0.05, help="seconds that a state of what plays lasts")
    parser.add_argument("--crds", type=Path, help="folder of the CustomResourceDefinitions that are there at the start")
    parser.add_argument("--announce", type=Path, help="file that gets the addresses and the certificate as JSON")
    asyncio.run(serve(parser.parse_args()))


async def serve(arguments):
    cluster = Cluster(arguments.crds)
    player = Player(cluster, arguments.pace)
    runner = web.AppRunner(application(cluster, player), shutdown_timeout=0.2)
    await runner.setup()
    plain, secured = listener(arguments.port), listener(0)
    pem, context = certificate()
    await web.SockSite(runner, plain).start()
    await web.SockSite(runner, secured, ssl_context=context).start()
    playing = asyncio.create_task(player.play())
    url = f"http://127.0.0.1:{plain.getsockname()[1]}"
    if arguments.announce:
        addresses = {"url": url, "secure_url": f"https://127.0.0.1:{secured.getsockname()[1]}", "certificate": pem}
        arguments.announce.write_text(json.dumps(addresses))
    print(f"listening on {url}", flush=True)
    await until_a_signal()
    playing.cancel()
    await runner.cleanup()


def listener(port):
    found = socket.socket()
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    found.bind(("127.0.0.1", port))
    return found


async def until_a_signal():
    ended = asyncio.Event()
    for one in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(one, ended.set)
    await ended.wait()
