"""A Python server with a limit of eight connections: further ones wait in the accept queue."""

import sys
import threading
from socketserver import StreamRequestHandler, ThreadingTCPServer


class Echo(StreamRequestHandler):
    def handle(self):
        for line in self.rfile:
            self.wfile.write(line)


class Server(ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 128
    permits = threading.BoundedSemaphore(8)

    def get_request(self):
        # Accepts when there is a permit.
        self.permits.acquire()
        try:
            return super().get_request()
        except OSError:
            self.permits.release()
            raise

    def shutdown_request(self, request):
        try:
            super().shutdown_request(request)
        finally:
            self.permits.release()


Server(("127.0.0.1", int(sys.argv[1])), Echo).serve_forever()
