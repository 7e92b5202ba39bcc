// Receives webhooks on 127.0.0.1:$PORT, verified with $WEBHOOK_SECRET.

import { createServer } from "node:http";
import { Webhook } from "standardwebhooks";

const MOST_BYTES = 1 << 20;
const webhook = new Webhook(process.env.WEBHOOK_SECRET);
const handled = new Set();

// Does the work once. In your service: a row with the delivery as its unique key, in the work's own transaction.
function handle(delivery, event) {
  if (handled.has(delivery)) return;
  console.log("handled", delivery, event.event_type);
  handled.add(delivery);
}

// The bytes as they came, or undefined where they are too many.
async function read(request) {
  const pieces = [];
  let length = 0;
  for await (const piece of request) {
    length += piece.length;
    if (length > MOST_BYTES) return undefined;
    pieces.push(piece);
  }
  return Buffer.concat(pieces);
}

async function receive(request) {
  const body = await read(request);
  if (body === undefined) return 413;
  try {
    // Verified before it is parsed.
    webhook.verify(body, request.headers, { jsonParse: false });
  } catch {
    return 401;
  }
  handle(request.headers["webhook-id"], JSON.parse(body));
  return 204;
}

const server = createServer(async (request, response) => {
  const status = await receive(request).catch(() => 400);
  response.writeHead(status, status === 413 ? { connection: "close" } : {}).end();
});
server.requestTimeout = 30_000;
server.listen(Number(process.env.PORT), "127.0.0.1");
