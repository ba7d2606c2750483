// Drives a server with @upstash/box: argv is BASE_URL KEY DIRECTORY, the last one to work in. Prints one JSON object a
// line: { case, error } for each case, then { unused }: the public methods of the SDK that no case has called. The spec
// beside this file judges them.
import assert from "node:assert/strict";
import { createHash, randomBytes, webcrypto } from "node:crypto";
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import { setTimeout as sleep } from "node:timers/promises";

import * as sdk from "@upstash/box";
import { z } from "zod/v3";

// Node 18 has it, but not as a global, where the SDK looks for it.
globalThis.crypto ??= webcrypto;

const [baseUrl, apiKey, directory] = process.argv.slice(2);
process.chdir(directory);
process.env.UPSTASH_BOX_BASE_URL = baseUrl;
process.env.UPSTASH_BOX_API_KEY = apiKey;
const { Agent, Box, BoxError, EphemeralBox } = sdk;

// --------------------------------------------------------------------------------------- what is called

const methods = new Set();
const called = new Set();

/** Puts methods that note their calls in the place of an object's own. */
function note(label, object) {
  for (const [name, each] of Object.entries(Object.getOwnPropertyDescriptors(object))) {
    if (typeof each.value !== "function" || /^(_|constructor$|prototype$)/.test(name)) continue;
    const inner = each.value;
    methods.add(`${label}.${name}`);
    Object.defineProperty(object, name, { ...each, value(...args) {
      called.add(`${label}.${name}`);
      return inner.apply(this, args);
    } });
  }
}

note("Box", Box);
note("box", Box.prototype);
note("EphemeralBox", EphemeralBox);
note("ephemeral", EphemeralBox.prototype);
note("run", sdk.Run.prototype);
// Old names of getPublicURL and its like, and of listing what happened.
for (const old of ["getPreviewUrl", "listPreviews", "deletePreview"]) methods.delete(`box.${old}`);

async function every(stream) {
  const chunks = [];
  for await (const chunk of await stream) chunks.push(chunk);
  return chunks;
}

async function refused(promise, status) {
  const error = await promise.then(() => assert.fail("it was not refused"), (raised) => raised);
  assert(error instanceof BoxError, error);
  assert.equal(error.statusCode, status, error.message);
  return error.message;
}

async function eventually(look, want) {
  let got;
  for (let i = 0; i < 100; i++) {
    got = await look();
    if (JSON.stringify(got) === JSON.stringify(want)) return;
    await sleep(50);
  }
  assert.deepEqual(got, want);
}

const AGENT = `
local harness = require("lbox").harness
harness.run(function(ctx, emit)
  if ctx.prompt:find("fail") then error("told to", 0) end
  emit.text("looking around\\n")
  emit.tool { tool_call_id = "t1", name = "list", input = { path = "." } }
  emit.tool_result { tool_call_id = "t1", output = "names" }
  if ctx.prompt:find("linger") then os.execute("sleep 60") end
  local schema = ctx.json_schema and '{"answer": 42}'
  return { output = schema or "prompt: " .. ctx.prompt, input_tokens = 3, output_tokens = 2 }
end)
`;
const HARNESS = { command: "lbox", args: ["/workspace/home/agent.lua"], protocol: "box-sse-v1" };

// ------------------------------------------------------------------------------------------------ cases

let box;
const out = async (command) => (await box.exec.command(command)).stdout;

