"""An HTTP server that shares no code with lbox, for the spec of the core. Prints its port.

The path says what it answers: see the methods. It stops when its standard input is closed.
"""
import http.server
import os
import sys
import threading
import time
import urllib.parse

SSE = [
    'event: run_start\ndata: {"run_id":"r1"}\n\n',
    'event: text\ndata: {"te', 'xt":"gr\u00fc\u00df"}\n\nevent: odd name\n', 'data: 1\n\n',
    'event: done\ndata: {}',
]
EXEC = ['one\n', 'two event: e', 'xit\ndata: {"exit_code":3,', '"cpu_ns":9}\n\n']


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def answer(self, status, body, **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def pieces(self, pieces, end=True, pause=0):
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for piece in pieces:
            data = piece.encode()
            self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
            self.wfile.flush()
            time.sleep(0.005)
        time.sleep(pause)
        if end:
            self.wfile.write(b"0\r\n\r\n")
        else:
            self.close_connection = True

    def do_GET(self):
        url = urllib.parse.urlsplit(self.path)
        if url.path == "/hello":
            self.answer(200, b"hello", X_Peer="one")
        elif url.path == "/bytes":
            self.answer(200, b"x" * int(url.query))
        elif url.path == "/sse":
            self.pieces(SSE)
        elif url.path == "/exec":
            self.pieces(EXEC)
        elif url.path == "/exec-cut":
            self.pieces(EXEC, end=False)
        elif url.path == "/sse-cut":
            self.pieces(SSE, end=False)
        elif url.path == "/silent":
            self.pieces(SSE[:1], end=False, pause=60)
        elif url.path == "/never":
            time.sleep(60)
        else:
            self.answer(404, b'{"error":"not here"}')

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        head = "%s %s|%s|%s|" % (self.command, self.path, self.headers.get("X-Test"),
                                 self.headers.get("Content-Type"))
        self.answer(201, head.encode() + body)

    def log_message(self, *_):
        pass


def main():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(server.server_address[1], flush=True)
    sys.stdin.read()
    os._exit(0)


main()
