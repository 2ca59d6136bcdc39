"""Sends requests on a steady beat and counts the answers: `python flood_process.py PORT PER_SECOND SECONDS FILE`.

FILE holds the requests, a blank line with a dot between two. Prints how many answers were 401.
"""

import asyncio
import itertools
import sys
from pathlib import Path

import uvloop

CONNECTIONS = 10


async def flood(port: int, per_second: int, seconds: float, requests: list[bytes]) -> int:
    loop = asyncio.get_running_loop()
    begun = loop.time()
    turns = itertools.count()
    refused = 0

    async def send(number: int) -> None:
        nonlocal refused
        due = begun + number / per_second
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while due < begun + seconds:
            await asyncio.sleep(max(0.0, due - loop.time()))
            due += CONNECTIONS / per_second
            writer.write(requests[next(turns) % len(requests)])
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
            await reader.readexactly(length)
            refused += head.startswith(b"HTTP/1.1 401")
        writer.close()

    await asyncio.gather(*(send(number) for number in range(CONNECTIONS)))
    return refused


if __name__ == "__main__":
    port, per_second, seconds, file = sys.argv[1:]
    print(uvloop.run(flood(int(port), int(per_second), float(seconds), Path(file).read_bytes().split(b"\n.\n"))))
