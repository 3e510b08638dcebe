package admin

import (
	"context"
	"fmt"
	"io"
	"net/http"
)

// A WhoamiFunc answers who asks with a request that somebody wrote down.
type WhoamiFunc func(ctx context.Context, request []byte) (answer any, err error)

// maxRequest bounds a request that is written down, in bytes: what the service
// takes from nginx.
const maxRequest = 64 << 10

// whoami answers POST /whoami: a request, or its header lines, as the body.
func (a *Admin) whoami(w http.ResponseWriter, r *http.Request) {
	text, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxRequest))
	if err != nil {
		respond(w, http.StatusRequestEntityTooLarge, problem{fmt.Sprintf("the body is larger than %d bytes, or was cut", maxRequest)})
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), deadline)
	defer cancel()
	answer, err := a.opts.Whoami(ctx, text)
	if err != nil {
		respond(w, http.StatusBadRequest, problem{err.Error()})
		return
	}
	respond(w, http.StatusOK, answer)
}