const cases = {
  async "boxes are made, found and listed"() {
    box = await Box.create({ name: "peer", labels: ["peer:ts"], size: "medium", env: { GREETING: "hello" },
      agent: { harness: Agent.Custom, model: "none", customHarness: HARNESS } });
    for (const name of ["agent", "exec", "files", "git", "schedule", "skills", "labels"]) note(`box.${name}`, box[name]);
    assert.equal((await box.getStatus()).status, "idle");
    assert.equal(box.size, "medium");
    assert.equal(box.modelConfig.harness, "custom");
    assert.deepEqual((await Box.list({ label: "peer:ts" })).map((each) => each.id), [box.id]);
    assert.equal((await Box.get(box.id)).id, box.id);
    assert.equal((await Box.getByName("peer")).id, box.id);
    await refused(Box.get("no-such-box"), 404);
  },

  async "commands have their output and exit code"() {
    const run = await box.exec.command("echo $GREETING; echo err >&2; exit 3");
    assert.deepEqual([run.exitCode, run.stdout, run.stderr, run.status], [3, "hello\n", "err\n", "failed"]);
    const code = await box.exec.code({ code: "console.log(6 * 7)", lang: "js" });
    assert.deepEqual([code.exitCode, code.result], [0, "42\n"]);
    const slow = await box.exec.code({ code: "import time; print(1, flush=True); time.sleep(60)", lang: "python",
      timeout: 500 });
    assert.deepEqual([slow.exitCode, slow.stdout], [124, "1\n"]);
  },

  async "output is streamed"() {
    const chunks = await every(box.exec.stream("for i in 1 2 3; do echo line $i; sleep 0.1; done; exit 7"));
    const text = chunks.filter((each) => each.type === "output").map((each) => each.data).join("");
    assert.equal(text, "line 1\nline 2\nline 3\n");
    assert(chunks.length >= 4, `${chunks.length} chunks`);
    assert.deepEqual([chunks.at(-1).type, chunks.at(-1).exitCode], ["exit", 7]);
    assert(chunks.at(-1).cpuNs > 0);
    const code = await every(box.exec.streamCode({ code: "print(2)", lang: "python" }));
    assert.equal(code[0].data, "2\n");
  },

  async "files are written, read, listed, sent and fetched"() {
    await box.files.write({ path: "agent.lua", content: AGENT });
    assert.equal(await box.files.read("agent.lua"), AGENT);
    await box.files.write({ path: "dir/blob", content: "AP8K", encoding: "base64" });
    assert.equal(await box.files.read("dir/blob", { encoding: "base64" }), "AP8K");
    const list = (await box.files.list()).map((each) => [each.name, each.is_dir]).sort();
    assert.deepEqual(list, [["agent.lua", false], ["dir", true]]);
    await refused(box.files.read("no/such/file"), 404);
    const content = randomBytes(3000000);
    writeFileSync("local.bin", content);
    await box.files.upload([{ path: "local.bin", destination: "up/there.bin" }]);
    assert.equal((await out("sha256sum < up/there.bin")).split(" ")[0],
      createHash("sha256").update(content).digest("hex"));
    await box.files.download({ folder: "up" });
    const found = readdirSync(".", { recursive: true }).find((each) => String(each).endsWith("there.bin"));
    assert(readFileSync(found).equals(content));
  },

  async "agents run"() {
    const tools = [];
    const run = await box.agent.run({ prompt: "hello agent", onToolUse: (use) => tools.push(use.name) });
    assert.deepEqual([run.status, run.result, run.cost.inputTokens, tools],
      ["completed", "prompt: hello agent", 3, ["list"]]);
    assert((await run.logs()).some((each) => each.message.includes("hello agent")));
    const listed = (await box.listRuns()).filter((each) => each.type === "agent");
    assert.deepEqual(listed.map((each) => [each.id, each.status]), [[run.id, "completed"]]);
    const chunks = await every(box.agent.stream({ prompt: "again" }));
    assert.deepEqual(chunks.map((each) => each.type),
      ["start", "text-delta", "tool-call", "tool-result", "finish", "stats"]);
    const typed = await box.agent.run({ prompt: "typed", responseSchema: z.object({ answer: z.number() }) });
    assert.deepEqual(typed.result, { answer: 42 });
    const failed = await box.agent.run({ prompt: "fail" }).then(() => "no error", (error) => error.message);
    assert.match(failed, /told to/);
  },

  async "a webhook hears of a run, and a run can be cancelled"() {
    const told = [];
    const hook = createServer((request, response) => {
      let body = "";
      request.on("data", (bytes) => body += bytes);
      request.on("end", () => {
        told.push([request.headers["x-secret"], JSON.parse(body)]);
        response.end();
      });
    });
    await new Promise((done) => hook.listen(0, "127.0.0.1", done));
    const webhook = { url: `http://127.0.0.1:${hook.address().port}/`, headers: { "X-Secret": "s" } };
    const run = await box.agent.run({ prompt: "told", webhook });
    await eventually(() => told.length, 1);
    assert.deepEqual([told[0][0], told[0][1].status, told[0][1].run_id, told[0][1].output],
      ["s", "completed", run.id, "prompt: told"]);
    const long = await box.agent.run({ prompt: "linger", webhook });
    await long.cancel();
    await eventually(async () => (await box.listRuns()).find((each) => each.id === long.id).status, "cancelled");
    hook.close();
  },

  async "files go with a prompt"() {
    writeFileSync("note.txt", "noted");
    assert.equal((await box.agent.run({ prompt: "see the file", files: ["note.txt"] })).status, "completed");
    const data = Buffer.from("noted").toString("base64");
    const run = await box.agent.run({ prompt: "this", files: [{ data, mediaType: "text/plain", filename: "n.txt" }] });
    assert.equal(run.status, "completed");
  },

  async "git clones, commits and pushes"() {
    await out("git init -q --bare -b main /srv/x.git; mkdir sub; git init -q -b main /opt/seed; cd /opt/seed; "
      + "echo one > f; git add f; git commit -qm one; git push -q /srv/x.git main");
    await box.cd("sub");
    await box.git.clone({ repo: "/srv/x.git" });
    await box.cd("x");
    await box.git.checkout({ branch: "work" });
    const config = await box.git.updateConfig({ userName: "Ann", userEmail: "ann@example.com" });
    assert.equal(config.git_user_name ?? config.gitUserName ?? config.userName, "Ann");
    await box.files.write({ path: "f", content: "two\n" });
    assert.match(await box.git.diff(), /\+two/);
    assert.equal((await box.git.status()).trim(), "M f");
    const commit = await box.git.commit({ message: "two" });
    await box.git.push();
    assert.equal((await box.git.exec({ args: ["ls-remote", "origin", "work"] })).output,
      `${commit.sha}\trefs/heads/work\n`);
    await refused(box.git.createPR({ title: "t" }), 424);
    await box.cd("/workspace/home");
    assert.equal(box.cwd, "/workspace/home");
  },

  async "schedules are kept"() {
    const made = await box.schedule.exec({ cron: "*/5 * * * *", command: ["echo", "hi"] });
    await box.schedule.pause(made.id);
    assert.equal((await box.schedule.get(made.id)).status, "paused");
    await box.schedule.resume(made.id);
    assert.equal((await box.schedule.get(made.id)).folder, "/workspace/home");
    const other = await box.schedule.agent({ cron: "0 9 * * *", prompt: "report" });
    assert.deepEqual((await box.schedule.list()).map((each) => each.id).sort(), [made.id, other.id].sort());
    await box.schedule.delete(made.id);
    await box.schedule.delete(other.id);
    assert.deepEqual(await box.schedule.list(), []);
    await refused(box.schedule.exec({ cron: "nonsense", command: ["true"] }), 400);
  },

  async "labels and skills are kept"() {
    assert.deepEqual(await box.labels.add("second"), ["peer:ts", "second"]);
    assert.deepEqual(await box.labels.remove("second"), ["peer:ts"]);
    assert.deepEqual(await box.labels.list(), ["peer:ts"]);
    await box.skills.add("owner/repo/skill");
    assert.deepEqual(await box.skills.list(), ["owner/repo/skill"]);
    await box.skills.remove("owner/repo/skill");
    assert.deepEqual(await box.skills.list(), []);
  },

  async "ports are opened"() {
    await out("mkdir www; echo content > www/f; python3 -m http.server --directory www 8000 >/dev/null 2>&1 & sleep 1");
    const open = await box.getPublicURL(8000, { bearerToken: true });
    assert.equal((await fetch(open.url)).status, 401);
    const allowed = await fetch(`${open.url}/f`, { headers: { authorization: `Bearer ${open.token}` } });
    assert.equal(await allowed.text(), "content\n");
    assert.deepEqual((await box.listPublicURLs()).publicURLs.map((each) => each.url), [open.url]);
    await box.deletePublicURL(8000);
    assert.deepEqual((await box.listPublicURLs()).publicURLs, []);
  },

  async "settings change"() {
    await box.configureModel("another");
    await box.configureCustomHarness(HARNESS);
    await box.updateNetworkPolicy({ mode: "deny-all" });
    assert.equal((await Box.get(box.id)).networkPolicy.mode, "deny-all");
    await box.pause();
    assert.equal((await box.getStatus()).status, "paused");
    await box.resume();
    assert.equal((await box.getStatus()).status, "idle");
    const kept = await Box.create({ keepAlive: true, initCommand: "echo began >> began" });
    assert.equal(await kept.getInitCommand(), "echo began >> began");
    assert.equal((await kept.exec.command("while ! test -s began; do sleep 0.02; done; cat began")).stdout, "began\n");
    await kept.setInitCommand("other");
    assert.equal(await kept.getInitCommand(), "other");
    await kept.deleteInitCommand();
    assert.equal(await kept.getInitCommand(), "");
    await kept.delete();
  },

  async "variables reach boxes to come"() {
    await Box.setAllEnv({});
    await Box.setEnv("EVERYWHERE", "yes");
    assert.deepEqual(await Box.listEnv(), { EVERYWHERE: "********" });
    const short = await EphemeralBox.create({ ttl: 60 });
    assert.equal((await short.exec.command("echo $EVERYWHERE")).stdout, "yes\n");
    await short.delete();
    await Box.deleteEnv("EVERYWHERE");
    assert.deepEqual(await Box.listEnv(), {});
  },

  async "snapshots are taken and restored"() {
    const snapshot = await box.snapshot({ name: "as it is" });
    assert.equal(snapshot.status, "ready");
    assert.deepEqual((await box.listSnapshots()).map((each) => each.id), [snapshot.id]);
    const copy = await Box.fromSnapshot(snapshot.id, { name: "copy", env: { MORE: "more" } });
    assert.equal((await copy.exec.command("echo $GREETING $MORE; cat www/f")).stdout, "hello more\ncontent\n");
    assert.equal((await copy.agent.run({ prompt: "copied" })).result, "prompt: copied");
    const short = await EphemeralBox.fromSnapshot(snapshot.id, { ttl: 60, name: "short" });
    assert(short.expiresAt - Math.floor(Date.now() / 1000) > 50);
    await short.cd("www");
    assert.equal((await short.exec.command("cat f")).stdout, "content\n");
    assert.equal((await short.getStatus()).status, "idle");
    const own = await short.snapshot({ name: "of a short one" });
    assert.deepEqual((await short.listSnapshots()).map((each) => each.id), [own.id]);
    await short.deleteSnapshot(own.id);
    assert.equal((await EphemeralBox.getByName("short")).id, short.id);
    await EphemeralBox.delete({ boxIds: [short.id] });
    await Box.delete({ boxIds: [copy.id] });
    await box.deleteSnapshot(snapshot.id);
    const [one, two] = [await box.snapshot({ name: "one" }), await box.snapshot({ name: "two" })];
    await Box.deleteSnapshots({ snapshotIds: [one.id] });
    await EphemeralBox.deleteSnapshots({ snapshotIds: [two.id] });
    assert.deepEqual(await box.listSnapshots(), []);
  },

  async "what happens is logged"() {
    const logs = await box.logs();
    assert(logs.some((each) => each.message === "the box was paused" && each.source === "system"));
    assert.equal((await box.logs({ offset: 1, limit: 1 })).length, 1);
  },

  async "what is not there is said"() {
    assert.match(await refused(Box.create({ attachHeaders: { "example.com": { A: "b" } } }), 501), /attach_headers/);
    await refused(Box.list({ apiKey: "box_wrong" }), 401);
  },

  async "boxes are deleted"() {
    await box.delete();
    assert.deepEqual(await Box.list({ label: "peer:ts" }), []);
    await refused(Box.get(box.id), 404);
  },
};

for (const [name, run] of Object.entries(cases)) {
  let error = null;
  await run().catch((raised) => error = String(raised?.stack ?? raised));
  console.log(JSON.stringify({ case: name, error }));
}
console.log(JSON.stringify({ unused: [...methods].filter((each) => !called.has(each)).sort() }));
