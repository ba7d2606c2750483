// Reads streams of a server with @upstash/box: argv is BASE_URL KEY CASES, a JSON file with a list of { id, kind }.
// Prints one JSON object per case: its chunks, its end, its result.
import { readFileSync } from "node:fs";
import { webcrypto } from "node:crypto";

import { Box } from "@upstash/box";

// Node 18 has it, but not as a global, where the SDK looks for it.
globalThis.crypto ??= webcrypto;

const [baseUrl, apiKey, file] = process.argv.slice(2);

const read = async ({ id, kind }) => {
  const box = await Box.get(id, { baseUrl, apiKey });
  const chunks = [];
  let error = null;
  let stream;
  try {
    stream = kind === "agent" ? await box.agent.stream({ prompt: "x" }) : await box.exec.stream("x");
    for await (const chunk of stream) chunks.push(chunk);
  } catch (thrown) {
    error = String(thrown.message);
  }
  return { id, chunks, error, result: stream?.result, status: stream?.status };
};

const cases = JSON.parse(readFileSync(file, "utf8"));
// Some at a time: the server plays each in a few milliseconds.
let next = 0;
const worker = async () => {
  while (next < cases.length) console.log(JSON.stringify(await read(cases[next++])));
};
await Promise.all(Array.from({ length: 16 }, worker));
