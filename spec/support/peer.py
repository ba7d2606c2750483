"""A server with one fault: peer.py MODE [STATUS MESSAGE]. Prints its port; COUNT in its log file counts POSTs."""
import json
import socket
import sys
import threading
import time

mode = sys.argv[1]
log = sys.argv[2]
posts = 0
BOX = json.dumps({"id": "b", "status": "idle", "agent": "custom", "model": "m", "created_at": 1, "updated_at": 1})


def answer(conn, status, body, kind="application/json", close=False):
    head = f"HTTP/1.1 {status} X\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n"
    head += "Connection: close\r\n" if close else ""
    conn.sendall((head + "\r\n" + body).encode())


def read_request(conn):
    data = b""
    while b"\r\n\r\n" not in data:
        more = conn.recv(65536)
        if not more:
            return None
        data += more
    head, body = data.split(b"\r\n\r\n", 1)
    length = 0
    for line in head.split(b"\r\n"):
        if line.lower().startswith(b"content-length:"):
            length = int(line.split(b":")[1])
    while len(body) < length:
        body += conn.recv(65536)
    return head.split(b" ")[0].decode(), head.split(b" ")[1].decode()


def serve(conn):
    global posts
    if mode == "garbage":
        conn.recv(100)
        conn.sendall(b"this is not TLS\r\n" * 10)
        conn.close()
        return
    while True:
        request = read_request(conn)
        if not request:
            return
        method, path = request
        if mode == "silent":
            time.sleep(30)
            return
        if method == "POST":
            posts += 1
            with open(log, "w") as out:
                out.write(str(posts))
        if mode == "status":
            answer(conn, sys.argv[3], json.dumps({"error": sys.argv[4]}))
        elif mode == "html":
            answer(conn, 500, "<html>key box_secret123 is broken</html>", "text/html")
        elif mode == "work_and_close":
            if method == "POST":
                conn.close()
                return
            answer(conn, 200, "[]")
        elif mode == "cut_stream":
            if path.endswith("/run/stream"):
                conn.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
                event = b'event: run_start\ndata: {"run_id":"r1"}\n\nevent: text\ndata: {"text":"half"}\n\n'
                conn.sendall(b"%x\r\n%s\r\n" % (len(event), event))
                time.sleep(0.1)
                conn.close()
                return
            answer(conn, 200, '{"runs":[]}' if path.endswith("/runs") else BOX)


listener = socket.socket()
listener.bind(("127.0.0.1", 0))
listener.listen(16)
print(listener.getsockname()[1], flush=True)
while True:
    connection, _ = listener.accept()
    threading.Thread(target=serve, args=(connection,), daemon=True).start()
