#!/usr/bin/env python3
"""The outage, or running out of descriptors, played to a server on 127.0.0.1.

    scene.py outage PORT PID LIMIT [--http]   all places taken, 100 come, half of them quit, the places are freed
    scene.py emfile PORT PID [--http]         no descriptor is left; one connection ends; when is the next one served?

Needs ss (iproute2), and the right to change the limits of the process PID.
"""

import os
import resource
import select
import socket
import subprocess
import sys
import time

FLOOD, NEWCOMERS, ROUNDS = 100, 5, 12
HTTP = "--http" in sys.argv
scene, port, pid = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])


def ask():
    client = socket.create_connection(("127.0.0.1", port), 5)
    client.sendall(b"OPTIONS / HTTP/1.1\r\nhost: x\r\n\r\n" if HTTP else b"hello\n")
    client.setblocking(False)
    return client


def answered(client, within):
    try:
        return bool(select.select([client], [], [], within)[0]) and bool(client.recv(65536))
    except OSError:
        return False


def queued():
    table = subprocess.run(["ss", "-Hltn", f"sport = :{port}"], capture_output=True, text=True, check=True)
    return int(table.stdout.split()[1])


def switches():
    """How often its threads went to sleep."""
    tasks = (open(f"/proc/{pid}/task/{task}/status").read() for task in os.listdir(f"/proc/{pid}/task"))
    return sum(int(text.split("voluntary_ctxt_switches:")[1].split()[0]) for text in tasks)


def descriptors():
    return set(map(int, os.listdir(f"/proc/{pid}/fd")))


def idle(what):
    before = switches()
    time.sleep(2)
    print(f"  {what}: its threads slept {switches() - before} times in 2 s")


def outage(limit):
    held = [ask() for _ in range(limit)]
    print(f"  {sum(answered(client, 2) for client in held)} of {limit} hold a place")
    flood = [ask() for _ in range(FLOOD)]
    time.sleep(0.3)
    for client in flood[::2]:
        client.close()
    flood = flood[1::2]
    idle(f"{queued()} queued, half of whom have quit")
    for client in held:
        client.close()
    begun, served = time.time(), 0
    while flood and time.time() - begun < 5:
        for client in [client for client in flood if answered(client, 0)]:
            served += 1
            client.close()
            flood.remove(client)
        time.sleep(0.002)
    print(f"  the places are free: {served} of {FLOOD // 2} answered within {time.time() - begun:.2f} s")
    for client in flood:
        client.close()
    time.sleep(0.3)
    newcomers = [ask() for _ in range(NEWCOMERS)]
    served = 0
    for client in newcomers:
        served += answered(client, 3)
        client.close()
    print(f"  newcomers: {served} of {NEWCOMERS} answered; {queued()} queued")


def emfile():
    held = [ask() for _ in range(4)]
    assert all(answered(client, 2) for client in held)
    soft, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    taken = descriptors()
    free = next(number for number in range(len(taken) + 1) if number not in taken)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (free, hard))
    waited = []
    for number in range(ROUNDS):
        late = ask()
        if number == 0:
            idle("no descriptor is left, one queued")
        time.sleep(0.15 + 0.037 * number)
        begun = time.time()
        held.pop(0).close()
        assert answered(late, 10), "it is never answered"
        waited.append((time.time() - begun) * 1000)
        held.append(late)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (soft, hard))
    waited.sort()
    print(f"  a connection ends, the next is served after {waited[ROUNDS // 2]:.1f} ms (median), {waited[-1]:.1f} ms (longest)")


if scene == "outage":
    outage(int(sys.argv[4]))
else:
    emfile()
