// The SHA-256 of each document in a file, one a line, as `canonicalize` writes it.

import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import canonicalize from "canonicalize";

const lines = readFileSync(process.argv[2], "utf8").trimEnd().split("\n");
const hashes = lines.map((line) =>
  createHash("sha256").update(canonicalize(JSON.parse(line)), "utf8").digest("hex"));
console.log(JSON.stringify(hashes));
