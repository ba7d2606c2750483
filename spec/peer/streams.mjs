// Reads streams of a server with @upstash/box: argv is BASE_URL KEY CASES, a JSON file with a list of
// { id, kind, chunks }.
// Prints one JSON object per case: its chunks, its end, its result.
import { readFileSync } from "node:fs";
import { webcrypto } from "node:crypto";

import { Box } from "@upstash/box";

// Node 18 has it, but not as a global, where the SDK looks for it.
globalThis.crypto ??= webcrypto;

const [baseUrl, apiKey, file] = process.argv.slice(2);

const cases = JSON.parse(readFileSync(file, "utf8"));

// A busy machine delivers several pieces as one; what the SDK makes of a cut shows only where one is.
const cutAs = (sizes) => {
  let held = Buffer.alloc(0);
  return new TransformStream({
    transform(bytes, out) {
      held = Buffer.concat([held, bytes]);
      while (sizes.length > 0 && held.length >= sizes[0]) {
        const size = sizes.shift();
        out.enqueue(new Uint8Array(held.subarray(0, size)));
        held = held.subarray(size);
      }
    },
    flush(out) {
      if (held.length > 0) out.enqueue(new Uint8Array(held));
    },
  });
};
const plainFetch = globalThis.fetch;
globalThis.fetch = async (url, options) => {
  const answer = await plainFetch(url, options);
  const id = /\/(case\d+)\/(run\/stream|exec-stream)$/.exec(String(url))?.[1];
  if (!id || !answer.ok) return answer;
  const { chunks } = cases.find((each) => each.id === id);
  const sizes = chunks.map((chunk) => Buffer.from(chunk, "base64").length);
  return new Response(answer.body.pipeThrough(cutAs(sizes)), answer);
};

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

// Some at a time: the server plays each in a few milliseconds.
let next = 0;
const worker = async () => {
  while (next < cases.length) console.log(JSON.stringify(await read(cases[next++])));
};
await Promise.all(Array.from({ length: 16 }, worker));
