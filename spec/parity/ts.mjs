// Performs operations with @upstash/box: argv is URL KEY DIRECTORY OPERATIONS, the last a file with a JSON
// list of { index, box, code }. Prints one JSON object a line: { index, error } for each operation, then
// { members }, the public members of the SDK's classes and of a box's namespaces.
import { readFileSync } from "node:fs";
import { webcrypto } from "node:crypto";

import * as sdk from "@upstash/box";
import { z } from "zod/v3";

// Node 18 has it, but not as a global, where the SDK looks for it.
globalThis.crypto ??= webcrypto;

const [url, key, directory, file] = process.argv.slice(2);
const operations = JSON.parse(readFileSync(file, "utf8"));
const AsyncFunction = (async () => {}).constructor;
const { Box, EphemeralBox } = sdk;
const read = async (stream) => {
  for await (const chunk of stream) void chunk;
};
const names = { sdk, Box, EphemeralBox, z, read, url, key, tmp: directory };

process.env.UPSTASH_BOX_API_KEY = key;

for (const { index, box, code } of operations) {
  let error;
  process.env.UPSTASH_BOX_BASE_URL = `${url}/ts/${index}`;
  try {
    const all = { ...names, base: process.env.UPSTASH_BOX_BASE_URL };
    if (box) all.box = await Box.get(box);
    await new AsyncFunction(...Object.keys(all), code)(...Object.values(all));
  } catch (raised) {
    error = String(raised);
  }
  console.log(JSON.stringify({ index, error }));
}

// What a class or an object has to call, without what is inherited and what computes a field.
const methods = (object) => Object.entries(Object.getOwnPropertyDescriptors(object))
  .filter(([name, each]) => typeof each.value === "function" && !/^(_|constructor$|prototype$)/.test(name))
  .map(([name]) => name);
process.env.UPSTASH_BOX_BASE_URL = `${url}/ts/0`;
const box = await Box.get("b1");
const members = {
  Box: methods(Box),
  EphemeralBox: methods(EphemeralBox),
  box: methods(Box.prototype),
  ephemeral: methods(EphemeralBox.prototype),
  run: methods(sdk.Run.prototype),
  stream: methods(sdk.StreamRun.prototype),
};
for (const [name, value] of Object.entries(box)) {
  if (value?.constructor === Object && !name.startsWith("_")) members[`box.${name}`] = methods(value);
}
console.log(JSON.stringify({ members }));
