#!/usr/bin/env python3
"""Honest clients of a TLS server beside 1,000 that connect and say nothing.

    cargo build --release -p servers --bin hyper_rustls
    docs/reliability/silent.py target/release/hyper_rustls

Eight honest clients connect, ask and leave for ten seconds each time; a row is their latency, infinite without an answer. The silent ones connect from
127.0.0.2, either once, or again 10 ms after each time that the server closes.
"""

import resource
import select
import socket
import ssl
import subprocess
import sys
import threading
import time

SILENT, HONEST, SECONDS = 1000, 8, 10
TLS = ssl.create_default_context()
TLS.check_hostname, TLS.verify_mode = False, ssl.CERT_NONE


def ask(address):
    with TLS.wrap_socket(socket.create_connection(address, timeout=60)) as client:
        client.sendall(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        answer = b""
        while not answer.endswith(b"hello\n"):
            part = client.recv(4096)
            if not part:
                raise OSError("closed without an answer")
            answer += part


def honest(address, until, latencies):
    while time.time() < until:
        begin = time.time()
        try:
            ask(address)
            latencies.append(time.time() - begin)
        except OSError:
            latencies.append(float("inf"))
        time.sleep(0.02)


def connect(address):
    client = socket.socket()
    client.bind(("127.0.0.2", 0))
    client.setblocking(False)
    client.connect_ex(address)
    return client


def silent(address, until, returns):
    clients = {client.fileno(): client for client in (connect(address) for _ in range(SILENT))}
    poll = select.poll()
    for number in clients:
        poll.register(number, select.POLLIN)
    while time.time() < until:
        closed = [clients.pop(number) for number, _ in poll.poll(100)]
        for client in closed:
            poll.unregister(client)
            client.close()
        if closed and returns:
            time.sleep(0.01)
            for client in (connect(address) for _ in closed):
                clients[client.fileno()] = client
                poll.register(client, select.POLLIN)


def row(name, attack, *options):
    command = [sys.argv[1], "--handshakes", "200", *options]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    host, port = server.stdout.readline().split()[-1].rsplit(":", 1)
    address, latencies, until = (host, int(port)), [], time.time() + SECONDS
    threads = []
    if attack:
        threads.append(threading.Thread(target=silent, args=(address, until, attack == "returns")))
        threads[0].start()
        time.sleep(0.3)
    threads += [threading.Thread(target=honest, args=(address, until, latencies)) for _ in range(HONEST)]
    for thread in threads:
        thread.is_alive() or thread.start()
    for thread in threads:
        thread.join()
    server.kill()
    latencies.sort()
    count = len(latencies)
    middle, last = latencies[count // 2] * 1e3, latencies[-1] * 1e3
    print(f"{name:<46} {count:>5} {middle:>8.1f} {latencies[count * 99 // 100] * 1e3:>8.1f} {last:>8.0f}", flush=True)


hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8192), hard))
print(f"{'200 handshakes at once':<46} {'asked':>5} {'median':>8} {'p99':>8} {'longest':>8}  ms")
row("none silent", None, "--handshake-ms", "1000")
row("1,000 silent once, 1 s for a handshake", "once", "--handshake-ms", "1000")
row("1,000 silent once, 100 ms for a handshake", "once", "--handshake-ms", "100")
row("1,000 that return, 100 ms", "returns", "--handshake-ms", "100")
row("1,000 that return, 100 ms, 50 of each peer", "returns", "--handshake-ms", "100", "--per-peer", "50")
row("1,000 that return, 1 s, 50 of each peer", "returns", "--handshake-ms", "1000", "--per-peer", "50")
