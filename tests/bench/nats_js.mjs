// The process in which nats.js's object store is measured: the commands of peers.py, in JavaScript.
// Run as `node nats_js.mjs MODULES URL`, where MODULES is a node_modules directory that holds
// @nats-io/transport-node and @nats-io/obj. The client checks the SHA-256 of what it reads itself.

import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join, resolve } from "node:path";
import { createInterface } from "node:readline";

const [modules, servers] = process.argv.slice(2);
const require = createRequire(join(resolve(modules), "resolve-from-here.js"));
const { connect } = require("@nats-io/transport-node");
const { Objm } = require("@nats-io/obj");

const connection = await connect({ servers });
const store = await new Objm(connection).create("nats-js");

async function read(key, take) {
  const result = await store.get(key);
  for await (const chunk of result.data) take(chunk);
  const error = await result.error;
  if (error) throw error;
}

function secondsSince(start) {
  return Number(process.hrtime.bigint() - start) / 1e9;
}

const commands = {
  async put({ source, salt }) {
    const data = readFileSync(source);
    data.write(salt, 0, "latin1");
    const body = new ReadableStream({
      start(controller) {
        controller.enqueue(data);
        controller.close();
      },
    });
    const start = process.hrtime.bigint();
    await store.put({ name: salt }, body, { timeout: 30_000 });
    const seconds = secondsSince(start);
    return { seconds, key: salt, sha256: createHash("sha256").update(data).digest("hex") };
  },
  async get({ key }) {
    const start = process.hrtime.bigint();
    await read(key, () => {});
    return { seconds: secondsSince(start) };
  },
  async sum({ key }) {
    const hash = createHash("sha256");
    await read(key, (chunk) => hash.update(chunk));
    return { sha256: hash.digest("hex") };
  },
  async delete({ key }) {
    await store.delete(key);
    return {};
  },
};

process.stdout.write(JSON.stringify({ ready: true }) + "\n");
for await (const line of createInterface({ input: process.stdin })) {
  const command = JSON.parse(line);
  process.stdout.write(JSON.stringify(await commands[command.do](command)) + "\n");
}
await connection.close();
