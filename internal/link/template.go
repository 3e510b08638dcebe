package link

import (
	_ "embed" // the page
	"strings"

	"golang.org/x/net/html"

	"securefiles/internal/page"
)

// Page is the service's own page of links, an html/template: what to begin one's own with.
//
//go:embed page.html
var Page string

// NewTemplate returns what pages of links look like, by the html/template of a file, which
// Reload reads; without a file, the service's own.
func NewTemplate(file string) (*page.Template, error) {
	return page.New(page.Kind{Of: "links", Own: Page, Command: "securefiles link page", Docs: "docs/links.md", Max: 1 << 20, Samples: samples}, file)
}

// samples are a page of each kind, in each language.
func samples() []page.Sample {
	const link = "/downloads/report.pdf?link=eyJhbGciOiJIUzI1NiJ9.eyJqdGkiOiJleGFtcGxlIn0.c2lnbmF0dXJl"
	var all []view
	for i, t := range languages() {
		lang := tongues[i].String()
		asked := view{T: t, Lang: lang, Kind: "link", Title: t.Confirm, Text: t.ConfirmText, Action: ConfirmPath, URL: link, File: "report.pdf", Until: "1 January 2030", Left: "3", Size: "1.2 MiB"}
		secret := asked
		secret.Kind, secret.Text, secret.Password = "password", t.NeedsPassword, true
		bare := view{T: t, Lang: lang, Kind: "password", Title: t.Confirm, Text: t.NeedsPassword, Problem: t.WrongPassword, Action: ConfirmPath, URL: link, Password: true}
		all = append(all, asked, secret, bare, view{T: t, Lang: lang, Kind: "failed", Title: t.Failed, Text: t.FailedText, Problem: t.TooMany}, view{T: t, Lang: lang, Kind: "failed", Title: t.NotMade, Text: t.NotMadeText},
			view{T: t, Lang: lang, Kind: "made", Title: t.Made, Text: t.MadeText, Link: "https://files.example.org" + link, File: "report.pdf", Until: "1 January 2030"})
		for _, title := range []string{t.Expired, t.UsedUp, t.Revoked} {
			all = append(all, view{T: t, Lang: lang, Kind: "ended", Title: title, Text: t.EndedText})
		}
	}
	samples := make([]page.Sample, len(all))
	for i, v := range all {
		samples[i] = page.Sample{View: &v, When: when(&v), Lacks: func(body []byte) string { return lacks(body, &v) }}
	}
	return samples
}

func when(v *view) string {
	switch {
	case v.Link != "":
		return "it tells a link that was made"
	case v.Password:
		return "it asks for a password"
	}
	return "it asks for a confirmation"
}

// lacks says what a page must have and does not: without it, nobody can answer it, or has
// the link.
func lacks(body []byte, v *view) string {
	if v.Link != "" && !strings.Contains(html.UnescapeString(string(body)), v.Link) {
		return "does not show {{.Link}}"
	}
	if v.Action == "" {
		return ""
	}
	var inForm, sent, url, password bool
	problem := page.Tags(body, func(tag html.Token) {
		attribute := map[string]string{}
		for _, a := range tag.Attr {
			attribute[a.Key] = a.Val
		}
		switch tag.Data {
		case "form":
			inForm = tag.Type == html.StartTagToken && attribute["action"] == v.Action && strings.EqualFold(attribute["method"], "post") && attribute["enctype"] == ""
			sent = sent || inForm
		case "input":
			url = url || inForm && attribute["name"] == "url" && attribute["value"] == v.URL
			password = password || inForm && attribute["name"] == "password"
		}
	})
	switch {
	case problem != "":
		return problem
	case !sent:
		return `has no form with method="post" and action="{{.Action}}"`
	case !url:
		return `has no hidden field in its form that is called url and holds {{.URL}}`
	case v.Password && !password:
		return `has no field in its form that is called password`
	}
	return ""
}
