"""A WSGI and an ASGI application, and servers on sockets: app.py MODE HOST PORT."""
import fcntl, os, socket, sys, tempfile, threading, time

LOCK = os.environ.get("ZOO_LOCK", "/tmp/zoo.lock")


def work(path):
    end = time.time() + 30
    if path.startswith("/compute"):
        while time.time() < end:
            sum(range(10000))
    elif path.startswith("/file"):
        with tempfile.TemporaryFile() as file:
            file.write(b"x" * 4096)
            while time.time() < end:
                os.pread(file.fileno(), 4096, 0)
                os.stat("/tmp")
    elif path.startswith("/lock"):
        with open(LOCK, "w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
    elif path.startswith("/sleep"):
        time.sleep(30)


def wsgi(environ, start_response):
    work(environ["PATH_INFO"])
    start_response("200 OK", [("Content-Length", "3")])
    return [b"ok\n"]


async def asgi(scope, receive, send):
    if scope["type"] != "http":
        return
    work(scope["path"])
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"3")]})
    await send({"type": "http.response.body", "body": b"ok\n"})


def serve(connection):
    with connection:
        request = connection.recv(4096).decode(errors="replace").split(" ")
        work(request[1] if len(request) > 1 else "/")
        connection.sendall(b"HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\nok\n")


def main(mode, host, port):
    listener = socket.create_server((host, int(port)), backlog=128)
    if mode == "never":
        threading.Event().wait()
    if mode == "died":
        # The accept thread has raised an exception; the main thread waits for it forever.
        threading.Thread(target=lambda: None).start()
        threading.Event().wait()
    kept = []
    while True:
        connection, _ = listener.accept()
        if mode == "single":
            serve(connection)
        elif mode == "threads":
            threading.Thread(target=serve, args=(connection,), daemon=True).start()
        elif mode == "hang":
            kept.append(connection)
        elif mode == "slow":
            connection.close()
            time.sleep(0.05)


if __name__ == "__main__":
    main(*sys.argv[1:])
