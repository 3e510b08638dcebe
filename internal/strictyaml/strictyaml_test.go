package strictyaml_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"securefiles/internal/strictyaml"
)

func ExampleDocument_At() {
	type download struct {
		URL string `yaml:"url"`
	}
	var read struct {
		Downloads []download `yaml:"downloads"`
	}
	d := &strictyaml.Document{File: "securefiles.yaml"}
	if err := d.Decode([]byte("downloads:\n  - url: downloads/\n"), &read); err != nil {
		fmt.Println(err)
	}
	fmt.Println(d.At("downloads[0].url", "%q does not begin with /", read.Downloads[0].URL))
	// Output:
	// securefiles.yaml:2:10: error: downloads[0].url: "downloads/" does not begin with /
}

type sample struct {
	Name string            `yaml:"name"`
	On   bool              `yaml:"on"`
	Most int               `yaml:"most"`
	List []string          `yaml:"list"`
	Map  map[string]string `yaml:"map"`
}

func TestMistakesHavePlaceAndRemedy(t *testing.T) {
	for _, row := range []struct{ text, want string }{
		{"name: a\non: true\nmost: 1\nlist: [a]\nmap: {a: b}\n", ""},
		{"", ""},
		{"# nothing\n", ""},
		{"nam: a\n", `f.yaml:1:1: error: unknown field "nam": see the list of keys in docs/configuration.md, or remove it`},
		{"name: a\nname: b\n", "f.yaml:2:1: error: "},
		{"on: perhaps\n", "f.yaml:1:5: error: string was used where bool is expected: write true or false"},
		{"most: many\n", "f.yaml:1:7: error: string was used where int is expected: write a whole number"},
		{"list: a\n", "f.yaml:1:7: error: string was used where sequence is expected: write a list"},
		{"map: a\n", "f.yaml:1:6: error: string was used where mapping is expected: write lines KEY: VALUE"},
		{"name: a\n---\nname: b\n", "f.yaml:2:1: error: a second document"},
		{"list: !x \n", "f.yaml: error: cannot be read as YAML"}, // the library panics
		{"name: [a\n", "f.yaml:1:7: error: "},
	} {
		err := (&strictyaml.Document{File: "f.yaml"}).Decode([]byte(row.text), new(sample))
		if row.want == "" && err != nil || row.want != "" && (err == nil || !strings.HasPrefix(err.Error(), row.want)) {
			t.Errorf("%q\n got %v\nwant %s", row.text, err, row.want)
		}
	}
}

// What people trip over in YAML is named as what it is, with what to write.
func TestTabsAndIndentationAreNamed(t *testing.T) {
	type source struct {
		Header string `yaml:"header"`
		Value  string `yaml:"value"`
	}
	type file struct {
		Listen string `yaml:"listen"`
		Log    struct {
			Level  string `yaml:"level"`
			Format string `yaml:"format"`
		} `yaml:"log"`
		Identity []source `yaml:"identity"`
	}
	const tab = "a tab: YAML is indented with blanks alone, so write two for each level"
	for _, row := range []struct{ text, want string }{
		{"log:\n\tlevel: debug\n", "2:1: error: " + tab},
		{"\tlisten: a\n", "1:1: error: " + tab},
		{"identity:\n  - header: a\n  \tvalue: b\n", "3:3: error: " + tab},
		{"listen: |\n\ta\n", "2:1: error: " + tab},
		{"log:\n  level: debug\n   format: text\n", "3:4: error: begins with 3 blanks, and line 2 has its value already: write 2, as in line 2"},
		{"listen: a\n\n # a comment\n log: {}\n", "4:2: error: begins with 1 blank, and lines up with nothing above: write 0, as in line 1"},
		{"identity:\n  - header: a\n     value: b\n", "3:6: error: begins with 5 blanks, and line 2 has its value already: write 4, as in line 2"},
		{"identity:\n  - header: a\n   value: b\n", "3:4: error: begins with 3 blanks, and lines up with nothing above: write 4, as in line 2, or 0, as in line 1"},
		{"identity:\n  - header: a\n - header: b\n", "3:2: error: begins with 1 blank, and lines up with nothing above: write 2, as in line 2"},
		{"log:\n    level: debug\n  format: text\n", "3:3: error: begins with 2 blanks, and lines up with nothing above: write 4, as in line 2, or 0, as in line 1"},
		{" listen: a\nlog: {}\n", "2:1: error: begins with 0 blanks, and lines up with nothing above: write 1, as in line 1"},
		{"log:\nlevel: debug\n", `2:1: error: unknown field "level" here: if it belongs to log, in line 1, begin the line with 2 blanks`},
		{"log: # how\n\nlevel: debug\n", `3:1: error: unknown field "level" here: if it belongs to log, in line 1, begin the line with 2 blanks`},
		{"log:\n  level: debug\n  listen: a\n", `3:3: error: unknown field "listen" here: it is a key of the whole file: begin the line without blanks`},
		{"listen: a\nlevel: debug\n", `2:1: error: unknown field "level": see the list of keys in docs/configuration.md, or remove it`},
		{"log: level: debug\nlisten: a\n", "1:6: error: mapping value is not allowed in this context"}, // it is no indentation
	} {
		err := (&strictyaml.Document{File: "f.yaml"}).Decode([]byte(row.text), new(file))
		if got := fmt.Sprint(err); got != "f.yaml:"+row.want {
			t.Errorf("%q\n got %s\nwant f.yaml:%s", row.text, got, row.want)
		}
	}
}

