// Makes local boxes and runs commands in them with @upstash/box: argv is BASE_URL KEY TIMES. Prints two lines of
// milliseconds: from create to the first command's result, and for one command in a box that is there.
import { webcrypto } from "node:crypto";

import { Box } from "@upstash/box";

globalThis.crypto ??= webcrypto;
const [baseUrl, apiKey, times] = process.argv.slice(2);
const first = [];
const roundtrip = [];
const made = [];
for (let i = 0; i < times; i++) {
  const started = performance.now();
  const box = await Box.create({ baseUrl, apiKey });
  if ((await box.exec.command("echo hi")).result !== "hi\n") throw new Error("not hi");
  first.push(performance.now() - started);
  made.push(box);
}
for (const box of made) await box.delete();
const box = await Box.create({ baseUrl, apiKey });
for (let i = 0; i < times; i++) {
  const started = performance.now();
  if ((await box.exec.command("true")).exitCode !== 0) throw new Error("not true");
  roundtrip.push(performance.now() - started);
}
await box.delete();
console.log(first.join(" "));
console.log(roundtrip.join(" "));
