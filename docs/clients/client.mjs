// Sends events to sluicegate from Node (18 or newer), without packages.
//
//   const events = new Events("https://events.example/api/events", { key: "…" });
//   await events.track({ event: "app_start" });     // waits while the queue is full
//
// Batches are sent in order; one that has no reply is sent again under its own Idempotency-Key until there is one, so
// no event is lost or stored twice while the process lives. Node does not end by itself before all is sent; before
// process.exit(), and on a signal, `await events.flush()`.

import { randomUUID } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";

export class Events {
  #queue = [];
  #waiting = [];
  #sending = null;

  constructor(url, { key, batch = 500, queueMax = 10_000, linger = 1000, waitMax = 30_000 } = {}) {
    Object.assign(this, { url, batch, queueMax, linger, waitMax });
    this.headers = { "Content-Type": "application/x-ndjson", ...(key && { Authorization: `Bearer ${key}` }) };
  }

  /** Queues an event. Resolves at once, or when there is room for it. */
  async track(event) {
    const line = JSON.stringify(event);
    while (this.#queue.length >= this.queueMax) await new Promise(next => this.#waiting.push(next));
    this.#queue.push(line);
    if (this.#queue.length >= this.batch) this.wake?.();
    this.#sending ??= this.#run();
  }

  /** Sends what is queued; resolves when there is nothing left. */
  async flush() {
    this.isFlushing = true;
    this.wake?.();
    await this.#sending;
    this.isFlushing = false;
  }

  async #run() {
    while (this.#queue.length) {
      if (this.#queue.length < this.batch && !this.isFlushing) {
        await new Promise(wake => { this.wake = wake; setTimeout(wake, this.linger); });
      }
      const body = this.#queue.splice(0, this.batch).join("\n");
      this.#waiting.splice(0).forEach(next => next());
      await this.#send(body);
    }
    this.#sending = null;
  }

  async #send(body) {
    const headers = { ...this.headers, "Idempotency-Key": randomUUID() };
    for (let wait = 1000; ; wait = Math.min(2 * wait, this.waitMax)) {
      let retryAfter = 0;
      try {
        const response = await fetch(this.url, { method: "POST", body, headers, signal: AbortSignal.timeout(60_000) });
        const text = await response.text();
        if (response.ok) {
          const reply = JSON.parse(text);
          if (reply.rejected) console.warn("rejected lines:", reply.errors);
          return;
        }
        if (response.status < 500 && ![408, 429].includes(response.status)) {
          return console.error("a batch is refused:", response.status, text);
        }
        retryAfter = 1000 * (Number(response.headers.get("Retry-After")) || 0);
      } catch {} // no reply, or not a whole one: it may be stored, which the key settles
      // As long as the server says, and a random part of a time that doubles, so that clients do not come at once.
      await sleep(retryAfter + 100 + Math.random() * (wait - 100));
    }
  }
}

if (import.meta.url === `file://${process.argv[1]}`) { // events from standard input
  const { createInterface } = await import("node:readline");
  const events = new Events(process.env.SLUICEGATE_URL, { key: process.env.SLUICEGATE_KEY });
  for await (const line of createInterface({ input: process.stdin })) await events.track(JSON.parse(line));
  await events.flush();
}
