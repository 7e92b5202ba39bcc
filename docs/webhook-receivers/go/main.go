// Receives webhooks on 127.0.0.1:$PORT, verified with $WEBHOOK_SECRET.
package main

import (
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"sync"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
)

const mostBytes = 1 << 20

type event struct {
	EventType string `json:"event_type"`
}

type receiver struct {
	webhook *standardwebhooks.Webhook
	lock    sync.Mutex
	handled map[string]bool
}

// Does the work once. In your service: a row with the delivery as its unique key, in the work's own transaction.
func (r *receiver) handle(delivery string, event event) {
	r.lock.Lock()
	defer r.lock.Unlock()
	if r.handled[delivery] {
		return
	}
	fmt.Println("handled", delivery, event.EventType)
	r.handled[delivery] = true
}

func (r *receiver) ServeHTTP(answer http.ResponseWriter, request *http.Request) {
	// The bytes as they came: read, then verified, and only then parsed.
	body, err := io.ReadAll(http.MaxBytesReader(answer, request.Body, mostBytes))
	if err != nil {
		answer.WriteHeader(http.StatusRequestEntityTooLarge)
		return
	}
	if err := r.webhook.Verify(body, request.Header); err != nil {
		answer.WriteHeader(http.StatusUnauthorized)
		return
	}
	var event event
	if err := json.Unmarshal(body, &event); err != nil {
		answer.WriteHeader(http.StatusBadRequest)
		return
	}
	r.handle(request.Header.Get("webhook-id"), event)
	answer.WriteHeader(http.StatusNoContent)
}

func main() {
	webhook, err := standardwebhooks.NewWebhook(os.Getenv("WEBHOOK_SECRET"))
	if err != nil {
		log.Fatal(err)
	}
	server := http.Server{
		Addr:        "127.0.0.1:" + os.Getenv("PORT"),
		Handler:     &receiver{webhook: webhook, handled: map[string]bool{}},
		ReadTimeout: 30 * time.Second,
	}
	log.Fatal(server.ListenAndServe())
}
