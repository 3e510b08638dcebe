package storagetest

import (
	"encoding/base64"
	"encoding/xml"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// A page is what a container says of what begins with a prefix.
type page struct {
	names    []string // of objects, and of prefixes with the slash behind them
	next     string
	lengthOf func(name string) int
}

// page lists a container: at most so many names behind a token, each up to the next slash.
func (o *Objects) page(container, prefix, delimiter, token, most string) (*page, error) {
	n, err := strconv.Atoi(most)
	if err != nil || n < 1 || n > 1000 || delimiter != "/" {
		return nil, fmt.Errorf("at most %q, delimiter %q", most, delimiter)
	}
	after, err := base64.URLEncoding.DecodeString(token)
	if err != nil {
		return nil, err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	p := &page{lengthOf: func(name string) int { return len(o.texts[container+"/"+name]) }}
	for path := range o.texts {
		name, inside := strings.CutPrefix(path, container+"/")
		rest, begins := strings.CutPrefix(name, prefix)
		if !inside || !begins {
			continue
		}
		if i := strings.IndexByte(rest, '/'); i >= 0 {
			name = prefix + rest[:i+1]
		}
		if name > string(after) {
			p.names = append(p.names, name)
		}
	}
	slices.Sort(p.names)
	if p.names = slices.Compact(p.names); len(p.names) > n {
		p.names = p.names[:n]
		p.next = base64.URLEncoding.EncodeToString([]byte(p.names[n-1]))
	}
	return p, nil
}

func text(s string) string {
	var b strings.Builder
	_ = xml.EscapeText(&b, []byte(s)) // it has no error
	return b.String()
}

// list is List Blobs (Microsoft, "List Blobs").
func (a *Azure) list(w http.ResponseWriter, container string, q url.Values) {
	p, err := a.Objects.page(container, q.Get("prefix"), q.Get("delimiter"), q.Get("marker"), q.Get("maxresults"))
	if err != nil {
		refuse(w, http.StatusBadRequest, err.Error())
		return
	}
	var b strings.Builder
	fmt.Fprintf(&b, "\ufeff<?xml version=\"1.0\" encoding=\"utf-8\"?><EnumerationResults ContainerName=\"%s\"><Prefix>%s</Prefix><Delimiter>/</Delimiter><Blobs>", text(container), text(q.Get("prefix")))
	for _, name := range p.names {
		if strings.HasSuffix(name, "/") {
			fmt.Fprintf(&b, "<BlobPrefix><Name>%s</Name></BlobPrefix>", text(name))
			continue
		}
		fmt.Fprintf(&b, "<Blob><Name>%s</Name><Properties><Last-Modified>%s</Last-Modified><Content-Length>%d</Content-Length><BlobType>BlockBlob</BlobType></Properties></Blob>",
			text(name), Modified.Format(http.TimeFormat), p.lengthOf(name))
	}
	fmt.Fprintf(&b, "</Blobs><NextMarker>%s</NextMarker></EnumerationResults>", p.next)
	w.Header().Set("Content-Type", "application/xml")
	_, _ = w.Write([]byte(b.String())) // to whoever still listens
}

// list is the list of objects of version 2 (Google, "List objects").
func (g *GCS) list(w http.ResponseWriter, bucket string, q url.Values) {
	p, err := g.Objects.page(bucket, q.Get("prefix"), q.Get("delimiter"), q.Get("continuation-token"), q.Get("max-keys"))
	if err != nil {
		refuse(w, http.StatusBadRequest, err.Error())
		return
	}
	shown := text
	var b strings.Builder
	fmt.Fprintf(&b, "<?xml version='1.0' encoding='UTF-8'?><ListBucketResult xmlns='http://doc.s3.amazonaws.com/2006-03-01'><Name>%s</Name>", text(bucket))
	if q.Get("encoding-type") == "url" {
		shown = url.QueryEscape
		b.WriteString("<EncodingType>url</EncodingType>")
	}
	fmt.Fprintf(&b, "<Prefix>%s</Prefix><Delimiter>/</Delimiter><KeyCount>%d</KeyCount><IsTruncated>%t</IsTruncated>", shown(q.Get("prefix")), len(p.names), p.next != "")
	if p.next != "" {
		fmt.Fprintf(&b, "<NextContinuationToken>%s</NextContinuationToken>", p.next)
	}
	for _, name := range p.names {
		if strings.HasSuffix(name, "/") {
			fmt.Fprintf(&b, "<CommonPrefixes><Prefix>%s</Prefix></CommonPrefixes>", shown(name))
			continue
		}
		fmt.Fprintf(&b, "<Contents><Key>%s</Key><Generation>1</Generation><LastModified>%s</LastModified><ETag>\"x\"</ETag><Size>%d</Size></Contents>", shown(name), Modified.Format("2006-01-02T15:04:05.000Z"), p.lengthOf(name))
	}
	b.WriteString("</ListBucketResult>")
	w.Header().Set("Content-Type", "application/xml; charset=UTF-8")
	_, _ = w.Write([]byte(b.String())) // to whoever still listens
}
