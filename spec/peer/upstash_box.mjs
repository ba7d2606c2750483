// Drives a server with @upstash/box: argv is BASE_URL KEY. Prints one JSON object per finding and
// exits 0 only when all were gathered; the spec beside this file judges them.
import { webcrypto } from "node:crypto";

import { Agent, Box, EphemeralBox } from "@upstash/box";

// Node 18 has it, but not as a global, where the SDK looks for it.
globalThis.crypto ??= webcrypto;

const [baseUrl, apiKey] = process.argv.slice(2);
const say = (name, value) => console.log(JSON.stringify({ name, value }));

const AGENT = `
local harness = require("lbox").harness
harness.run(function(ctx, emit)
  emit.text("looking around\\n")
  emit.tool { tool_call_id = "t1", name = "list", input = { path = "." } }
  local pipe = io.popen("ls")
  local names = pipe:read("a")
  pipe:close()
  emit.tool_result { tool_call_id = "t1", output = names }
  return { output = "prompt: " .. ctx.prompt, input_tokens = 3, output_tokens = 2 }
end)
`;

const box = await Box.create({
  baseUrl,
  apiKey,
  name: "peer",
  labels: ["peer:ts"],
  agent: {
    harness: Agent.Custom,
    model: "none",
    customHarness: { command: "lbox", args: ["/workspace/home/agent.lua"], protocol: "box-sse-v1" },
  },
});
say("id", box.id);
say("status", await box.getStatus());
say("listed", (await Box.list({ baseUrl, apiKey })).map((each) => each.id));

const echo = await box.exec.command("echo out; echo err >&2; exit 3");
say("command", { exitCode: echo.exitCode, stdout: echo.stdout, stderr: echo.stderr, status: echo.status });

const chunks = [];
const stream = await box.exec.stream("for i in 1 2 3; do echo line $i; sleep 0.1; done; exit 7");
for await (const chunk of stream) chunks.push(chunk);
say("stream", {
  output: chunks.filter((each) => each.type === "output").map((each) => each.data).join(""),
  pieces: chunks.length,
  last: chunks.at(-1),
});

const code = await box.exec.code({ code: "console.log(6 * 7)", lang: "js" });
say("code", { result: code.result, exitCode: code.exitCode });

await box.files.write({ path: "agent.lua", content: AGENT });
await box.files.write({ path: "dir/blob.bin", content: Buffer.from([0, 255, 10]).toString("base64"), encoding: "base64" });
say("read", await box.files.read("agent.lua").then((text) => text === AGENT));
say("blob", await box.files.read("dir/blob.bin", { encoding: "base64" }));
say("list", (await box.files.list()).map((each) => [each.name, each.is_dir]).sort());

const run = await box.agent.run({ prompt: "hello agent" });
say("run", { status: run.status, result: run.result, cost: run.cost });

const seen = [];
const live = await box.agent.stream({ prompt: "again" });
for await (const chunk of live) seen.push(chunk.type);
say("agent stream", seen);
say("runs", (await box.listRuns()).map((each) => [each.type, each.status]));

await box.exec.command("git init -q --bare -b main /srv/x.git; mkdir sub; git init -q -b main /opt/seed; cd /opt/seed; "
  + "echo one > f; git add f; git commit -qm one; git push -q /srv/x.git main");
await box.cd("sub");
await box.git.clone({ repo: "/srv/x.git" });
await box.cd("x");
await box.git.checkout({ branch: "work" });
await box.files.write({ path: "g", content: "two\n" });
const dirty = await box.git.status();
const commit = await box.git.commit({ message: "two", authorName: "A", authorEmail: "a@b" });
await box.git.push();
say("git", {
  dirty,
  clean: await box.git.status(),
  diff: await box.git.diff(),
  pushed: (await box.git.exec({ args: ["ls-remote", "origin", "work"] })).output === `${commit.sha}\trefs/heads/work\n`,
});
await box.cd("/workspace/home");

const schedule = await box.schedule.exec({ cron: "*/5 * * * *", command: ["echo", "hi"] });
await box.schedule.pause(schedule.id);
const paused = (await box.schedule.list()).map((each) => each.status);
await box.schedule.resume(schedule.id);
const active = await box.schedule.get(schedule.id);
const prompt = await box.schedule.agent({ cron: "0 9 * * *", prompt: "report" });
await box.schedule.delete(schedule.id);
say("schedule", {
  paused,
  active: active.status,
  folder: active.folder,
  left: (await box.schedule.list()).map((each) => each.id === prompt.id),
});

await box.exec.command("python3 -m http.server --directory /srv 8000 >/dev/null 2>&1 & sleep 1");
const open = await box.getPublicURL(8000, { bearerToken: true });
const list = await box.listPublicURLs();
const refused = await fetch(open.url);
const allowed = await fetch(open.url, { headers: { authorization: `Bearer ${open.token}` } });
say("public URL", {
  refused: refused.status,
  allowed: allowed.status,
  listing: (await allowed.text()).includes("x.git"),
  listed: list.publicURLs.map((each) => each.url === open.url),
});
await box.deletePublicURL(8000);

await Box.setEnv("EVERYWHERE", "yes", { baseUrl, apiKey });
const kept = await Box.create({ baseUrl, apiKey, keepAlive: true, initCommand: "echo began >> began" });
await box.pause();
const asleep = (await box.getStatus()).status;
await box.resume();
const awake = (await box.getStatus()).status;
say("lifecycle", {
  asleep,
  awake,
  init: await kept.getInitCommand(),
  began: (await kept.exec.command("while ! test -s began; do sleep 0.02; done; cat began")).stdout,
});
await kept.setInitCommand("other");
say("init command", [await kept.getInitCommand(), (await kept.deleteInitCommand(), await kept.getInitCommand())]);
await kept.delete();
const snapshot = await box.snapshot({ name: "as it is" });
const copy = await Box.fromSnapshot(snapshot.id, { baseUrl, apiKey, name: "copy", env: { MORE: "more" } });
const short = await EphemeralBox.fromSnapshot(snapshot.id, { baseUrl, apiKey, ttl: 60 });
say("snapshot", {
  status: snapshot.status,
  listed: (await box.listSnapshots()).map((each) => each.id === snapshot.id),
  env: (await copy.exec.command("echo $EVERYWHERE $MORE; ls dir")).stdout,
  agent: (await copy.agent.run({ prompt: "copied" })).result,
  short: (await short.exec.command("ls dir")).stdout,
  lives: short.expiresAt - Math.floor(Date.now() / 1000) > 50,
});
await short.delete();
await copy.delete();
say("settings", {
  labels: await box.labels.add("second"),
  left: await box.labels.remove("peer:ts"),
  skills: (await box.skills.add("owner/repo/skill"), await box.skills.list()),
  removed: (await box.skills.remove("owner/repo/skill"), await box.skills.list()),
  env: await Box.listEnv({ baseUrl, apiKey }),
});
await box.configureModel("another");
await box.updateNetworkPolicy({ mode: "deny-all" });
await Box.deleteSnapshots({ baseUrl, apiKey, snapshotIds: [snapshot.id] });
say("no snapshots", (await box.listSnapshots()).length);

const missing = await box.files.read("no/such/file").catch((error) => ({ message: error.message, status: error.statusCode }));
say("missing file", missing);
const denied = await Box.list({ baseUrl, apiKey: "box_wrong" }).catch((error) => error.statusCode);
say("wrong key", denied);

await box.delete();
say("deleted", (await Box.list({ baseUrl, apiKey })).length);
