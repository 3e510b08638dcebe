package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"time"

	"securefiles/policy/explain"
)

const (
	maxQuestion = 64 << 10        // bytes
	deadline    = 8 * time.Second // before the server's write timeout
)

// explain answers POST /explain: a question as JSON, an explanation as JSON.
func (a *Admin) explain(w http.ResponseWriter, r *http.Request) {
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != "application/json" {
		respond(w, http.StatusUnsupportedMediaType, problem{"send application/json"})
		return
	}
	var q explain.Ask
	dec := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxQuestion))
	dec.DisallowUnknownFields()
	err := dec.Decode(&q)
	if err == nil {
		if _, more := dec.Token(); !errors.Is(more, io.EOF) {
			err = errors.Join(errors.New("something follows the question"), more)
		}
	}
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		respond(w, http.StatusRequestEntityTooLarge, problem{fmt.Sprintf("the body is larger than %d bytes", tooLarge.Limit)})
		return
	case err != nil:
		respond(w, http.StatusBadRequest, problem{"not a question: " + err.Error()})
		return
	}
	query, err := q.Query(a.opts.Downloads, a.opts.Policy.Zone())
	if err != nil {
		respond(w, http.StatusBadRequest, problem{err.Error()})
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), deadline)
	defer cancel()
	x, err := explain.Decision(ctx, a.opts.Policy, query)
	if err != nil {
		respond(w, http.StatusServiceUnavailable, problem{err.Error()})
		return
	}
	answer := struct {
		*explain.Explanation
		Limits any `json:"limits,omitempty"`
	}{Explanation: x}
	if a.opts.Limits != nil {
		answer.Limits = a.opts.Limits(ctx, query)
	}
	respond(w, http.StatusOK, answer)
}
