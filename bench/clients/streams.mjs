// What streams.lua does, through @upstash/box.
import { webcrypto } from "node:crypto";

import { Box } from "@upstash/box";

// Node 18 has it, but not as a global, where the SDK looks for it.
globalThis.crypto ??= webcrypto;

const gate = () => {
  let open;
  const passed = new Promise((resolve) => { open = resolve; });
  return { open, passed };
};

const n = Number(process.argv[3]);
const box = await Box.get("replay", { baseUrl: process.argv[2], apiKey: "box_bench" });
const started = process.hrtime.bigint();
const allOpen = gate();
const halfRead = gate();
let opened = 0;
let read = 0;
let events = 0;
await Promise.all(Array.from({ length: n }, async (_, i) => {
  const stream = await box.agent.stream({ prompt: "replay" });
  if (++opened === n) allOpen.open();
  await allOpen.passed;
  if (i % 2 === 1) await halfRead.passed;
  for await (const chunk of stream) {
    if (chunk.type === "reasoning") events += 1;
  }
  if (++read === Math.ceil(n / 2)) halfRead.open();
}));
const seconds = Number(process.hrtime.bigint() - started) / 1e9;
console.log(events, seconds.toFixed(3), process.resourceUsage().maxRSS * 1024);
