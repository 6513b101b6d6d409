// Sends events to sluicegate, with Go's standard library alone (1.19 or newer).
//
//	events := New("https://events.example/api/events", "key")
//	defer events.Close()
//	err := events.Track(ctx, map[string]any{"event": "app_start"}) // waits while the queue is full
//
// A goroutine sends batches in order; one that has no reply is sent again under its own Idempotency-Key until there is
// one, so no event is lost or stored twice while the process lives.
package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"log"
	mathrand "math/rand"
	"net/http"
	"os"
	"strconv"
	"time"
)

const (
	batchMax = 500
	queueMax = 10_000
	linger   = time.Second
	waitMax  = 30 * time.Second
)

var client = http.Client{Timeout: time.Minute}

type Events struct {
	url, key string
	queue    chan []byte
	done     chan struct{}
}

func New(url, key string) *Events {
	events := &Events{url, key, make(chan []byte, queueMax), make(chan struct{})}
	go events.run()
	return events
}

// Track queues an event. It waits for room until the context is done.
func (e *Events) Track(ctx context.Context, event any) error {
	line, err := json.Marshal(event)
	if err != nil {
		return err
	}
	select {
	case e.queue <- line:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Close sends what is queued. Nothing may be tracked behind it.
func (e *Events) Close() { close(e.queue); <-e.done }

func (e *Events) run() {
	defer close(e.done)
	for line := range e.queue {
		lines, isDue := [][]byte{line}, time.After(linger)
		for isFull := false; !isFull; isFull = isFull || len(lines) == batchMax {
			select {
			case line, isOpen := <-e.queue:
				if isFull = !isOpen; isOpen {
					lines = append(lines, line)
				}
			case <-isDue:
				isFull = true
			}
		}
		e.send(bytes.Join(lines, []byte("\n")))
	}
}

// send repeats a batch until there is a reply.
func (e *Events) send(body []byte) {
	id := make([]byte, 16)
	rand.Read(id)
	for wait := time.Second; ; wait *= 2 {
		request, _ := http.NewRequest("POST", e.url, bytes.NewReader(body))
		request.Header.Set("Authorization", "Bearer "+e.key)
		request.Header.Set("Idempotency-Key", fmt.Sprintf("%x", id))
		var retryAfter int
		// Without a reply it may be stored, which the key settles.
		if response, err := client.Do(request); err == nil {
			reply, err := io.ReadAll(response.Body)
			response.Body.Close()
			status := response.StatusCode
			if err == nil && status < 500 && status != 408 && status != 429 {
				if status >= 300 || !bytes.Contains(reply, []byte(`"rejected":0`)) {
					log.Printf("events are refused: %d %s", status, reply)
				}
				return
			}
			retryAfter, _ = strconv.Atoi(response.Header.Get("Retry-After"))
		}
		// As long as the server says, and a random part of a time that doubles, so that clients do not come at once.
		if wait > waitMax {
			wait = waitMax
		}
		time.Sleep(time.Duration(retryAfter)*time.Second + wait/10 + time.Duration(mathrand.Int63n(int64(wait))))
	}
}

// Events from standard input.
func main() {
	mathrand.Seed(time.Now().UnixNano())
	events := New(os.Getenv("SLUICEGATE_URL"), os.Getenv("SLUICEGATE_KEY"))
	defer events.Close()
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		if err := events.Track(context.Background(), json.RawMessage(lines.Bytes())); err != nil {
			log.Fatal(err)
		}
	}
}
