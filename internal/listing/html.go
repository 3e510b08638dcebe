package listing

import (
	"context"
	"fmt"
	"path"
	"strconv"
	"strings"
	"time"

	"golang.org/x/text/language"

	"securefiles/authz"
)

// words are what the page says, in a language.
type words struct {
	Lang                             string
	Name, Type, Size, Modified       string
	Folder, File, Empty, First, Next string
	Path, Pages, Entries, OneEntry   string
	Share, Link, Zip                 string
	DecimalComma                     string
	Time                             string
}

// languages are how many tongues there are.
const languages = 2

func tongue(i int) words {
	return []words{{
		Lang: "en", Name: "Name", Type: "Type", Size: "Size", Modified: "Modified", Folder: "Folder", File: "File", Empty: "There is nothing here for you.",
		First: "First page", Next: "Next page", Path: "Path", Pages: "Pages", Entries: "entries", OneEntry: "entry",
		Share: "Get a link", Link: "Link", Zip: "Download all (zip)",
		DecimalComma: ".", Time: "2 Jan 2006, 15:04 MST",
	}, {
		Lang: "de", Name: "Name", Type: "Art", Size: "Größe", Modified: "Geändert", Folder: "Ordner", File: "Datei", Empty: "Hier ist nichts für Sie.",
		First: "Erste Seite", Next: "Nächste Seite", Path: "Pfad", Pages: "Seiten", Entries: "Einträge", OneEntry: "Eintrag",
		Share: "Link erstellen", Link: "Link", Zip: "Alles herunterladen (zip)",
		DecimalComma: ",", Time: "02.01.2006, 15:04 MST",
	}}[i]
}

// View is what a template shows.
type View struct {
	// T are the page's words.
	T words
	// Title is the directory's name, or the download's.
	Title string
	// Crumbs lead from the whole download to here; the last one is this directory.
	Crumbs []Crumb
	// Columns are what is told of each entry, with where it is sorted by that.
	Columns []Column
	Rows    []Row
	// Total is how many entries there are on all pages, in words.
	Total string
	// First and Next are where other pages are; empty where there is none.
	First, Next string
	// Share is where a form asks for a link, by POST, with Download as download and a
	// row's Path as path; empty where no row has one.
	Share, Download string
	// Zip is where all files below here are one; empty where they are not.
	Zip string
}

// A Crumb is a directory on the way.
type Crumb struct{ Name, URL string }

// A Column is one of name, type, size and modified. Sort is aria-sort, ascending,
// descending or none; URL is empty where nothing is sorted by it.
type Column struct{ Key, Label, URL, Sort string }

// A Row is an entry.
type Row struct {
	Name, URL, Type, Size string
	IsDir                 bool
	// Modified is for people, and Machine for programs.
	Modified, Machine string
	// Path is what a link can be asked for; empty where none can.
	Path string
}

func (l *Listing) html(ctx context.Context, p *shown) ([]byte, error) {
	q := p.out.Question
	tags, _, _ := language.ParseAcceptLanguage(q.Header.Get("Accept-Language")) // what is no language is English
	_, i, _ := l.tongues.Match(tags...)
	t := tongue(i)
	v := View{T: t, Title: q.Download.Name, Download: q.Download.Name, Next: p.nextURL()}
	switch {
	case p.bucket:
	case p.total == 1:
		v.Total = "1 " + t.OneEntry
	default:
		v.Total = strconv.Itoa(p.total) + " " + t.Entries
	}
	if l.roots[q.Download.Name].Zip != (Bounds{}) && len(p.entries) > 0 {
		v.Zip = p.here() + "?zip"
	}
	if !p.first {
		v.First = p.here() + p.asked.query("")
	}
	for dir, ok := q.Dir, true; ok; dir, ok = dir.Up() {
		c := Crumb{Name: dir.Base(), URL: dir.URL(q.Download.URL)}
		if c.Name = plain(c.Name); c.Name == "" {
			c.Name = q.Download.Name
		}
		v.Crumbs = append([]Crumb{c}, v.Crumbs...)
	}
	v.Title = v.Crumbs[len(v.Crumbs)-1].Name
	for _, c := range []Column{{Key: byName, Label: t.Name}, {Key: "type", Label: t.Type}, {Key: bySize, Label: t.Size}, {Key: byModified, Label: t.Modified}} {
		if c.Sort = "none"; p.bucket && c.Key == byName {
			c.Sort = "ascending"
		} else if !p.bucket && c.Key != "type" {
			other := p.asked
			if other.sort, other.down = c.Key, false; c.Key == p.asked.sort {
				c.Sort, other.down = "ascending", !p.asked.down
				if p.asked.down {
					c.Sort = "descending"
				}
			}
			c.URL = p.here() + other.query("")
		}
		v.Columns = append(v.Columns, c)
	}
	for _, e := range p.entries {
		row := Row{Name: plain(e.name), URL: e.url, IsDir: e.isDir, Type: t.Folder}
		if !e.changed.IsZero() {
			row.Modified, row.Machine = e.changed.UTC().Format(t.Time), e.changed.UTC().Format(time.RFC3339)
		}
		if !e.isDir {
			row.Size, row.Type = sizeOf(e.size, t.DecimalComma), typeOf(e.name, t.File)
			may, err := l.mayShare(ctx, p, e)
			if err != nil {
				return nil, err
			}
			if may {
				row.Path, v.Share = e.object, l.roots[q.Download.Name].Share
			}
		}
		v.Rows = append(v.Rows, row)
	}
	body, err := l.opts.Template.Write(&v)
	if body != nil && err != nil {
		l.opts.Logger.ErrorContext(ctx, "the template of listings cannot show a page, so the service's own is shown", "error", err)
		err = nil
	}
	if err != nil {
		return nil, fmt.Errorf("write a listing: %w", err)
	}
	return body, nil
}

// mayShare decides whether whoever sees a file may have a link to it.
func (l *Listing) mayShare(ctx context.Context, p *shown, e entry) (bool, error) {
	if l.roots[p.out.Question.Download.Name].Share == "" {
		return false, nil
	}
	query := p.out.Question.Query(p.out.Principal)
	query.Object, query.Action = e.object, authz.ActionShare
	decision, err := p.policy.Decide(ctx, query)
	if err != nil {
		return false, fmt.Errorf("decide what of a directory is shared: %w", err)
	}
	return decision.Effect == authz.Allow, nil
}

// plain is a name as it is shown: what would show the rest of it in another order, by which
// a.exe can look like a.pdf, is a mark. The link has the name as it is.
func plain(name string) string {
	return strings.Map(func(r rune) rune {
		if r >= 0x202a && r <= 0x202e || r >= 0x2066 && r <= 0x2069 {
			return 0xfffd
		}
		return r
	}, name)
}

// sizeOf is a size for people: `1.5 MiB`.
func sizeOf(n int64, comma string) string {
	if n < 1<<10 {
		return strconv.FormatInt(n, 10) + " B"
	}
	size, unit := float64(n)/(1<<10), 0
	for size >= 1023.95 && unit < 4 {
		size, unit = size/(1<<10), unit+1
	}
	return strings.Replace(strconv.FormatFloat(size, 'f', 1, 64), ".", comma, 1) + " " + []string{"KiB", "MiB", "GiB", "TiB", "PiB"}[unit]
}

// typeOf is what the end of a name says of a file, as far as it can be read: `PDF`.
func typeOf(name, otherwise string) string {
	ext := strings.TrimPrefix(path.Ext(name), ".")
	if ext == "" || len(ext) > 8 || strings.Trim(ext, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789") != "" {
		return otherwise
	}
	return strings.ToUpper(ext)
}
