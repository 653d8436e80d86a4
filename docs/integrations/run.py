#!/usr/bin/env python3
r"""Runs a scene or the comparison on the three servers, before and after.

    run.py scenes NAME...                           outage, descriptors
    run.py end NAME...                              the end, five rounds each, plain and busy
    run.py compare NAME... [blocks COUNT]           CPU and wall time of short connections, in ABBA blocks

NAME is mini-redis, tiny_http or static-web-server. In BIN (default: bin) are the programs mr-before, mr-after,
th-before, th-after, sws-before, sws-after, and load. Needs two cores: the load runs on core 0, the servers on core 1.

To make the programs (needs cargo, patch and python3; CRATE is this repository):

    cargo new unpack && cd unpack
    cargo add mini-redis@=0.4.1 tiny_http@=0.12.0 static-web-server@=3.0.0-beta.2
    cargo vendor --versioned-dirs && cd ..
    for p in mini-redis-0.4.1 tiny_http-0.12.0 static-web-server-3.0.0-beta.2; do
      mkdir -p before after; cp -r unpack/vendor/$p before/; cp -r unpack/vendor/$p after/
      patch -d after/$p -p1 < $CRATE/docs/integrations/$p.diff
      mkdir after/$p/.cargo
      printf '[patch.crates-io]\nepoll-acceptor = { path = "%s" }\n' $CRATE > after/$p/.cargo/config.toml
    done
    rustc -O --edition 2021 $CRATE/docs/integrations/load.rs -o bin/load

Build each with `cargo build --release`, mini-redis's "before" with the Cargo.lock of its "after". tiny_http is a library: its
server is tiny_http_server.rs, in two packages with signal-hook 0.3, of which that for "after" has a feature `after`. Then:

    run.py scenes mini-redis tiny_http static-web-server
    run.py end mini-redis tiny_http static-web-server
    run.py compare mini-redis tiny_http static-web-server blocks 12

The servers' own tests: `cargo test` in each; for tiny_http first `cargo update -p rustc-serialize`. One of mini-redis fails
with today's tokio, six of static-web-server without the fixtures that its package lacks.
"""

import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time

BIN = os.environ.get("BIN", "bin")
HERE = os.path.dirname(os.path.abspath(__file__))
LOAD = f"{BIN}/load"
ROOT = tempfile.mkdtemp()
open(f"{ROOT}/index.html", "w").write("hello\n")
ports = iter(range(int(os.environ.get("PORT", "21000")), 65000))


class Server:
    """A server on a port of its own."""

    def __init__(self, name, which, limit=None):
        self.port = next(ports)
        self.protocol, self.signal = "http", "TERM"
        if name == "mini-redis":
            command = [f"{BIN}/mr-{which}", "--port", str(self.port)]
            self.protocol, self.signal = "redis", "INT"  # the one it handles
        elif name == "tiny_http":
            command = [f"{BIN}/th-{which}", str(self.port)]
            if limit and which == "after":
                command.append(str(limit))
        else:
            command = [f"{BIN}/sws-{which}", "-a", "127.0.0.1", "-p", str(self.port), "-d", ROOT]
            if limit and which == "after":
                command += ["--max-connections", str(limit)]
        quiet = subprocess.DEVNULL
        log = open(os.environ["LOG"], "a") if "LOG" in os.environ else quiet
        self.process = subprocess.Popen(command, stdout=log, stderr=log, preexec_fn=lambda: os.sched_setaffinity(0, {1}))
        for _ in range(100):
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                break
            except OSError:
                time.sleep(0.05)

    @property
    def pid(self):
        return str(self.process.pid)

    def cpu(self):
        return time.clock_gettime((~self.process.pid << 3) | 2)

    def close(self):
        self.process.kill()
        self.process.wait()


def load(*arguments):
    run = subprocess.run([LOAD, *map(str, arguments)], capture_output=True, text=True, preexec_fn=lambda: os.sched_setaffinity(0, {0}))
    return run.stdout.strip() or run.stderr.strip()


def scenes(name):
    for which in ("before", "after"):
        print(f"{name} {which}", flush=True)
        limit = 250 if name == "mini-redis" else 4
        for scene, *extra in (("outage", str(limit)), ("emfile",)):
            server = Server(name, which, limit if scene == "outage" else None)
            print(f" {scene}", flush=True)
            subprocess.run([f"{HERE}/scenes.py", scene, str(server.port), server.pid, *extra, server.protocol])
            server.close()


def end(name):
    for busy in ([], ["busy"]):
        for which in ("before", "after"):
            for _ in range(5):
                server = Server(name, which)
                begin = time.time()
                result = load("end", server.port, server.pid, server.signal, server.protocol, *busy)
                try:
                    server.process.wait(15)
                    ended = f"ended {time.time() - begin:.1f} s after the begin"
                except subprocess.TimeoutExpired:
                    ended = "still runs after 15 s"
                server.close()
                print(f"{name} {which} {' '.join(busy)} {result} {ended}", flush=True)


def compare(name, blocks):
    servers = [Server(name, "before"), Server(name, "after")]
    count = int(os.environ.get("COUNT", "3000"))
    for concurrency in (1, 32):
        for server in servers:
            load("short", server.port, 500, concurrency, server.protocol)  # warm
        ratios, cpus = {"cpu": [], "wall": []}, ([], [])
        for _ in range(blocks):
            sums = {"cpu": [0, 0], "wall": [0, 0]}
            for which in (0, 1, 1, 0):
                server, begin = servers[which], servers[which].cpu()
                wall = int(load("short", server.port, count, concurrency, server.protocol))
                spent = (server.cpu() - begin) / count * 1e9
                cpus[which].append(spent)
                sums["cpu"][which] += spent
                sums["wall"][which] += wall
            for kind, (before, after) in sums.items():
                ratios[kind].append(after / before)
        for kind, values in ratios.items():
            quartiles = statistics.quantiles(values, n=4)
            print(f"{name}, {concurrency} at a time, {kind}: after/before {statistics.median(values):.3f} (quartiles {quartiles[0]:.3f} to {quartiles[2]:.3f}, {min(values):.3f} to {max(values):.3f}), {blocks} blocks", flush=True)
        print(f"  CPU per connection, median: {statistics.median(cpus[0]) / 1000:.1f} us before, {statistics.median(cpus[1]) / 1000:.1f} us after", flush=True)
    for server in servers:
        server.close()


signal.alarm(1500)
what, *names = sys.argv[1:]
blocks = int(names.pop()) if "blocks" in names else 12
for name in names:
    if name != "blocks":
        {"scenes": scenes, "end": end}[what](name) if what != "compare" else compare(name, blocks)
