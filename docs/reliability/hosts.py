#!/usr/bin/env python3
"""A million connections through each kind of host: raw epoll, mio, polling, threads, axum on tokio.

    cargo build --release -p servers
    docs/reliability/hosts.py target/release [CONNECTIONS]

Two processes open eight connections at a time. A row has the connections, the failures, and the server's memory and
descriptors after a tenth of them and at the end. Then SIGTERM must end the server. The exit code is 1 if a request failed, if a server
needs more than a tenth more memory at the end (and 1 MiB), or if it does not end.
"""

import multiprocessing
import os
import re
import signal
import socket
import subprocess
import sys
import time

SERVERS = {"raw epoll": "per_core", "mio": "mio", "polling": "polling", "threads": "threads", "axum, tokio": "axum"}

def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start(path):
    port = free_port()
    server = subprocess.Popen([path, "--listen", f"127.0.0.1:{port}"], stdout=subprocess.DEVNULL)
    until = time.time() + 30
    while time.time() < until:
        with socket.socket() as client:
            if client.connect_ex(("127.0.0.1", port)) == 0:
                return server, port
        time.sleep(0.02)
    raise SystemExit(f"{path} does not listen")


def clients(port, wanted):
    """Eight connections at a time: connect all, ask on all, read all, close all. Returns how many failed."""
    failed = 0
    for _ in range(wanted // 8):
        burst = [socket.socket() for _ in range(8)]
        try:
            for client in burst:
                client.settimeout(30)
                client.connect(("127.0.0.1", port))
            for client in burst:
                client.sendall(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
            for client in burst:
                answer = client.recv(4096)
                while answer and not answer.endswith(b"hello\n"):
                    answer += client.recv(4096)
                failed += not answer
        except OSError:
            failed += 1
        for client in burst:
            client.close()
    return failed


def load(port, wanted):
    """Returns how many failed, of so many connections from two processes."""
    with multiprocessing.Pool(2) as pool:
        return sum(pool.starmap(clients, [(port, wanted // 2)] * 2))


def memory(pid):
    """Returns the resident memory in KiB."""
    with open(f"/proc/{pid}/status") as status:
        return int(re.search(r"VmRSS:\s+(\d+)", status.read())[1])


def descriptors(pid):
    """Returns how many descriptors are open, once the last connections have ended."""
    until, least = time.time() + 5, None
    while time.time() < until:
        count = len(os.listdir(f"/proc/{pid}/fd"))
        least = count if least is None else min(least, count)
        time.sleep(0.1)
    return least


def measure(name, path, wanted):
    server, port = start(path)
    try:
        failed = load(port, wanted // 10)
        first = memory(server.pid), descriptors(server.pid)
        failed += load(port, wanted - wanted // 10)
        last = memory(server.pid), descriptors(server.pid)
        server.send_signal(signal.SIGTERM)
        ended = server.wait(timeout=30) == 0
    finally:
        server.kill()
    print(f"|{name}|{wanted}|{failed}|{first[0]}|{last[0]}|{first[1]}|{last[1]}|", flush=True)
    return failed == 0 and last[1] <= first[1] and last[0] <= first[0] * 1.1 + 1024 and ended


def main():
    folder, wanted = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 1_000_000
    print("|host|connections|failed|KiB after a tenth|KiB at the end|descriptors after a tenth|at the end|\n|---|--:|--:|--:|--:|--:|--:|")
    good = [measure(name, os.path.join(folder, binary), wanted) for name, binary in SERVERS.items()]
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main())
