"""Sends events to sluicegate, with Python's standard library alone (3.9 or newer).

    events = Events("https://events.example/api/events", key="…")
    events.track({"event": "app_start"})

A thread sends batches in order; one that has no reply is sent again under its own Idempotency-Key until there is one,
so no event is lost or stored twice while the process lives. What is queued is sent at the end of the process.
"""

import atexit, json, logging, os, queue, random, sys, threading, time, urllib.error, urllib.request, uuid

log = logging.getLogger("events")


class Events:
    def __init__(self, url, key=None, batch=500, queue_max=10_000, linger=1.0, wait_max=30.0):
        self.url, self.batch, self.linger, self.wait_max = url, batch, linger, wait_max
        self.headers = {"Content-Type": "application/x-ndjson"}
        if key:
            self.headers["Authorization"] = f"Bearer {key}"
        self.queue = queue.Queue(queue_max)
        self.thread = threading.Thread(target=self._run, name="events", daemon=True)
        self.thread.start()
        atexit.register(self.close)

    def track(self, event, timeout=None):
        """Queues an event; waits for room, and raises queue.Full after `timeout` seconds (0: at once)."""
        line = json.dumps(event).encode()
        self.queue.put(line, block=timeout != 0, timeout=timeout or None)

    def close(self, timeout=None):
        """Sends what is queued, and returns whether all of it was within `timeout` seconds."""
        if self.thread.is_alive():
            self.queue.put(None)
            self.thread.join(timeout)
        return not self.thread.is_alive()

    def _run(self):
        is_open = True
        while is_open:
            lines, deadline = [], None
            while len(lines) < self.batch:
                try:
                    line = self.queue.get(timeout=deadline and max(0.0, deadline - time.monotonic()))
                except queue.Empty:
                    break
                if line is None:
                    is_open = False
                    break
                lines.append(line)
                deadline = deadline or time.monotonic() + self.linger
            if lines:
                self._send(b"\n".join(lines))

    def _send(self, body):
        headers = {**self.headers, "Idempotency-Key": str(uuid.uuid4())}
        wait = 1.0
        while True:
            retry_after = 0
            try:
                with urllib.request.urlopen(urllib.request.Request(self.url, body, headers), timeout=60) as response:
                    reply = json.load(response)
                if reply["rejected"]:
                    log.warning("rejected lines: %s", reply.get("errors"))
                return
            except urllib.error.HTTPError as error:
                if error.code < 500 and error.code not in (408, 429):
                    log.error("a batch is refused: %s %s", error.code, error.read(1000))
                    return
                seconds = error.headers.get("Retry-After", "")
                retry_after = int(seconds) if seconds.isdecimal() else 0
            except Exception as error:  # no reply, or not a whole one: it may be stored, which the key settles
                log.info("no reply: %r", error)
            # As long as the server says, and a random part of a time that doubles, so that clients do not come at once.
            time.sleep(retry_after + random.uniform(0.1, wait))
            wait = min(2 * wait, self.wait_max)


if __name__ == "__main__":  # events from standard input
    logging.basicConfig(level=logging.INFO)
    client = Events(os.environ["SLUICEGATE_URL"], os.environ.get("SLUICEGATE_KEY"))
    for text in sys.stdin:
        client.track(json.loads(text))
