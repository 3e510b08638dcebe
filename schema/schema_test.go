package schema_test

import (
	"bytes"
	"cmp"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml"
	gocmp "github.com/google/go-cmp/cmp"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"securefiles/authz"
	"securefiles/internal/audit"
	"securefiles/internal/config"
	"securefiles/internal/policytest"
)

var updateSchemas = flag.Bool("update-schemas", false, "write the schemas anew")

func anys(texts []string) (list []any) {
	for _, t := range texts {
		list = append(list, t)
	}
	return list
}

// schemaOf makes a schema of a type that is read from YAML. Descriptions are
// those of the page's table; fixed holds what a type does not tell, by path.
func schemaOf(t reflect.Type, path string, page map[string]string, fixed map[string]map[string]any) map[string]any {
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	s := map[string]any{}
	if text := page[path]; text != "" {
		s["description"] = text
	}
	switch {
	case t == reflect.TypeFor[config.Duration]():
		s["type"], s["pattern"] = "string", `^(([0-9]+(\.[0-9]+)?(ns|us|µs|ms|s|m|h))+|[0-9]+d)$`
	case t == reflect.TypeFor[time.Time]():
		s["type"], s["format"] = "string", "date-time"
	case t.Kind() == reflect.Struct:
		properties := map[string]any{}
		for i := range t.NumField() {
			f := t.Field(i)
			key, _, _ := strings.Cut(cmp.Or(f.Tag.Get("yaml"), f.Tag.Get("json")), ",")
			if key == "-" || key == "" {
				continue
			}
			properties[key] = schemaOf(f.Type, strings.TrimPrefix(path+"."+key, "."), page, fixed)
		}
		s["type"], s["additionalProperties"], s["properties"] = "object", false, properties
	case t.Kind() == reflect.Slice:
		s["type"], s["items"] = "array", schemaOf(t.Elem(), path+"[]", page, fixed)
	case t.Kind() == reflect.Map:
		s["type"], s["additionalProperties"] = "object", schemaOf(t.Elem(), path+"{}", page, fixed)
	case t.Kind() == reflect.Bool:
		s["type"] = "boolean"
	case t.Kind() == reflect.Int, t.Kind() == reflect.Int64:
		s["type"] = "integer"
	case t.Kind() == reflect.Uint64:
		s["type"], s["minimum"] = "integer", 0
	case t.Kind() == reflect.Float64:
		s["type"] = "number"
	default:
		s["type"] = "string"
	}
	for k, v := range fixed[path] {
		s[k] = v
	}
	return s
}

// descriptions reads the tables of a page: the first cell has keys in
// backticks, the last their meaning.
func descriptions(t *testing.T, page string) map[string]string {
	t.Helper()
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	link := regexp.MustCompile(`\[([^\]]*)\]\([^)]*\)`)
	for _, row := range regexp.MustCompile("(?m)^\\| (`[^|]*) \\|.*?([^|]*) \\|$").FindAllStringSubmatch(string(text), -1) {
		for _, key := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(row[1], -1) {
			out[key[1]] = strings.ReplaceAll(link.ReplaceAllString(strings.TrimSpace(row[2]), "$1"), "`", "")
		}
	}
	return out
}

var fence = regexp.MustCompile("(?ms)^```([a-z]+)\n(.*?)^```$")

func enum(values ...any) map[string]any { return map[string]any{"enum": values} }

// What the types do not tell. A key that is gone fails the test.
var (
	configSchema = map[string]map[string]any{
		"limits":                            {"description": "how much anybody takes"},
		"limits[].per":                      enum("subject", "group", "address", "download", "link"),
		"limits[].mode":                     enum("enforce", "observe"),
		"downloads":                         {"description": "the guarded URL prefixes"},
		"identity":                          {"description": "who asks: sources that are tried in order; the first that finds credentials decides"},
		"downloads[].deliver":               enum("proxy", "redirect"),
		"downloads[].storage":               {"description": "a store of objects in the place of root"},
		"downloads[].storage.s3":            {"description": "a bucket of Amazon S3, or of a store that speaks its protocol"},
		"downloads[].storage.azure":         {"description": "a container of Azure Blob Storage"},
		"downloads[].storage.gcs":           {"description": "a bucket of Google Cloud Storage, by a service account's key"},
		"downloads[].storage.s3.addressing": enum("host", "path"),
		"downloads[].disposition":           enum("attachment", "inline"),
		"downloads[].deny_status":           enum(404, 403),
		"downloads[].embed":                 enum("same-origin", "same-site", "cross-origin"),
		"log.format":                        enum("text", "json"),
		"log.level":                         enum("debug", "info", "warn", "error"),
		"identity[].certificate.subject":    enum("cn", "dn", "email", "dns", "uri"),
		"identity[].certificate.groups":     enum("ou"),
		"identity[].groups":                 enum("required", "optional"),
		"policy.role_depth":                 {"minimum": 1, "maximum": 100},
		"nginx.open_file_cache":             {"minimum": 0, "maximum": 1_000_000},
		"audit":                             {"description": "the record of what was decided and of what was delivered"},
		"audit.durability":                  enum("write", "fsync"),
		"audit.chain":                       {"description": "records are chained by hash, and their head is signed"},
		"audit.privacy":                     {"description": "what of a person is recorded, and for how long it is kept"},
		"audit.privacy.addresses":           enum("full", "short", "none"),
		"audit.privacy.subjects":            enum("plain", "keyed"),
		"audit.privacy.omit[]":              enum(anys(audit.Omittable())...),
	}
	testSchema = map[string]map[string]any{
		"":               {"required": []any{"tests"}},
		"tests":          {"minItems": 1, "description": "who asks for what, and what must come of it"},
		"tests[]":        {"required": []any{"subject", "path", "want"}},
		"tests[].want":   enum("allow", "deny"),
		"tests[].line":   {"minimum": 1},
		"tests[].action": enum("read", "list", "share"),
		"tests[].reason": enum("policy", "default-deny", "anonymous", "subject", "path", "unavailable"),
	}
)

