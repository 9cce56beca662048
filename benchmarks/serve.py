"""A run, clients on the loopback interface -> requests per second and latency of servers with the same model.

    .venv/bin/python benchmarks/serve.py runs/digits-1 photo.jpg --clients 1 8 32 128 --seconds 10
    .venv/bin/python benchmarks/serve.py runs/digits-1 photo.jpg --soak 50000

The servers: `vitreous serve`; a plain FastAPI application whose route calls `Predictor.predict`; and LitServe with
batches of up to 64 images and 5 ms of waiting, if it is installed. Each client sends one request after the other on a
connection of its own. Clients and server share the cores of the machine, so only the ratios of one file mean something.
The servers take turns in each round; the median over rounds is stored in benchmarks/results/HARDWARE/serve.json.
`--soak` sends this number of requests to `vitreous serve` and prints how much its memory grows per 10,000 of them.
"""

import argparse
import asyncio
import base64
import importlib.util
import json
import os
import re
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PLAIN = """
import sys, uvicorn
from fastapi import FastAPI, Request
from vitreous.threads import let_threads_sleep
let_threads_sleep()
from vitreous.use.predict.predictor import Predictor
from starlette.concurrency import run_in_threadpool
predictor, app = Predictor.load(sys.argv[1]), FastAPI()
@app.post("/predict")
async def predict(request: Request):
    (found,) = await run_in_threadpool(predictor.predict, [await request.body()])
    return found.as_dict(predictor.classes)
uvicorn.run(app, port=int(sys.argv[2]), log_level="error")
"""
LITSERVE = """
import base64, sys
import litserve
from vitreous.threads import let_threads_sleep
let_threads_sleep()
from vitreous.use.predict.predictor import Predictor
class API(litserve.LitAPI):
    def setup(self, device):
        self.predictor = Predictor.load(sys.argv[1])
    def decode_request(self, request):
        return base64.b64decode(request["image"])
    def predict(self, images):
        return self.predictor.predict(list(images))
    def unbatch(self, output):
        return output
    def encode_response(self, output):
        return output.as_dict(self.predictor.classes)
if __name__ == "__main__":
    api = API(max_batch_size=64, batch_timeout=0.005)
    litserve.LitServer(api, accelerator="cpu").run(port=int(sys.argv[2]), generate_client_file=False, log_level="error")
"""


def command_of(server: str, run: str, port: int, folder: Path) -> list[str]:
    """Return the command that starts a server; LitServe starts processes, which need a file."""
    if server == "vitreous":
        return [sys.executable, "-m", "vitreous", "serve", run, "--port", str(port), "--max-waiting", "1024"]
    script = folder / "server.py"
    script.write_text({"plain FastAPI": PLAIN, "LitServe": LITSERVE}[server])
    return [sys.executable, str(script), run, str(port)]