func TestPlaceOfAPath(t *testing.T) {
	d := &strictyaml.Document{File: "f.yaml", Overridden: map[string]string{"name": "NAME"}}
	if err := d.Decode([]byte("on: true\nlist:\n  - a\n"), new(sample)); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		"on":      "f.yaml:1:5: error: on: wrong",
		"list[0]": "f.yaml:3:5: error: list[0]: wrong",
		"list[7]": "f.yaml:3:3: error: list[7]: wrong", // the nearest that there is
		"most":    "f.yaml: error: most: wrong",
		"name":    "environment: error: NAME: wrong",
	} {
		if got := d.At(path, "wrong").Error(); got != want {
			t.Errorf("%s\n got %s\nwant %s", path, got, want)
		}
	}
	if got := new(strictyaml.Document).At("on", "wrong").Error(); got != "configuration: error: on: wrong" {
		t.Errorf("without a file: %s", got)
	}
}

func TestReadIsBounded(t *testing.T) {
	file := filepath.Join(t.TempDir(), "f.yaml")
	for size, ok := range map[int]bool{1 << 20: true, 1<<20 + 1: false} {
		if err := os.WriteFile(file, []byte(strings.Repeat("#", size)), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := strictyaml.Read(file, "configuration")
		var ours *strictyaml.Error
		if (err == nil) != ok || err != nil && (!errors.As(err, &ours) || !strings.HasSuffix(ours.Message, "this is no configuration")) {
			t.Errorf("%d bytes: %v", size, err)
		}
	}
	if _, err := strictyaml.Read(file+".gone", "configuration"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
	if text, err := strictyaml.Read("", "configuration"); text != nil || err != nil {
		t.Errorf("no name: %q, %v", text, err)
	}
}

// Whatever the text, reading it ends with a value or an error that has the file.
func FuzzDecode(f *testing.F) {
	for _, text := range []string{"name: a\n", "list: [a, b]\n", "map: {a: b}\n", "a: &x [1]\nb: *x\n", "- \n", "? a\n: b\n", "---\n---\n", "\xff", "<<: {name: a}\n"} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		d := &strictyaml.Document{File: "f.yaml"}
		if err := d.Decode(text, new(sample)); err != nil && !strings.HasPrefix(err.Error(), "f.yaml") {
			t.Errorf("%q: %v", text, err)
		}
		nodes, err := d.Nodes(text)
		if err != nil && !strings.HasPrefix(err.Error(), "f.yaml") {
			t.Errorf("%q: %v", text, err)
		}
		for _, n := range nodes {
			for _, field := range strictyaml.Fields(n) {
				_ = strictyaml.Text(field.Key)
				strictyaml.Position(field.Key)
			}
			if err := strictyaml.Decode(n, new(sample)); err != nil && !strings.HasPrefix(d.Place(err).Error(), "f.yaml") {
				t.Errorf("%q: %v", text, err)
			}
		}
	})
}
