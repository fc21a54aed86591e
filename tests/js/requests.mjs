// Puts, gets and lists blobs by plain requests: node requests.mjs URL[,URL...] PREFIX
// Prints what it saw as one line of JSON.
import { connect, headers } from "@nats-io/transport-node";

const [urls, prefix] = process.argv.slice(2);
const nc = await connect({ servers: urls.split(",") });
const subject = (verb) => `${prefix}.blob.${verb}`;
const options = { timeout: 10_000 };

const typed = headers();
typed.set("Blob-Type", "text/plain");
const bytes = new TextEncoder().encode("put from JavaScript");
const put = await nc.request(subject("put"), bytes, { ...options, headers: typed });
const { digest } = put.json();

const got = await nc.request(subject("get"), digest, options);
const range = await nc.request(
  subject("get"),
  JSON.stringify({ digest, offset: 4, length: 4 }),
  options,
);
const list = await nc.request(subject("list"), JSON.stringify({ prefix: digest }), options);
const absent = await nc.request(subject("get"), "0".repeat(64), options);
const services = [];
const everybody = { strategy: "stall", maxWait: 2_000, stall: 500 };
for await (const answer of await nc.requestMany("$SRV.INFO.holdfast", "", everybody)) {
  const info = answer.json();
  if (info.endpoints.some((endpoint) => endpoint.subject === subject("put"))) {
    services.push(info.metadata.node);
  }
}

console.log(JSON.stringify({
  put: put.json(),
  got: got.string(),
  type: got.headers.get("Blob-Type"),
  range: range.string(),
  listed: list.json().blobs.map((blob) => blob.digest),
  absent: [absent.headers.get("Nats-Service-Error-Code"), absent.json().code],
  services,
}));
await nc.close();