async def load(port: int, body: bytes, kind: str, num_clients: int, seconds: float) -> dict[str, float]:
    """Ask with some clients for some seconds; return requests per second, and latencies in ms."""
    head = f"POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {kind}\r\n"
    request = f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
    end, latencies, errors = time.perf_counter() + seconds, [], 0

    async def client() -> None:
        nonlocal errors
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while (began := time.perf_counter()) < end:
            writer.write(request)
            answer = await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(int(re.search(rb"(?i)content-length: (\d+)", answer)[1]))
            latencies.append(time.perf_counter() - began)
            errors += not answer.startswith(b"HTTP/1.1 200")
        writer.close()

    await asyncio.gather(*(client() for _ in range(num_clients)))
    latencies.sort()
    found = {"requests_per_s": len(latencies) / seconds, "errors": errors}
    for percent in (50, 99):
        found[f"p{percent}_ms"] = 1000 * latencies[min(len(latencies) - 1, len(latencies) * percent // 100)]
    return {name: round(value, 2) for name, value in found.items()}


@contextmanager
def serving(server: str, run: str, image: bytes) -> Iterator[tuple[int, Callable[..., dict[str, float]]]]:
    """Start a server, and give the number of its process and the function that asks it."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    folder = tempfile.TemporaryDirectory()
    command = command_of(server, run, port, Path(folder.name))
    silent = subprocess.DEVNULL
    process = subprocess.Popen(command, stdout=silent, stderr=silent, start_new_session=True)
    body, kind = image, "application/octet-stream"
    if server == "LitServe":
        body, kind = json.dumps({"image": base64.b64encode(image).decode()}).encode(), "application/json"
    try:
        end = time.monotonic() + 120
        while True:
            try:
                asyncio.run(load(port, body, kind, 1, 0.5))  # also warms up
                break
            except (OSError, asyncio.IncompleteReadError):
                assert process.poll() is None, f"{server} has ended"
                assert time.monotonic() < end, f"{server} does not start"
                time.sleep(0.2)
        yield process.pid, lambda count, seconds: asyncio.run(load(port, body, kind, count, seconds))
    finally:
        process.terminate()
        process.wait(60)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # LitServe leaves processes behind, which go on computing
        folder.cleanup()


def measure(server: str, run: str, image: bytes, clients: list[int], seconds: float) -> dict[str, dict[str, float]]:
    """Start a server, and return what each number of clients gets from it."""
    with serving(server, run, image) as (_, ask):
        return {str(count): ask(count, seconds) for count in clients}


def soak(run: str, image: bytes, num_requests: int) -> None:
    """Print the memory of `vitreous serve` while it answers, and its growth after the first 10,000 requests."""
    with serving("vitreous", run, image) as (pid, ask):
        done, grown = 0, []
        while done < num_requests:
            done += round(ask(8, 5.0)["requests_per_s"] * 5.0)
            resident = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
            grown.append((done, int(resident[1]) / 1000))
            print(f"{done:,} requests: {grown[-1][1]:.1f} MB", flush=True)
        (first, before), (last, after) = next(each for each in grown if each[0] >= min(10_000, done)), grown[-1]
        print(
            f"{10_000 * (after - before) / max(1, last - first):+.2f} MB per 10,000 requests after the first {first:,}"
        )


def table_rows(runs: dict[str, dict]) -> list[str]:
    """Return the rows of docs/serve.md: requests per second, and median and 99th percentile of the latency."""
    rows = []
    for name, stored in runs.items():
        for count in next(iter(stored["clients"].values())):
            found = [by_count[count] for by_count in stored["clients"].values()]
            cells = [f"{each['requests_per_s']:.0f} ({each['p50_ms']:.0f} / {each['p99_ms']:.0f})" for each in found]
            rows.append(f"| {name} | {count} | {' | '.join(cells)} |")
    return rows


def main() -> None:
    """Measure, store, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run")
    parser.add_argument("image", type=Path)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 32, 128])
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--soak", type=int, default=0)
    options = parser.parse_args()
    if options.soak:
        soak(options.run, options.image.read_bytes(), options.soak)
        return
    from results import command_line, results_file

    servers = ["vitreous", "plain FastAPI"] + ["LitServe"] * (importlib.util.find_spec("litserve") is not None)
    rounds = [
        {server: measure(server, options.run, options.image.read_bytes(), options.clients, options.seconds)
         for server in servers}
        for _ in range(options.rounds)
    ]  # fmt: skip
    path, stored = results_file("serve")
    measured = {
        server: {
            count: {key: statistics.median(each[server][count][key] for each in rounds) for key in found}
            for count, found in rounds[0][server].items()
        }
        for server in servers
    }
    stored.setdefault("runs", {})[Path(options.run).name] = {"command": command_line(), "clients": measured}
    print("\n".join(table_rows(stored["runs"])))
    path.write_text(json.dumps(stored, indent=1) + "\n")


if __name__ == "__main__":
    main()
