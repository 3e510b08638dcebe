package frontend

import (
	"path"
	"strings"

	"securefiles/authz"
)

// What a browser may do with a file that it shows, by kind. Nothing runs, and
// nothing is loaded from anywhere but for what the kind itself needs: browsers play
// a sound or film that is opened alone in a page of their own, which loads it from
// where it is, and in a sandbox that would be another site; none shows a PDF in one.
const (
	cspOfDocument = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; sandbox"
	cspOfMedia    = "default-src 'none'; style-src 'unsafe-inline'; media-src 'self'"
	cspOfPDF      = "default-src 'none'; style-src 'unsafe-inline'; object-src 'self'"
	// ancestors is added where only the site's own pages may embed a file.
	ancestors = "; frame-ancestors 'self'"
)

// contentSecurityPolicy is the policy of a file of some name: the download's own,
// else the one of its kind. The kind goes by the name's extension, as nginx's
// Content-Type does; an unknown one is a document.
func contentSecurityPolicy(d *authz.Download, name string) string {
	if d.CSP != "" {
		return d.CSP
	}
	csp := cspOfDocument
	switch strings.ToLower(path.Ext(name)) {
	case ".pdf":
		csp = cspOfPDF
	case ".mp3", ".m4a", ".aac", ".oga", ".ogg", ".opus", ".flac", ".wav", ".weba", ".mp4", ".m4v", ".mov", ".ogv", ".webm", ".mkv":
		csp = cspOfMedia
	}
	if d.SameOrigin {
		csp += ancestors
	}
	return csp
}
