"""Pictures at a rate that doesn't wait for answers, from a process of its own.

python -m tests.e2e.open_loop URL PATH FILE RATE SECONDS
"""

import asyncio
import json
import sys
import time
from pathlib import Path

from serve_app.tools.bench.connection import Connection, build_post

TIMEOUT_S = 120


async def run(url, path, picture, rate, seconds):
    request = build_post(url, path, picture)
    idle, outcomes, tasks = [], [], set()

    async def ask():
        began = time.time()
        try:
            connection = idle.pop() if idle else await Connection.open(url)
            answer = await connection.send(request, TIMEOUT_S)
            status = answer.status
            idle.append(connection)
        except (OSError, TimeoutError) as problem:
            status = repr(problem)
        outcomes.append((status, began, time.time()))

    began = time.monotonic()
    for number in range(int(rate * seconds)):
        await asyncio.sleep(max(0, began + number / rate - time.monotonic()))
        task = asyncio.create_task(ask())
        tasks.add(task)
        task.add_done_callback(tasks.discard)
    await asyncio.gather(*tasks)
    return outcomes


if __name__ == "__main__":
    url, path, file, rate, seconds = sys.argv[1:]
    print(json.dumps(asyncio.run(run(url, path, Path(file).read_bytes(), float(rate), float(seconds)))))