// auditSchema says besides what a type does that a reader takes members which it does
// not know.
var auditSchema = map[string]map[string]any{
	"":         {"required": []any{"v", "type", "time"}, "additionalProperties": true},
	"v":        {"const": audit.Version},
	"type":     enum(audit.TypeDecision, audit.TypeDelivery, audit.TypeCheckpoint),
	"decision": enum("allow", "deny"),
	"reason":   enum(reasons()...),
	"delivery": enum(audit.Complete, audit.Aborted, audit.None, audit.Unknown),
}

func reasons() (all []any) {
	for _, r := range authz.Reasons() {
		all = append(all, string(r))
	}
	return all
}

// policyTests is a document of policy tests, as internal/policytest reads it.
type policyTests struct {
	Tests []policytest.Case `yaml:"tests"`
}

// The schemas have every key that is read, and no other; `go test ./schema
// -run Schema -update-schemas` writes them anew.
func TestSchemasAreThoseOfTheTypes(t *testing.T) {
	testPage := map[string]string{}
	for key, text := range descriptions(t, "../docs/policies.md") {
		testPage["tests[]."+key] = text
	}
	for _, row := range []struct {
		name, title string
		of          reflect.Type
		page        map[string]string
		fixed       map[string]map[string]any
	}{
		{"config", "securefiles.yaml", reflect.TypeFor[config.Config](), descriptions(t, "../docs/configuration.md"), configSchema},
		{"audit", "a record of securefiles' audit trail", reflect.TypeFor[audit.Record](), descriptions(t, "../docs/audit.md"), auditSchema},
		{"test", "policy tests of securefiles", reflect.TypeFor[policyTests](), testPage, testSchema},
	} {
		schema := schemaOf(row.of, "", row.page, row.fixed)
		schema["$schema"], schema["title"] = "https://json-schema.org/draft/2020-12/schema", row.title
		var want bytes.Buffer
		enc := json.NewEncoder(&want)
		enc.SetEscapeHTML(false)
		enc.SetIndent("", "  ")
		if err := enc.Encode(schema); err != nil {
			t.Fatal(err)
		}
		file := row.name + ".schema.json"
		if *updateSchemas {
			if err := os.WriteFile(file, want.Bytes(), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		got, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if diff := gocmp.Diff(want.String(), string(got)); diff != "" {
			t.Errorf("%s is not what the types and the documentation say: run go test ./schema -run Schema -update-schemas\n%s", file, diff)
		}
		for path := range row.fixed {
			if !hasPath(schema, path) {
				t.Errorf("%s: there is no %s any more", file, path)
			}
		}
	}
}

// hasPath reports whether a schema describes a key.
func hasPath(schema map[string]any, path string) bool {
	for part := range strings.SplitSeq(path, ".") {
		name, item := strings.CutSuffix(part, "[]")
		if name != "" {
			properties, _ := schema["properties"].(map[string]any)
			schema, _ = properties[name].(map[string]any)
		}
		if item {
			schema, _ = schema["items"].(map[string]any)
		}
	}
	return schema != nil
}

// What is read validates, and what has an unknown key or a wrong type does not.
func TestSchemasAgreeWithWhatIsRead(t *testing.T) {
	compiler := jsonschema.NewCompiler()
	compile := func(name string) *jsonschema.Schema {
		s, err := compiler.Compile(name + ".schema.json")
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	ofConfig, ofTest, ofAudit := compile("config"), compile("test"), compile("audit")
	validate := func(s *jsonschema.Schema, text string) error {
		for document := range strings.SplitSeq("\n"+text, "\n---\n") {
			asJSON, err := yaml.YAMLToJSON([]byte(document))
			if err != nil {
				return err
			}
			value, err := jsonschema.UnmarshalJSON(bytes.NewReader(asJSON))
			if err != nil {
				return err
			}
			if value == nil {
				continue
			}
			if err := s.Validate(value); err != nil {
				return err
			}
		}
		return nil
	}
	checked := 0
	accept := func(s *jsonschema.Schema, name, text string) {
		checked++
		if err := validate(s, text); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	files := func(pattern string) map[string]string {
		names, err := filepath.Glob(pattern)
		if err != nil || len(names) == 0 {
			t.Fatalf("%s: %v", pattern, err)
		}
		out := map[string]string{}
		for _, name := range names {
			text, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			out[name] = string(text)
		}
		return out
	}
	for name, text := range files("../internal/config/testdata/valid-*.yaml") {
		accept(ofConfig, name, text)
	}
	for name, text := range files("../examples/starter/securefiles.yaml") {
		accept(ofConfig, name, text)
	}
	for name, text := range files("../internal/policytest/testdata/cases/valid.yaml") {
		accept(ofTest, name, text)
	}
	for name, text := range files("../examples/starter/policy_test.yaml") {
		accept(ofTest, name, text)
	}
	pages := files("../docs/*.md")
	for name, text := range files("../README.md") {
		pages[name] = text
	}
	for name, page := range pages {
		for _, m := range fence.FindAllStringSubmatch(page, -1) {
			switch {
			case m[1] != "yaml", strings.HasPrefix(m[2], "scrape_configs:"):
			case strings.HasPrefix(m[2], "tests:"):
				accept(ofTest, name, m[2])
			default:
				accept(ofConfig, name, m[2])
			}
		}
	}
	for _, r := range []audit.Record{
		{Type: audit.TypeDecision, Time: time.Now(), Request: "5f", Path: "/a", Groups: []string{"@a"}, Decision: "allow", Reason: "policy", Generation: 1, Status: 204},
		{Type: audit.TypeDelivery, Time: time.Now(), Delivery: audit.Aborted, Bytes: 1, Length: 2, Size: 3, Protocol: "2", Range: "bytes 0-1/3"},
		{Type: audit.TypeCheckpoint, Time: time.Now(), Note: "a\n"},
	} {
		accept(ofAudit, "a record", string(r.Append(nil)))
	}
	for _, text := range []string{
		`{"v":2,"type":"decision","time":"2026-11-26T23:00:00.000000Z"}`, `{"v":1,"type":"decision"}`, `{"v":1,"type":"verdict","time":"2026-11-26T23:00:00.000000Z"}`,
		`{"v":1,"type":"decision","time":"2026-11-26T23:00:00.000000Z","reason":"mood"}`, `{"v":1,"type":"decision","time":"2026-11-26T23:00:00.000000Z","user.groups":"@a"}`,
	} {
		if validate(ofAudit, text) == nil {
			t.Errorf("a record is valid: %s", text)
		}
	}
	if checked < 8 {
		t.Errorf("checked %d", checked)
	}
	for _, text := range []string{
		"lisen: 127.0.0.1:1", "downloads: {name: main}", "downloads: [{nam: main}]", "downloads: [{deny_status: 200}]", "policy: {role_depth: deep}",
		"log: {level: loud}", "shutdown_delay: soon", "identity: [{jwt: {audience: files}}]", "listen: 1",
	} {
		if validate(ofConfig, text) == nil {
			t.Errorf("a configuration is valid: %s", text)
		}
	}
	refused := 0
	for name, text := range files("../internal/policytest/testdata/cases/invalid-*.yaml") {
		switch filepath.Base(name) {
		case "invalid-syntax.yaml", "invalid-duplicate-key.yaml", "invalid-empty.yaml", "invalid-reason-of-allow.yaml": // beyond a schema
			continue
		}
		refused++
		if validate(ofTest, text) == nil {
			t.Errorf("%s is valid", name)
		}
	}
	if refused < 10 {
		t.Errorf("refused %d", refused)
	}
}

// Every key of the configuration has a description in its schema.
func TestSchemaDescribesEveryKey(t *testing.T) {
	for _, name := range []string{"config", "test", "audit"} {
		text, err := os.ReadFile(name + ".schema.json")
		if err != nil {
			t.Fatal(err)
		}
		var schema any
		if err := json.Unmarshal(text, &schema); err != nil {
			t.Fatal(err)
		}
		var walk func(at string, v any)
		walk = func(at string, v any) {
			s, ok := v.(map[string]any)
			if !ok {
				return
			}
			properties, _ := s["properties"].(map[string]any)
			if len(properties) == 0 && s["description"] == nil && !strings.HasSuffix(at, "[]") {
				t.Errorf("%s: %s has no description: name it in the page's table", name, cmp.Or(at, "the root"))
			}
			for key, p := range properties {
				walk(at+"."+key, p)
			}
			if items, ok := s["items"].(map[string]any); ok && items["properties"] != nil {
				walk(at+"[]", items)
			}
		}
		walk("", schema)
	}
}
