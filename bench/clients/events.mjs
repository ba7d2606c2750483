// Reads one agent stream through @upstash/box; prints events and seconds.
import { webcrypto } from "node:crypto";

import { Box } from "@upstash/box";

// Node 18 has it, but not as a global, where the SDK looks for it.
globalThis.crypto ??= webcrypto;

const box = await Box.get("replay", { baseUrl: process.argv[2], apiKey: "box_bench" });
const started = process.hrtime.bigint();
const stream = await box.agent.stream({ prompt: "replay" });
let events = 0;
let bytes = 0;
for await (const chunk of stream) {
  if (chunk.type === "text-delta") {
    events += 1;
    bytes += chunk.text.length;
  }
}
const seconds = Number(process.hrtime.bigint() - started) / 1e9;
console.log(events, bytes, seconds.toFixed(6));
