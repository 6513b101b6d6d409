// A service of Go's standard library alone: net/http, goroutines, channels.
// go-peer ADDRESS CLICKHOUSE_URL TABLE
//
// A request's lines become structs and go through a bounded channel to goroutines that gather them
// into an INSERT as JSONEachRow. A full channel holds the requests back.
//
// Left out: a disk, repeats of a failed INSERT, reasons of refused lines, any other table.
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/url"
	"os"
	"time"
)

const (
	// The size of an INSERT, whichever is first.
	batchRows  = 500_000
	batchBytes = 32 << 20
	batchAge   = time.Second

	inserters = 2
	// Requests that wait for an inserter.
	waitingMax   = 1024
	bodyBytesMax = 16 << 20
	timeLayout   = "2006-01-02 15:04:05"
)

// event is a line, and a row once ip and serverTime are written over.
type event struct {
	ClientTime string `json:"client_time"`
	DeviceID   string `json:"device_id"`
	DeviceOS   string `json:"device_os"`
	Session    string `json:"session"`
	Sequence   int64  `json:"sequence"`
	Event      string `json:"event"`
	ParamInt   int64  `json:"param_int"`
	ParamStr   string `json:"param_str"`
	IP         string `json:"ip"`
	ServerTime string `json:"server_time"`
}

func main() {
	if len(os.Args) != 4 {
		log.Fatal("go-peer ADDRESS CLICKHOUSE_URL TABLE")
	}
	address, clickhouse, table := os.Args[1], os.Args[2], os.Args[3]
	query := url.Values{
		"query":        {"INSERT INTO " + table + " FORMAT JSONEachRow"},
		"async_insert": {"0"},
	}
	waiting := make(chan []event, waitingMax)
	for i := 0; i < inserters; i++ {
		go gather(waiting, clickhouse+"/?"+query.Encode())
	}
	http.HandleFunc("/api/events", func(response http.ResponseWriter, request *http.Request) {
		take(response, request, waiting)
	})
	log.Fatal(http.ListenAndServe(address, nil))
}

func take(response http.ResponseWriter, request *http.Request, waiting chan<- []event) {
	if request.Method != http.MethodPost {
		http.Error(response, "only POST", http.StatusMethodNotAllowed)
		return
	}
	body, err := read(response, request)
	if err != nil {
		http.Error(response, err.Error(), http.StatusBadRequest)
		return
	}
	ip, _, _ := net.SplitHostPort(request.RemoteAddr)
	serverTime := time.Now().UTC().Format(timeLayout)
	events := make([]event, 0, 32)
	rejected := 0
	for len(body) > 0 {
		var line []byte
		line, body, _ = bytes.Cut(body, []byte{'\n'})
		if len(bytes.TrimSpace(line)) == 0 {
			continue
		}
		var e event
		if err := json.Unmarshal(line, &e); err != nil || !isTime(e.ClientTime) {
			rejected++
			continue
		}
		e.IP, e.ServerTime = ip, serverTime
		events = append(events, e)
	}
	waiting <- events
	response.Header().Set("Content-Type", "application/json")
	fmt.Fprintf(response, `{"accepted":%d,"rejected":%d}`, len(events), rejected)
}

// read returns the body, in one allocation where its length is known.
func read(response http.ResponseWriter, request *http.Request) ([]byte, error) {
	limited := http.MaxBytesReader(response, request.Body, bodyBytesMax)
	if request.ContentLength < 0 || request.ContentLength > bodyBytesMax {
		return io.ReadAll(limited)
	}
	body := make([]byte, request.ContentLength)
	_, err := io.ReadFull(limited, body)
	return body, err
}

// isTime keeps one bad line from failing an INSERT with everybody's rows.
func isTime(text string) bool {
	_, err := time.Parse(timeLayout, text)
	return err == nil
}

func gather(waiting <-chan []event, target string) {
	for events := range waiting {
		age := time.NewTimer(batchAge)
		var body bytes.Buffer
		encoder := json.NewEncoder(&body)
		encoder.SetEscapeHTML(false)
		rows := 0
		for full := false; !full; {
			for i := range events {
				if err := encoder.Encode(&events[i]); err != nil {
					log.Printf("a row is lost: %v", err)
					continue
				}
				rows++
			}
			if rows >= batchRows || body.Len() >= batchBytes {
				break
			}
			select {
			case events = <-waiting:
			case <-age.C:
				full = true
			}
		}
		age.Stop()
		if err := insert(target, &body); err != nil {
			log.Printf("%d rows are lost: %v", rows, err)
		}
	}
}

func insert(target string, body io.Reader) error {
	response, err := http.Post(target, "application/x-ndjson", body)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", response.Status, text)
	}
	return nil
}
