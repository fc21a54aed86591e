// Creates, reads and lists a named blob by plain requests: node names.mjs URL[,URL...] PREFIX NAME
// Prints what it saw as one line of JSON.
import { connect, headers } from "@nats-io/transport-node";

const [urls, prefix, name] = process.argv.slice(2);
const nc = await connect({ servers: urls.split(",") });
const options = { timeout: 10_000 };
const ask = (verb, body, more = {}) =>
  nc.request(`${prefix}.blob.${verb}`, body, { ...options, ...more });

const said = headers();
said.set("Blob-Name", encodeURIComponent(name));
said.set("Blob-Labels", `why=${encodeURIComponent("it's (a) trial")}`);
const created = await ask("create", "created from JavaScript", { headers: said });
const again = await ask("create", "once more", { headers: said });
const got = await ask("get", JSON.stringify({ name }));
const listed = await ask("names", JSON.stringify({ labels: { why: "it's (a) trial" } }));
const removed = await ask("delete", JSON.stringify({ name, if_version: 1 }));

console.log(JSON.stringify({
  created: created.json(),
  again: [again.json().code, again.json().version],
  got: got.string(),
  told: decodeURIComponent(got.headers.get("Blob-Name")),
  listed: listed.json().names.map((entry) => entry.name),
  removed: removed.json(),
}));
await nc.close();
