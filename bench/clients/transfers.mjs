// What bench/transfers.lua does, through @upstash/box: argv is BASE_URL KEY DIRECTORY BYTES. Prints the seconds of
// the output, the upload and the download.
import { webcrypto } from "node:crypto";

import { Box } from "@upstash/box";

globalThis.crypto ??= webcrypto;
const [baseUrl, apiKey, dir, bytes] = process.argv.slice(2);
// The SDK downloads into the working directory.
process.chdir(dir);
const seconds = async (work) => {
  const started = performance.now();
  await work();
  return (performance.now() - started) / 1000;
};

const box = await Box.create({ baseUrl, apiKey });
const output = await seconds(async () => {
  let read = 0;
  for await (const chunk of await box.exec.stream(`yes 0123456 | head -c ${bytes}`)) {
    if (chunk.type === "output") read += chunk.data.length;
  }
  if (read !== Number(bytes)) throw new Error(`the output is not whole: ${read}`);
});
const up = await seconds(() => box.files.upload([{ path: "file", destination: "up/file" }]));
const down = await seconds(() => box.files.download({ folder: "up" }));
await box.delete();
console.log(`${output} ${up} ${down}`);
