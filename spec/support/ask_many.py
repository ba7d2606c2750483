"""Sends requests as they are told, one after another, and prints what came back.

    python3 ask_many.py URL KEY < LIST

A line of the list is METHOD PATH CONTENT-TYPE BODY, the body in hexadecimal or "-". A line of the output is the
status (0: no answer within ten seconds), the milliseconds it took, and the answer in hexadecimal."""
import socket
import sys
import time

host, port = sys.argv[1].split("//")[1].split(":")


def ask(method, path, kind, body):
    head = f"{method} {path} HTTP/1.1\r\nHost: {host}\r\nX-Box-Api-Key: {sys.argv[2]}\r\nConnection: close\r\n"
    if body is not None:
        head += f"Content-Type: {kind}\r\nContent-Length: {len(body)}\r\n"
    answer = b""
    with socket.create_connection((host, int(port)), 10) as s:
        s.sendall((head + "\r\n").encode("latin-1") + (body or b""))
        while piece := s.recv(65536):
            answer += piece
    head, _, rest = answer.partition(b"\r\n\r\n")
    return int(head.split(b" ")[1]), rest


for line in sys.stdin:
    method, path, kind, body = line.rstrip("\n").split("\t")
    began = time.monotonic()
    try:
        status, answer = ask(method, path, kind, None if body == "-" else bytes.fromhex(body))
    except (OSError, IndexError, ValueError):
        status, answer = 0, b""
    print(status, round((time.monotonic() - began) * 1000), answer[:100000].hex() or "-")
