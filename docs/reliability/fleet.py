#!/usr/bin/env python3
"""A rolling restart of three hosts behind HAProxy and behind nginx, under load.

    cargo build --release -p servers --bin axum
    sudo docs/reliability/fleet.py target/release/axum

Each host, the proxy and the clients are network namespaces on one bridge. `wrk` keeps 16 connections to the proxy busy,
while the hosts take turns: SIGTERM, until the server has ended, then a new one on the same address, 20 times. The exit code
is 1 if a request failed.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

HOSTS, RESTARTS = 3, 20
PREFIX = f"fleet{os.getpid()}"
PROXY = f"{PREFIX}-p"

HAPROXY = """
defaults
    mode http
    timeout connect 300ms
    timeout client 10s
    timeout server 10s
    retries 4
    option redispatch 1
    retry-on conn-failure empty-response
frontend clients
    bind 10.77.0.100:8080
    default_backend hosts
backend hosts
    balance roundrobin
    {hosts}
"""

NGINX = """
daemon off; worker_processes 1; pid {folder}/pid; error_log {folder}/log;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    client_body_temp_path {folder}; proxy_temp_path {folder}; fastcgi_temp_path {folder};
    uwsgi_temp_path {folder}; scgi_temp_path {folder};
    upstream hosts {{ {hosts} keepalive 16; }}
    server {{
        listen 10.77.0.100:8080;
        location / {{
            proxy_pass http://hosts; proxy_http_version 1.1; proxy_set_header Connection "";
            proxy_connect_timeout 300ms; proxy_next_upstream error timeout; proxy_next_upstream_tries 3;
        }}
    }}
}}
"""


def run(*command):
    subprocess.run(command, check=True)


def inside(namespace, *command, **options):
    return subprocess.Popen(["ip", "netns", "exec", namespace, *command], **options)


def address(host):
    return f"10.77.0.{host + 1}"


def build_network():
    run("ip", "netns", "add", PROXY)
    run("ip", "-n", PROXY, "link", "add", "bridge", "type", "bridge")
    run("ip", "-n", PROXY, "addr", "add", "10.77.0.100/24", "dev", "bridge")
    for device in ("bridge", "lo"):
        run("ip", "-n", PROXY, "link", "set", device, "up")
    for host in range(HOSTS):
        namespace, port = f"{PREFIX}-{host}", f"port{host}"
        run("ip", "netns", "add", namespace)
        run("ip", "-n", PROXY, "link", "add", port, "type", "veth", "peer", "eth0", "netns", namespace)
        run("ip", "-n", PROXY, "link", "set", port, "master", "bridge", "up")
        run("ip", "-n", namespace, "addr", "add", f"{address(host)}/24", "dev", "eth0")
        run("ip", "-n", namespace, "link", "set", "eth0", "up")


def tear_down():
    for namespace in [PROXY] + [f"{PREFIX}-{host}" for host in range(HOSTS)]:
        subprocess.run(["ip", "netns", "del", namespace], stderr=subprocess.DEVNULL)


def await_answer(target):
    """Polls from the proxy's namespace until the target answers a request."""
    until = time.time() + 30
    while time.time() < until:
        asked = ["ip", "netns", "exec", PROXY, "curl", "-s", "--max-time", "1", f"http://{target}:8080/"]
        if subprocess.run(asked, stdout=subprocess.DEVNULL).returncode == 0:
            return
        time.sleep(0.02)
    raise SystemExit(f"no answer from {target}")


class Host:
    def __init__(self, number, server):
        self.number, self.server = number, server
        self.start()

    def start(self):
        listen = f"{address(self.number)}:8080"
        command = [self.server, "--listen", listen]
        self.process = inside(f"{PREFIX}-{self.number}", *command, stdout=subprocess.DEVNULL)
        await_answer(address(self.number))

    def end(self):
        # `ip netns exec` has become the server.
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(timeout=30)


def start_proxy(name, folder):
    path = os.path.join(folder, "configuration")
    if name == "haproxy":
        hosts = [f"server host{host} {address(host)}:8080 check inter 100ms fall 1 rise 1" for host in range(HOSTS)]
        text, command = HAPROXY.format(hosts="\n    ".join(hosts)), ["haproxy", "-db", "-f", path]
    else:
        hosts = [f"server {address(host)}:8080 max_fails=0;" for host in range(HOSTS)]
        text, command = NGINX.format(hosts=" ".join(hosts), folder=folder), ["nginx", "-c", path]
    with open(path, "w") as file:
        file.write(text)
    proxy = inside(PROXY, *command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    await_answer("10.77.0.100")
    return proxy


def restart_under_load(name, hosts):
    """Returns how many requests were answered, and how many failed."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o777)
        proxy = start_proxy(name, folder)
        load = inside(PROXY, "wrk", "-t1", "-c16", "-d3600s", "http://10.77.0.100:8080/", stdout=subprocess.PIPE, text=True)
        try:
            for turn in range(RESTARTS):
                host = hosts[turn % HOSTS]
                host.end()
                host.start()
                time.sleep(0.3)  # the proxy's checks see it
            load.send_signal(signal.SIGINT)
            report = load.communicate(timeout=30)[0]
        finally:
            load.kill()
            proxy.terminate()
            proxy.wait()
    answered = int(re.search(r"(\d+) requests in", report)[1])
    errors = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", report)
    refused = re.search(r"Non-2xx or 3xx responses: (\d+)", report)
    failed = sum(map(int, errors.groups())) if errors else 0
    return answered, failed + (int(refused[1]) if refused else 0)


def main():
    missing = [tool for tool in ("ip", "wrk", "curl") if not shutil.which(tool)]
    proxies = [proxy for proxy in ("haproxy", "nginx") if shutil.which(proxy)]
    if os.geteuid() != 0 or missing or not proxies:
        print(f"SKIPPED: needs root, haproxy or nginx, and {', '.join(missing) or 'nothing else'}")
        return 0
    server, hosts, failures = os.path.abspath(sys.argv[1]), [], 0
    try:
        build_network()
        hosts = [Host(number, server) for number in range(HOSTS)]
        for proxy in proxies:
            answered, failed = restart_under_load(proxy, hosts)
            print(f"{proxy}: {RESTARTS} restarts, {answered} requests, {failed} failed", flush=True)
            failures += failed
    finally:
        for host in hosts:
            host.process.kill()
        tear_down()
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
