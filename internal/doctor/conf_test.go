package doctor

import (
	"fmt"
	"strings"
	"testing"
)

// show writes directives on one line each, with their blocks.
func show(block []directive) string {
	var b strings.Builder
	for _, d := range block {
		fmt.Fprintf(&b, "%d:%q", d.line, append([]string{d.name}, d.args...))
		if d.block != nil {
			fmt.Fprintf(&b, "{%s}", show(d.block))
		}
	}
	return b.String()
}

func TestConfigurationIsReadAsNginxReadsIt(t *testing.T) {
	for text, want := range map[string]string{
		"a;":                              `1:["a"]`,
		"a b c; d;":                       `1:["a" "b" "c"]1:["d"]`,
		"# a;\nb; # c;\n":                 `2:["b"]`,
		"a\n  b\n  c;":                    `1:["a" "b" "c"]`,
		"a {\n b;\n}\nc;":                 `1:["a"]{2:["b"]}4:["c"]`,
		`a "b c" 'd;e{f}' "#g";`:          `1:["a" "b c" "d;e{f}" "#g"]`,
		`a "b\"c" 'd\'e' f\ g;`:           `1:["a" "b\"c" "d'e" "f\\ g"]`,
		`a ~ \.txt$;`:                     `1:["a" "~" "\\.txt$"]`,
		"a ${b}c d#e;":                    `1:["a" "${b}c" "d#e"]`,
		`location ~ "^/[0-9]{3}/" { b; }`: `1:["location" "~" "^/[0-9]{3}/"]{1:["b"]}`,
		"a{b{c;}}":                        `1:["a"]{1:["b"]{1:["c"]}}`,
		"content_by_lua_block { if a then { b; } end }\nc;": `1:["content_by_lua_block"]2:["c"]`,
		`a "";`: `1:["a" ""]`,
		"":      ``,
	} {
		got, err := parseConf("x", text)
		if err != nil || show(got) != want {
			t.Errorf("%q: %s, %v; want %s", text, show(got), err, want)
		}
	}
	for text, want := range map[string]string{
		"a": "x:1: a is not ended", "\na {": "x:2: a is not ended", "}": "x:1: a } too many", ";": "x:1: nothing stands before ';'",
		`a "b`: "x:1: a quoted word is not ended", "a_by_lua_block {": "x:1: a block of Lua is not ended", strings.Repeat("a {", 100): "too many blocks in one another",
	} {
		if _, err := parseConf("x", text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
	}
}

func TestDumpIsPutTogetherByItsIncludes(t *testing.T) {
	d, err := parseDump(`# configuration file /etc/nginx/nginx.conf:
http {
    include conf.d/*.conf;
    include /srv/x/[a]b.conf;
    include none.conf;
}

# configuration file /etc/nginx/conf.d/b.conf:
b;
# configuration file /etc/nginx/conf.d/a.conf:
a { include snippets/s.conf; }
# configuration file /etc/nginx/snippets/s.conf:
s;
# configuration file /srv/x/[a]b.conf:
x;
`)
	if err != nil {
		t.Fatal(err)
	}
	tree, err := d.tree()
	if err != nil {
		t.Fatal(err)
	}
	http := named(tree, "http")
	if got := show(flat(http[0].block)); got != `1:["a"]{1:["include" "snippets/s.conf"]{1:["s"]}}1:["b"]1:["x"]` {
		t.Error(got)
	}
	if _, err := parseDump("nginx: the configuration file is ok\n"); err == nil || !strings.Contains(err.Error(), "nginx -T") {
		t.Error(err)
	}
	round, err := parseDump(fileMark + "/a:\ninclude /a;\n")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := round.tree(); err == nil || !strings.Contains(err.Error(), "include one another") {
		t.Error(err)
	}
}

// What nginx prints is not ours: whatever it is, it is read to its end or refused.
func FuzzConfigurationIsReadOrRefused(f *testing.F) {
	for _, seed := range []string{"a b;", "a { b 'c'; }", `a "\`, "a ${", "x_by_lua_block { {} }", "# configuration file /a:\ninclude *;\n"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		block, err := parseConf("x", text)
		if err == nil && strings.Count(text, "{") == 0 && strings.Count(text, ";") < len(block) {
			t.Errorf("%q: %d directives", text, len(block))
		}
		if d, err := parseDump(fileMark + "/a:\n" + text); err == nil {
			_, _ = d.tree() // it ends
		}
	})
}
