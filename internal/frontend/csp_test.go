package frontend

import (
	"strings"
	"testing"

	"securefiles/authz"
)

// Nothing that a browser shows runs, whatever its name: only a sound, a film and a
// PDF are in no sandbox, which has their players out.
func TestContentSecurityPolicyGoesByTheKindOfFile(t *testing.T) {
	for name, sandboxed := range map[string]bool{
		"a.html": true, "a.svg": true, "a.txt": true, "a": true, "a.": true, ".pdf.html": true, "a.pdf.svg": true, "a.xml": true, "a.xhtml": true, "a.js": true, "a.jpg": true,
		"pdf": true, "a.pdfx": true, "a.swf": true, "a.pdf ": true,
		"a.pdf": false, "A.PDF": false, ".pdf": false, "a.html.pdf": false, "a.mp3": false, "a.MP4": false, "a.webm": false, "a.ogg": false,
	} {
		csp := contentSecurityPolicy(&authz.Download{SameOrigin: true}, name)
		if strings.Contains(csp, "; sandbox") != sandboxed || !strings.HasPrefix(csp, "default-src 'none';") || strings.Contains(csp, "script-src") || !strings.HasSuffix(csp, "; frame-ancestors 'self'") {
			t.Errorf("%s: %s", name, csp)
		}
		if csp := contentSecurityPolicy(&authz.Download{}, name); strings.Contains(csp, "frame-ancestors") {
			t.Errorf("%s for everybody to embed: %s", name, csp)
		}
		if csp := contentSecurityPolicy(&authz.Download{CSP: "own", SameOrigin: true}, name); csp != "own" {
			t.Errorf("%s with a policy of its own: %s", name, csp)
		}
	}
}
