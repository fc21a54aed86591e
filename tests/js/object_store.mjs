// Reads objects with the stock object store: node object_store.mjs URL[,URL...] BUCKET NAME...
// Prints [{name, size, sha256}] as one line of JSON.
import { createHash } from "node:crypto";
import { Objm } from "@nats-io/obj";
import { connect } from "@nats-io/transport-node";

const [urls, bucket, ...names] = process.argv.slice(2);
const nc = await connect({ servers: urls.split(",") });
const store = await new Objm(nc).open(bucket);

const found = [];
for (const name of names) {
  const bytes = await store.getBlob(name);
  const sha256 = createHash("sha256").update(bytes).digest("hex");
  found.push({ name, size: bytes.length, sha256 });
}

console.log(JSON.stringify(found));
await nc.close();
