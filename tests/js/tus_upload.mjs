// Uploads a file with the stock tus client, stops in the middle, and goes on with a new one.
// Arguments: the endpoint, the file, the size of a chunk.

import { createReadStream } from "node:fs";
import { Upload } from "tus-js-client";

const [endpoint, file, chunk] = process.argv.slice(2);

function upload(options) {
  return new Promise((resolve, reject) => {
    const one = new Upload(createReadStream(file), {
      endpoint,
      chunkSize: Number(chunk),
      retryDelays: [0, 100, 500, 1000, 2000, 4000, 8000],
      metadata: { filename: "from JavaScript", filetype: "text/plain" },
      onError: reject,
      onSuccess: () => resolve({ one, done: true }),
      ...options(() => one.abort().then(() => resolve({ one, done: false }))),
    });
    one.start();
  });
}

let chunks = 0;
const { one } = await upload((stop) => ({
  onChunkComplete: () => {
    chunks += 1;
    if (chunks === 3) stop();
  },
}));
const { done } = await upload(() => ({ uploadUrl: one.url, endpoint: null }));
console.log(JSON.stringify({ chunks, done }));
