"""Receives webhooks on 127.0.0.1:$PORT, verified with $WEBHOOK_SECRET."""

import json
import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock

from standardwebhooks import Webhook, WebhookVerificationError

MOST_BYTES = 1 << 20
webhook = Webhook(os.environ["WEBHOOK_SECRET"])
lock, handled = Lock(), set()


def handle(delivery, event):
    """Does the work once. In your service: a row with the delivery as its unique key, in the work's own transaction."""
    with lock:
        if delivery not in handled:
            print("handled", delivery, event.get("event_type"), flush=True)
            handled.add(delivery)


class Receiver(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 30

    def do_POST(self):
        length = int(self.headers.get("content-length", -1))
        if not 0 <= length <= MOST_BYTES:
            return self.answer(413)
        # The bytes as they came: read, then verified, and only then parsed.
        body = self.rfile.read(length)
        try:
            webhook.verify(body, dict(self.headers), json_parse=False)
        # A header or body in a form that no sender makes raises a ValueError.
        except (WebhookVerificationError, ValueError):
            return self.answer(401)
        try:
            event = json.loads(body)
        except ValueError:
            return self.answer(400)
        handle(self.headers["webhook-id"], event)
        self.answer(204)

    def answer(self, status):
        self.send_response(status)
        if status == 413:
            self.send_header("connection", "close")
        if status != 204:
            self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Receiver).serve_forever()
