"""The internet of the specs: what is reached at the addresses of a network namespace. Arguments: a directory
with cert.pem and key.pem, where what comes by UDP is noted in `heard`."""
import http.server, socket, socketserver, ssl, struct, sys, threading, time

directory = sys.argv[1]
NAMES = {b"ok.test": "93.184.216.34", b"other.test": "93.184.216.35", b"a.sub.test": "93.184.216.35",
         b"loop.test": "127.0.0.1", b"meta.test": "169.254.169.254", b"own.test": "93.184.216.1",
         b"lan.test": "192.168.77.1"}


class Hello(http.server.BaseHTTPRequestHandler):
    def answer(self):
        if self.headers.get("Transfer-Encoding") == "chunked":
            sent = b""
            while n := int(self.rfile.readline(), 16):
                sent += self.rfile.read(n)
                self.rfile.readline()
            self.rfile.readline()
        else:
            sent = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        text = "hello from %s %s host=%s sent=%s\n" % (
            self.connection.getsockname()[0], self.path, self.headers.get("Host"), sent.decode())
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    do_GET = do_POST = answer

    def log_message(self, *args):
        with open(directory + "/requests", "a") as f:
            f.write(self.requestline + "\n")


class Ticks(socketserver.BaseRequestHandler):
    def handle(self):
        try:
            while True:
                self.request.sendall(b"tick\n")
                time.sleep(0.05)
        except OSError:
            pass


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = daemon_threads = True
    request_queue_size = 128


class Tls(Server):
    def get_request(self):
        connection, address = super().get_request()
        connection.settimeout(5)
        return context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False), address

    def handle_error(self, *args):
        pass


def dns():
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.bind(("0.0.0.0", 53))
    while True:
        data, asker = s.recvfrom(512)
        at, labels = 12, []
        while data[at]:
            labels.append(data[at + 1:at + 1 + data[at]])
            at += 1 + data[at]
        name = b".".join(labels).lower()
        kind, = struct.unpack(">H", data[at + 1:at + 3])
        with open(directory + "/asked", "a") as f:
            f.write(name.decode() + "\n")
        address = NAMES.get(name)
        answer = b""
        if address and kind == 1:
            answer = b"\xc0\x0c" + struct.pack(">HHIH", 1, 1, 0, 4) + socket.inet_aton(address)
        s.sendto(data[:2] + (b"\x81\x80" if address else b"\x81\x83") + struct.pack(">HHHH", 1, 1 if answer else 0, 0, 0)
                 + data[12:at + 5] + answer, asker)


def listen_all():
    """Notes datagrams to port 1900, also those to a group and to everybody."""
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.bind(("0.0.0.0", 1900))
    s.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP,
                 socket.inet_aton("239.255.255.250") + socket.inet_aton("93.184.216.34"))
    while True:
        data, _ = s.recvfrom(512)
        with open(directory + "/heard", "a") as f:
            f.write(data.decode() + "\n")


context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(directory + "/cert.pem", directory + "/key.pem")
servers = [Server(("0.0.0.0", 80), Hello), Tls(("0.0.0.0", 443), Hello), Server(("0.0.0.0", 7000), Ticks)]
for server in servers:
    threading.Thread(target=server.serve_forever, daemon=True).start()
threading.Thread(target=dns, daemon=True).start()
threading.Thread(target=listen_all, daemon=True).start()
print("ready", flush=True)
threading.Event().wait()
