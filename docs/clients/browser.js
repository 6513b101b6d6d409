// Sends events to sluicegate from web pages, which the server names in --cors-origin:
//
//   <script src="browser.js"></script>
//   <script>track({ event: "page_view" });</script>
//
// A batch is in localStorage, under its Idempotency-Key, until there is a reply: a page that is left or closed
// meanwhile sends it again at its next visit, and it is stored once. What no batch has yet is sent as a beacon when the
// page is left; nobody learns what became of a beacon.

const track = (() => {
  const url = "https://events.example/api/events", key = "Zx81kR2mPq7LwT0c"; // a write key with a low rate
  const batchMax = 100, lengthMax = 20_000, queueMax = 1000, batchesMax = 20, waitMax = 60_000, prefix = "events:";
  const queue = [];
  let isSending = false;

  const sleep = ms => new Promise(after => setTimeout(after, ms));
  const stored = () => Object.keys(localStorage).filter(name => name.startsWith(prefix));
  const store = body => {
    const id = crypto.randomUUID?.() ?? Array.from(crypto.getRandomValues(new Uint32Array(4))).join("-");
    try {
      if (stored().length < batchesMax) localStorage.setItem(prefix + id, body);
    } catch {} // full, or not allowed: the batch lives as long as the page
    return { id, body };
  };

  /** Takes lines out of the queue for one request; one that outlives its page may have 64 KiB, three a character. */
  function take() {
    const lines = [];
    for (let length = 0; queue.length && lines.length < batchMax && length + queue[0].length < lengthMax; ) {
      length += queue[0].length + 1;
      lines.push(queue.shift());
    }
    return lines.join("\n");
  }

  /** Sends a batch until there is a reply. */
  async function send({ id, body }) {
    const headers = { "Authorization": `Bearer ${key}`, "Idempotency-Key": id };
    for (let wait = 1000; ; wait = Math.min(2 * wait, waitMax)) {
      const reply = await fetch(url, { method: "POST", body, headers, keepalive: true }).catch(() => null);
      if (reply && reply.status < 500 && ![408, 429].includes(reply.status)) break; // stored, or wrong for good
      const retryAfter = 1000 * (Number(reply?.headers.get("Retry-After")) || 0);
      // As long as the server says, and a random part of a time that doubles, so that clients do not come at once.
      await sleep(retryAfter + 100 + Math.random() * (wait - 100));
    }
    localStorage.removeItem(prefix + id);
  }

  async function flush() {
    if (isSending) return;
    isSending = true;
    // What earlier pages left. Another page may be sending it too: then the server stores it once.
    for (const name of stored()) await send({ id: name.slice(prefix.length), body: localStorage.getItem(name) ?? "" });
    while (queue.length) await send(store(take()));
    isSending = false;
  }

  addEventListener("pagehide", () => {
    while (queue.length) {
      const body = take();
      if (!navigator.sendBeacon(`${url}?key=${encodeURIComponent(key)}`, body)) store(body);
    }
  });
  flush();

  /** Queues an event; false if the queue is full, and the event is not taken. */
  return function track(event) {
    const line = JSON.stringify(event);
    if (queue.length >= queueMax || line.length >= lengthMax) return false;
    queue.push(line);
    flush();
    return true;
  };
})();
