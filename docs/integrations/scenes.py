#!/usr/bin/env python3
"""Two scenes for a server on 127.0.0.1: the outage, and running out of descriptors.

    scenes.py outage PORT PID LIMIT http|redis
    scenes.py emfile PORT PID http|redis
"""

import os
import resource
import select
import socket
import sys
import time

FLOOD, NEW, ROUNDS = 100, 5, 12
scene, port, pid = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
REQUEST = {"http": b"OPTIONS / HTTP/1.1\r\nhost: x\r\n\r\n", "redis": b"*2\r\n$3\r\nget\r\n$1\r\nk\r\n"}[sys.argv[-1]]


def ask():
    client = socket.create_connection(("127.0.0.1", port), 5)
    client.sendall(REQUEST)
    client.setblocking(False)
    return client


def answered(client, within):
    try:
        return bool(select.select([client], [], [], within)[0]) and bool(client.recv(65536))
    except OSError:
        return False


def cpu():
    """The CPU time of the process, in ms: its clock by clock_getcpuclockid(3)."""
    return time.clock_gettime((~pid << 3) | 2) * 1000


def switches():
    """How often its threads went to sleep."""
    tasks = (open(f"/proc/{pid}/task/{task}/status").read() for task in os.listdir(f"/proc/{pid}/task"))
    return sum(int(text.split("voluntary_ctxt_switches:")[1].split()[0]) for text in tasks)


def idle(what):
    before, burnt = switches(), cpu()
    time.sleep(2)
    print(f"  {what}: {cpu() - burnt:.2f} ms of CPU, its threads slept {switches() - before} times in 2 s")


def outage(limit):
    held = [ask() for _ in range(limit)]
    print(f"  {sum(answered(client, 2) for client in held)} of {limit} hold a place")
    flood = [ask() for _ in range(FLOOD)]
    time.sleep(0.3)
    early = sum(answered(client, 0) for client in flood)
    print(f"  {early} of {FLOOD} answered beyond the limit")
    for client in flood[::2]:
        client.close()
    flood = flood[1::2]
    idle("half of the waiting have quit")
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
    late = [ask() for _ in range(NEW)]
    served = 0
    for client in late:
        served += answered(client, 3)
        client.close()
    print(f"  new connections: {served} of {NEW} answered")


def emfile():
    held = [ask() for _ in range(4)]
    assert all(answered(client, 2) for client in held)
    soft, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    taken = set(map(int, os.listdir(f"/proc/{pid}/fd")))
    free = next(number for number in range(len(taken) + 1) if number not in taken)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (free, hard))
    waited, given_up = [], False
    for number in range(ROUNDS):
        late = ask()
        if number == 0:
            idle("no descriptor is left, one queued")
        time.sleep(0.15 + 0.037 * number)
        begun = time.time()
        held.pop(0).close()
        if not answered(late, 20):
            given_up = True
            break
        waited.append((time.time() - begun) * 1000)
        held.append(late)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (soft, hard))
    waited.sort()
    if waited:
        middle = len(waited) // 2
        print(f"  a connection ends, the next is served after {waited[middle]:.1f} ms (median), {waited[-1]:.1f} ms (longest), {len(waited)} rounds")
    if given_up:
        for client in held:
            client.close()
        print(f"  round {len(waited) + 1}: not served within 20 s; with the limit restored, a new connection is", end=" ")
        try:
            print("served" if answered(ask(), 5) else "not served either")
        except OSError as error:
            print(error.strerror.lower())


if scene == "outage":
    outage(int(sys.argv[4]))
else:
    emfile()
