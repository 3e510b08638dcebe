package main

import (
	"encoding/xml"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const results = "machine\ttwo cores\nrounds\t3\t2\t5\n" +
	"variant\tstatic\tnobody is asked\tstatic\nrates\t100\t300\t200\t\nnginx\t1\t3\t2\t\nasked\t0\t0\t0\t\nbeside\t0\t0\t0\t\ncalls\t8.9\t0.0\t\nlatency\t30\t150\t100\t200\t1000\t2000\n" +
	"variant\tservice\tsomebody is\tstatic\nrates\t50\t60\t90\t\nnginx\t4\t4\t4\t\nasked\t5\t5\t5\t\nbeside\t0\t0\t0\t\ncalls\t20\t12.5\t\nlatency\t20\t100\t300\t400\t3000\t4000\n" +
	"wanted\tservice\tstatic\t0.4\nwanted\tservice\tabsent\t0.9\n"

func TestReportWritesTableAndCharts(t *testing.T) {
	docs := t.TempDir()
	page := filepath.Join(docs, "performance.md")
	if err := os.WriteFile(page, []byte("before\n"+begin+"old\n"+end+"after\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for range 2 { // once more changes nothing
		if err := report(docs, strings.NewReader(results)); err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{
			"before\n" + begin + "On two cores.",
			"| `static` | nobody is asked | 200 (150 to 250) | 1.00 | 2.22 | 2.0 | 8.9 | 0.10, 1.00, 2.00 at 30/s |\n",
			"| `service` | somebody is | 60 (55 to 75) | 0.45 | 1.00 | 4.0, 5.0 | 20.0, 12.5 | 0.30, 3.00, 4.00 at 20/s |\n",
			"\n\n- `service` / `static`: 0.45 (wanted: 0.40); by CPU time 0.22\n\n",
			end + "after\n",
		} {
			if strings.Count(string(text), want) != 1 {
				t.Errorf("the page has no %q:\n%s", want, text)
			}
		}
		if strings.Contains(string(text), "old") {
			t.Error("the old table is there yet")
		}
	}
	for _, name := range []string{"performance-rate.svg", "performance-latency.svg"} {
		f, err := os.Open(filepath.Join(docs, name))
		if err != nil {
			t.Fatal(err)
		}
		bars := 0
		for d := xml.NewDecoder(f); ; {
			token, err := d.Token()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if start, ok := token.(xml.StartElement); ok && start.Name.Local == "rect" {
				bars++
			}
		}
		if bars != 2 {
			t.Errorf("%s has %d bars", name, bars)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestReportRefusesWhatWasNotMeasured(t *testing.T) {
	for name, text := range map[string]string{
		"nothing":           "",
		"a word":            strings.Replace(results, "300", "many", 1),
		"a round less":      strings.Replace(results, "50\t60\t90", "50\t60", 1),
		"no calls":          strings.Replace(results, "calls\t20\t12.5\t\n", "", 1),
		"no latency":        strings.Replace(results, "100\t300\t400\t3000\t4000", "", 1),
		"what is not known": results + "else\t1\n",
	} {
		if _, err := read(strings.NewReader(text)); err == nil {
			t.Errorf("%s: it is taken", name)
		}
	}
}
