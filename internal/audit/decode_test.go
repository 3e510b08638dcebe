package audit

import (
	"encoding/json"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
)

// Whatever decode reads, encoding/json reads as the same.
func FuzzDecodeReadsWhatJSONReads(f *testing.F) {
	random := rand.New(rand.NewPCG(3, 3))
	for _, r := range draw(random, 20) {
		r.Duration, r.Bytes, r.Generation, r.Protocol, r.Seq, r.Hash = 1.25, 17, 3, "2", 1, "x"
		f.Add(string(r.Append(nil)))
	}
	for _, line := range []string{
		`{}`, `{"v":1}`, `{"v":01}`, `{"v":1.5}`, `{"duration":1.}`, `{"duration":.5}`, `{"duration":00.5}`, `{"duration":1.2.3}`, `{"v":-1}`, `{"v":1e3}`, `{"v":9999999999999999999}`, `{"Path":"x"}`, `{"path":"\q"}`, `{"path":"\"}`, `{"path":"\ud800"}`,
		`{"path":"a","path":"b"}`, `{"user.groups":[]}`, `{"user.groups":["a","b"],"user.groups":["c"]}`, `{"user.groups":null}`, `{"time":"2026-01-01T00:00:00Z"}`, `{"time":"x"}`, `{"time":"2026-01-01t00:00:00z"}`, `{"v":1} `, `{"v":1,}`, `{"v":1}{}`, "{\"path\":\"\x01\"}", "{\"path\":\"\xff\"}", `{"seq":1,"hash":"a/b+c="}`,
	} {
		f.Add(line)
	}
	f.Fuzz(func(t *testing.T, line string) {
		var fast, slow Record
		if !decode([]byte(line), &fast) {
			return
		}
		if err := json.Unmarshal([]byte(line), &slow); err != nil {
			t.Fatalf("%s: read, %v", line, err)
		}
		if !reflect.DeepEqual(fast, slow) {
			t.Errorf("%s: read as %+v, want %+v", line, fast, slow)
		}
	})
}

// What the service writes is read without encoding/json, every member of it.
func TestWhatIsWrittenIsDecoded(t *testing.T) {
	full := bobs()
	full.Sealed, full.Range, full.Generation, full.Duration, full.Delivery, full.Bytes, full.Length, full.Size, full.Protocol, full.Note, full.Archive = "s", "bytes 0-1/2", 3, 0.5, Aborted, 1, 2, 3, "1.1", "a\nb", Part
	full.Path = "/\x1b \"\\ ä 😀"
	for _, kind := range []string{TypeDecision, TypeDelivery} {
		full.Type = kind
		line := strings.TrimSuffix(string(full.Append(nil)), "}") + `,"seq":7,"hash":"YQ=="}`
		var got, want Record
		if !decode([]byte(line), &got) {
			t.Fatalf("not decoded: %s", line)
		}
		if err := json.Unmarshal([]byte(line), &want); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%v: %+v, want %+v", err, got, want)
		}
	}
	set := reflect.ValueOf(full)
	for i := range set.NumField() {
		if f := set.Type().Field(i); f.IsExported() && f.Name != "Seq" && f.Name != "Hash" && set.Field(i).IsZero() {
			t.Errorf("%s is not in this test", f.Name)
		}
	}
}

func BenchmarkParse(b *testing.B) {
	r := bobs()
	r.Agent = "Mozilla/5.0 (X11; Linux x86_64; rv:133.0) Gecko/20100101 Firefox/133.0"
	line := r.Append(nil)
	b.Run("as it is written", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := Parse(line); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("encoding-json", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			var r Record
			if err := json.Unmarshal(line, &r); err != nil {
				b.Fatal(err)
			}
		}
	})
}
