// A TLS server for specs: node tls_server.mjs KEY CERT MODE [PORT]. Prints its port.
//
//   h2           a Box API on HTTP/2 and HTTP/1.1; GET /_stats tells what connections it saw
//   proxy PORT   what is said over TLS goes to PORT of this machine as it is, and back
//   connect PORT no TLS: a proxy for box.example, which is PORT of this machine
//   reset        resets each connection at the client's first byte
//   silent       accepts, and never says anything
import fs from "node:fs";
import http2 from "node:http2";
import net from "node:net";
import tls from "node:tls";

const [keyFile, certFile, mode, target] = process.argv.slice(2);
const identity = { key: fs.readFileSync(keyFile), cert: fs.readFileSync(certFile) };

function boxApi() {
  const stats = { sessions: 0, requests: {}, http1_connections: 0, most_at_once: 0 };
  let now = 0;
  const server = http2.createSecureServer({ ...identity, allowHTTP1: true }, (request, response) => {
    const name = `${request.method} ${request.url} HTTP/${request.httpVersionMajor}`;
    stats.requests[name] = (stats.requests[name] ?? 0) + 1;
    stats.most_at_once = Math.max(stats.most_at_once, ++now);
    response.on("close", () => now--);
    const json = (value) => {
      response.setHeader("Content-Type", "application/json");
      response.end(JSON.stringify(value));
    };
    request.resume();
    if (request.url === "/_stats") return json(stats);
    if (request.url.endsWith("/exec")) {
      return setTimeout(() => json({ exit_code: 0, output: "ok" }), 50);
    }
    if (request.url.endsWith("/run/stream")) {
      response.setHeader("Content-Type", "text/event-stream");
      response.write('event: run_start\ndata: {"run_id":"r"}\n\n');
      return setTimeout(() => response.end('event: done\ndata: {"output":"done"}\n\n'), 200);
    }
    json({ id: "b", status: "idle", agent: "custom", model: "m" });
  });
  server.on("session", () => stats.sessions++);
  server.on("secureConnection", (socket) => {
    if (socket.alpnProtocol !== "h2") stats.http1_connections++;
  });
  return server;
}

const servers = {
  h2: boxApi,
  proxy: () => tls.createServer(identity, (client) => {
    const server = net.connect(Number(target), "127.0.0.1");
    const end = () => {
      client.destroy();
      server.destroy();
    };
    client.pipe(server, { end: false });
    server.pipe(client, { end: false });
    // Without a goodbye: over TLS an end that is only the connection's is a cut.
    for (const socket of [client, server]) socket.on("close", end).on("error", end);
  }),
  connect: () => net.createServer((client) => {
    let head = "";
    const listen = (bytes) => {
      head += bytes.toString("latin1");
      if (!head.endsWith("\r\n\r\n")) return;
      client.off("data", listen);
      const tunnel = head.startsWith("CONNECT box.example:");
      const server = net.connect(Number(target), "127.0.0.1", () => {
        if (tunnel) client.write("HTTP/1.1 200 Connected\r\n\r\n");
        else server.write(head.replace("http://box.example", ""));
        client.pipe(server);
        server.pipe(client);
      });
      server.on("error", () => client.destroy());
    };
    client.on("data", listen).on("error", () => {});
  }),
  reset: () => net.createServer((socket) => {
    socket.on("error", () => {});
    socket.once("data", () => socket.resetAndDestroy());
  }),
  silent: () => net.createServer((socket) => socket.on("error", () => {})),
};

const server = servers[mode]();
server.listen(0, "127.0.0.1", () => console.log(server.address().port));
