package listing

import (
	_ "embed" // the page
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/net/html"

	"securefiles/internal/page"
)

// Page is the service's own page of a listing, an html/template: what to begin one's own
// with.
//
//go:embed listing.html
var Page string

// maxPage bounds a page, in bytes: of 500 names that may be 255 bytes long and stand in it
// in several ways.
const maxPage = 16 << 20

// NewTemplate returns what pages of listings look like, by the html/template of a file,
// which Reload reads; without a file, the service's own.
func NewTemplate(file string) (*page.Template, error) {
	return page.New(page.Kind{Of: "listings", Own: Page, Command: "securefiles listing page", Docs: "docs/how-to.md", Max: maxPage, Samples: samples}, file)
}

// samples are a page of each kind, in each language.
func samples() []page.Sample {
	var all []page.Sample
	at := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	for i := range languages {
		t := tongue(i)
		empty := View{T: t, Title: "project", Download: "main", Crumbs: []Crumb{{"main", "/downloads/"}, {"project", "/downloads/project/"}}, Columns: []Column{{Key: byName, Label: t.Name, URL: "/downloads/project/?order=desc", Sort: "ascending"}, {Key: "type", Label: t.Type, Sort: "none"}}}
		full := empty
		full.Total, full.First, full.Next = "3 "+t.Entries, "/downloads/project/", "/downloads/project/?after=f%3A0%3Aq3.pdf"
		full.Rows = []Row{
			{Name: "2029", URL: "/downloads/project/2029/", Type: t.Folder, IsDir: true, Modified: at.Format(t.Time), Machine: at.Format(time.RFC3339)},
			{Name: "a <b>.txt", URL: "/downloads/project/a%20%3Cb%3E.txt", Type: "TXT", Size: "12 B", Modified: at.Format(t.Time), Machine: at.Format(time.RFC3339)},
			{Name: "q3.pdf", URL: "/downloads/project/q3.pdf", Type: "PDF", Size: "1.2 MiB", Modified: at.Format(t.Time), Machine: at.Format(time.RFC3339)},
		}
		shared := full
		shared.Share, shared.Zip, shared.Rows = "/_securefiles/links", "/downloads/project/?zip", slices.Clone(full.Rows)
		shared.Rows[2].Path = "/project/q3.pdf"
		timeless := full // as a bucket's: its folders have no time, and nobody counts
		timeless.Total, timeless.Columns = "", []Column{{Key: byName, Label: t.Name, Sort: "none"}}
		timeless.Rows = []Row{{Name: "2029", URL: "/downloads/project/2029/", Type: t.Folder, IsDir: true}}
		for _, v := range []View{empty, full, shared, timeless} {
			when := "there are files"
			if len(v.Rows) == 0 {
				when = "there is none"
			}
			all = append(all, page.Sample{View: &v, When: when, Lacks: func(body []byte) string { return lacks(body, &v) }})
		}
	}
	return all
}

// lacks says where a page does not lead, and must: there is no other way.
func lacks(body []byte, v *View) string {
	leads := map[string]bool{}
	problem := page.Tags(body, func(tag html.Token) {
		for _, a := range tag.Attr {
			if tag.Data == "a" && a.Key == "href" {
				leads[strings.TrimSpace(a.Val)] = true
			}
		}
	})
	if problem != "" {
		return problem
	}
	for _, row := range v.Rows {
		if !leads[row.URL] {
			return fmt.Sprintf("has no link to {{.URL}} of each of {{range .Rows}}: %s is not there", row.URL)
		}
	}
	if v.Next != "" && !leads[v.Next] {
		return "has no link to {{.Next}}"
	}
	return ""
}
