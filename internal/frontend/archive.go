package frontend

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"strconv"
	"time"

	"github.com/dustin/go-humanize"

	"securefiles/authz"
	"securefiles/pathguard"
)

const (
	// maxArchives is how many archives are sent at a time; more are refused.
	maxArchives = 64
	// archivePatience is how long a web server may take to read a part of one: behind it a
	// client reads, perhaps no faster than a limit of the rate lets it.
	archivePatience = 10 * time.Minute
)

// An Archive is what somebody may read of a directory, as one file.
type Archive interface {
	// Files are the outcomes of the files in it.
	Files() []*authz.Outcome
	// Size is how many bytes it has.
	Size() int64
	// Write writes it. After an error, what was written is none.
	Write(io.Writer) error
	Close() error
}

// Archive sends the files of a directory as one: here alone the service sends files itself.
// The question is decided again, and each file by itself; a record of each is kept before
// the first byte. What cannot be sent whole is broken off.
func (a *AuthRequest) Archive(w http.ResponseWriter, r *http.Request) {
	q := &authz.Question{Time: a.opts.Now(), ID: r.Header.Get(headerID)} // the same one takes nothing twice
	if err := a.read(q, r); err != nil || a.opts.Archive == nil {
		http.Error(w, http.StatusText(http.StatusNotFound), http.StatusNotFound)
		return
	}
	control := http.NewResponseController(w)
	_ = control.SetReadDeadline(time.Time{}) // or whoever waits for the end of it is taken for gone
	_ = control.SetWriteDeadline(a.opts.Now().Add(archivePatience))
	select {
	case a.archives <- struct{}{}:
		defer func() { <-a.archives }()
	default:
		a.noArchive(w, r, authz.Refuse(q, authz.ReasonUnavailable, fmt.Errorf("more than %d archives at a time", cap(a.archives))))
		return
	}
	out := a.guard.Check(r.Context(), q)
	if !out.Listed() || out.Page != authz.PageArchive || a.front(out.Download()).Kind != NGINX {
		out.GiveBack(r.Context()) // nothing is sent
		a.noArchive(w, r, out)
		return
	}
	archive, err := a.opts.Archive(r.Context(), out)
	if err != nil {
		a.noArchive(w, r, failed(out, err))
		return
	}
	defer archive.Close() //nolint:errcheck // it was read
	taken := a.guard.Archive(r.Context(), out, archive.Size())
	if !taken.Listed() {
		if err := a.record(r.Context(), taken, statusOf(taken)); err != nil {
			taken = failed(taken, err)
		}
		a.noArchive(w, r, taken)
		return
	}
	if a.opts.RecordAll != nil {
		if err := a.opts.RecordAll(r.Context(), archive.Files(), http.StatusOK, a.opts.Now().Sub(q.Time)); err != nil {
			taken.GiveBack(r.Context())
			a.noArchive(w, r, failed(out, unrecorded(err)))
			return
		}
	}
	h := w.Header()
	pageHeaders(h, out)
	h.Set("Content-Type", "application/zip")
	h.Set("Content-Length", strconv.FormatInt(archive.Size(), 10))
	h.Set("Accept-Ranges", "none")
	h.Set("Content-Disposition", pathguard.Disposition(pathguard.Attachment, cmp.Or(q.Dir.Base(), q.Download.Name)+".zip"))
	w.WriteHeader(http.StatusOK)
	if q.Method == http.MethodHead {
		return
	}
	if err := archive.Write(&patientWriter{w, control, a.opts.Now}); err != nil {
		a.journal.log.WarnContext(r.Context(), "an archive was broken off", "request_id", q.ID, "download", q.Download.Name, "path", q.Dir.String(), "error", err)
		panic(http.ErrAbortHandler) // or it would look whole
	}
}

// noArchive answers in the place of an archive.
func (a *AuthRequest) noArchive(w http.ResponseWriter, r *http.Request, out *authz.Outcome) {
	h := w.Header()
	pageHeaders(h, nil)
	status := statusOf(out)
	text := http.StatusText(status)
	var large *authz.TooLargeError
	switch {
	case errors.As(out.Err, &large):
		status, text = http.StatusRequestEntityTooLarge, tooLarge(large)
	case out.Reason == authz.ReasonUnavailable && errors.Is(out.Err, fs.ErrNotExist):
		status, text = http.StatusNotFound, http.StatusText(http.StatusNotFound)
	case status < http.StatusBadRequest: // it was another answer just now
		status, text = http.StatusServiceUnavailable, http.StatusText(http.StatusServiceUnavailable)
	}
	switch status {
	case http.StatusServiceUnavailable:
		h.Set("Retry-After", retryAfter)
	case http.StatusTooManyRequests:
		h.Set("Retry-After", retry(out))
	}
	if status == http.StatusServiceUnavailable || status == http.StatusTooManyRequests {
		a.journal.write(r.Context(), out, status, a.opts.Now())
	}
	http.Error(w, text, status)
}

// tooLarge says so to people.
func tooLarge(e *authz.TooLargeError) string {
	size := humanize.IBytes(uint64(e.Bytes))
	return fmt.Sprintf("This folder is too large for one archive, which has at most %d files and folders and %s. Download its folders one by one.\n\n"+
		"Dieser Ordner ist zu groß für ein Archiv, das höchstens %d Dateien und Ordner und %s hat. Laden Sie seine Unterordner einzeln herunter.", e.Entries, size, e.Entries, size)
}

// A patientWriter gives whoever reads some time for each part.
type patientWriter struct {
	w       io.Writer
	control *http.ResponseController
	now     func() time.Time
}

func (p *patientWriter) Write(b []byte) (int, error) {
	if err := p.control.SetWriteDeadline(p.now().Add(archivePatience)); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return 0, err
	}
	return p.w.Write(b)
}
